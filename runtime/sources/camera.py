"""A live camera of any kind: a thread that captures and keeps the newest frame only, another that opens it again when it stalls or goes away.

    camera = open_camera("v4l2:///dev/video0?fps=30", MonotonicClock())
    camera.start()
    while camera.wait(1.0): [frame] = camera.take()

A read that hangs never hangs the caller: its thread is left behind, and ends when the driver lets it go.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import TYPE_CHECKING, Any

from ..errors import SourceError, UsageError
from ..notice import Notice
from ..secrets import without_secrets
from ..ticks import NS_PER_S
from . import CameraCounts, FrameEvent
from .backoff import Backoff
from .bell import Bell
from .reader import Ended, Opener, Reader, Unreachable
from .uri import CameraUri, parse_camera
from .waiting import Waiting
from .watch import Limits, Watch

if TYPE_CHECKING:
    from ..clock import Clock

_NAP_S = 0.5  # how often the keeper looks, at least
_LET_GO_S = 0.5  # how long a reader is waited for before its thread is left behind
_HUNG_MOST = 4  # threads left behind before nothing is opened any more
_STEADY_S = 10.0  # frames for so long: the next fault is a new one
_RECORDED = Limits(stall_s=math.inf, frozen_s=math.inf, black_s=math.inf)


def open_camera(text: str, clock: Clock) -> LiveCamera:
    """The camera that `text` names; nothing is opened before `start`. Raises UsageError for a URI with a typo and for "none"."""
    uri = parse_camera(text)
    if uri is None:
        raise UsageError("camera 'none' cannot be opened; name one, such as camera:0")
    recorded = uri.kind == "file"
    return LiveCamera(uri, clock, _opener(uri, clock), _RECORDED if recorded else Limits(), keep_all=recorded and not uri.pace)


def _opener(uri: CameraUri, clock: Clock) -> Opener:
    def make() -> Reader:
        if uri.kind == "v4l2":
            from .v4l2 import V4l2Reader

            return V4l2Reader(uri, clock)
        if uri.kind == "csi":
            from .gstreamer import open_csi

            return open_csi(uri, clock)
        if uri.kind == "stream":
            from .stream import StreamReader

            return StreamReader(uri, clock)
        from .playback import FileReader

        return FileReader(uri, clock)

    return make


@dataclasses.dataclass
class _Opening:
    """One try: when it was begun or open or its last frame came; `reader` once it is open, `error` once it is over; when its first frame came, and
    whether it has given a new picture; how many of its damaged and skipped frames were counted."""

    last_ns: int
    reader: Reader | None = None
    error: SourceError | None = None
    first_ns: int | None = None
    live: bool = False
    damaged: int = 0
    skipped: int = 0
    done: threading.Event = dataclasses.field(default_factory=threading.Event)


class LiveCamera:
    """See `sources.Camera`. Pixels that are handed out are never written again. `start` and `close` belong to one thread, `wait` and `take` to one,
    the rest to any.

    `keep_all` waits until a frame is taken instead of replacing it.
    """

    def __init__(self, uri: CameraUri, clock: Clock, opener: Opener, limits: Limits | None = None, *, keep_all: bool = False) -> None:
        self.uri = uri.text
        self.asked = uri.asked
        self.granted: dict[str, Any] | None = None
        self.state = "opening"
        self.counts = CameraCounts()
        self._clock, self._opener, self._keep_all = clock, opener, keep_all
        self._limits = limits or Limits()
        self._watch = Watch(self._limits)
        self._backoff = Backoff(self._limits.retry_s, self._limits.retry_most_s)
        self._lock = threading.Lock()
        """Guards all that follows."""
        self._came, self._went = Bell(), Bell()  # a frame, or the end
        self._waiting = Waiting(self.counts)
        self._notices: list[Notice] = []
        self._current: _Opening | None = None
        self._over = self._closing = self._lived = False
        self._refusal: SourceError | None = None
        self._said: str | None = None
        self._wake = Bell()  # for the keeper: something has ended
        self._settled = threading.Event()  # for start: the first opening has worked, or has not
        self._keeper: threading.Thread | None = None
        self._hung: list[threading.Thread] = []

    @property
    def ended(self) -> bool:
        """A file is over and its last frame was taken."""
        return self._over and not self._waiting.frames

    def start(self) -> None:
        """See `sources.Camera`; comes back when it is open, or is being tried again because it is not there now."""
        if self._keeper is not None or self._closing:
            raise UsageError(f"camera {self.uri} was started before; open another")
        self._keeper = threading.Thread(target=self._keep, name="camera", daemon=True)
        self._keeper.start()
        self._settled.wait(self._limits.first_s + 1)
        if self._refusal is not None:
            self.close()
            raise self._refusal

    def wait(self, timeout_s: float, gather_until_ns: int = 0, most: int = 1) -> bool:
        """See `sources.Camera`."""
        waiting = self._waiting
        waiting.most, waiting.gather_until_ns = most, 0 if self._keep_all else gather_until_ns
        if not waiting.enough() and not self._over and not self._closing:
            self._came.wait(timeout_s)
        waiting.gather_until_ns = 0
        return bool(waiting.frames)

    def nudge(self) -> None:
        """See `sources.Camera`."""
        with self._lock:
            self._came.ring()

    def hush(self) -> None:
        """See `sources.Camera`."""
        self._came.hush()  # `wait` looks for frames, and for an end, before it listens

    def take(self) -> list[FrameEvent]:
        """See `sources.Camera`."""
        if not self._waiting.frames:
            return []
        with self._lock:
            taken = self._waiting.take()
            self._came.hush()
            if self._keep_all:
                self._went.ring()  # after they were taken: who hears it looks at once
            return taken

    def notices(self) -> list[Notice]:
        """See `sources.Camera`."""
        if not self._notices:
            return []
        with self._lock:
            notices, self._notices = self._notices, []
            return notices

    def close(self) -> None:
        """See `sources.Camera`; takes a second at most, whatever the driver does."""
        with self._lock:
            self._closing, self._current = True, None
            self._came.ring()
            self._went.ring()
            self._wake.ring()
        if self._keeper is not None:
            self._keeper.join(4 * _LET_GO_S)
        with self._lock:
            self._waiting.take()

    # ---- the keeper: opens, watches, opens again

    def _keep(self) -> None:
        while not self._closing:
            self._hung = [thread for thread in self._hung if thread.is_alive()]
            if len(self._hung) < _HUNG_MOST:
                try:
                    self._once()
                except Exception as error:  # no thread to be had, a reader that cannot be interrupted: it is tried again
                    with self._lock:
                        self._current = None
                        self._conclude(self._mistake(error), None)
            else:
                with self._lock:
                    self.state = "gone"
                    self._say("camera_gone", f"{self.uri}: its driver holds {len(self._hung)} reads; unplug it, or restart the machine")
            if self._over or self._refusal is not None:
                break
            self._sleep(self._backoff.next_s())
        self._settled.set()

    def _once(self) -> None:
        """Open it and stay until that is over."""
        opening = _Opening(self._clock.now_ns())
        with self._lock:
            if self._closing:
                return
            self._current = opening
            self._watch.opened(opening.last_ns, None)
        thread = threading.Thread(target=self._capture, args=(opening,), name="capture", daemon=True)
        thread.start()
        why = self._attend(opening)
        with self._lock:
            self._current = None
            self._went.ring()
            if opening.first_ns is not None and self._clock.now_ns() - opening.first_ns > _STEADY_S * NS_PER_S:
                self._backoff.reset()
            self._conclude(opening.error, why)
        try:
            if opening.reader is not None:
                opening.reader.interrupt()
        finally:
            if not opening.done.wait(_LET_GO_S):
                self._hung.append(thread)

    def _attend(self, opening: _Opening) -> str | None:
        """Wait until `opening` fails or is overdue; why it is overdue."""
        nap_s = min(_NAP_S, self._limits.stall_s / 4)
        now_ns = silent_ns = self._clock.now_ns()
        while not self._closing:
            self._wake.wait(nap_s)
            with self._lock:
                before_ns, now_ns = now_ns, self._clock.now_ns()
                if opening.error is not None:
                    return None
                late_ns = now_ns - before_ns - round(nap_s * NS_PER_S)  # this process, or the machine, stood still: the camera has had no chance
                silent_ns = max(opening.last_ns, silent_ns + max(0, late_ns))
                if late_ns <= nap_s * NS_PER_S and (why := self._watch.overdue(opening.last_ns + now_ns - silent_ns)):
                    return why
        return None

    def _conclude(self, error: SourceError | None, why: str | None) -> None:
        """What it means that an opening is over: state and notice. Holds the lock."""
        if self._closing:
            return
        if isinstance(error, Ended):
            self._over, self.state = True, "gone"
            self._came.ring()
            self._say("camera_gone", str(error))
        elif error is not None and not self._settled.is_set() and not isinstance(error, Unreachable):
            self._refusal = error
        elif error is not None:
            self.state = "gone"
            self._say("camera_gone", f"{error}; trying again")
        elif why is not None:
            self.state = "stalled"
            self._say("camera_stalled", f"{self.uri} {why}; opening it again")
        self._settled.set()

    def _say(self, what: str, detail: str) -> None:
        """A notice, but not the same one again and again while it keeps failing. Holds the lock."""
        said = detail if what == "camera_gone" else what
        if said != self._said:
            self._said = said
            self._notices.append(Notice(self._clock.now_ns(), what, detail))

    def _mistake(self, error: Exception) -> SourceError:
        reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
        return SourceError(f"{self.uri} failed ({reason}); report it with the output of 'sage-edge devices'")

    def _sleep(self, seconds: float) -> None:
        end_ns = self._clock.now_ns() + round(seconds * NS_PER_S)
        while not self._closing and (left_ns := end_ns - self._clock.now_ns()) > 0:
            self._wake.wait(left_ns / NS_PER_S)

    # ---- the capture thread: one for each opening

    def _capture(self, opening: _Opening) -> None:
        reader: Reader | None = None
        try:
            reader = self._opener()
            with self._lock:
                if opening is self._current:
                    self._opened(opening, reader)
            while opening is self._current:
                self._take(opening, reader, reader.read())
        except SourceError as error:
            opening.error = type(error)(*error.args)  # not itself: it knows what called it, and with that this opening
        except Exception as error:
            opening.error = self._mistake(error)
        finally:
            try:
                if reader is not None:
                    reader.close()
            finally:
                opening.done.set()
                with self._lock:
                    self._wake.ring()

    def _opened(self, opening: _Opening, reader: Reader) -> None:
        opening.reader = reader
        self.granted = dict(reader.granted)
        opening.last_ns = self._clock.now_ns()
        self._watch.opened(opening.last_ns, self.granted["rate_hz"])
        self._settled.set()

    def _take(self, opening: _Opening, reader: Reader, event: FrameEvent | None) -> None:
        with self._lock:
            if opening is not self._current:
                return
            if reader.damaged != opening.damaged or reader.skipped != opening.skipped:
                self._count_lost(opening, reader)
            if event is None:
                return
            now_ns, watch = self._clock.now_ns(), self._watch
            new = watch.frame(now_ns, event.pixels, event.format)
            opening.last_ns = now_ns
            self.counts.frames += 1
            if not opening.live:
                opening.first_ns = now_ns if opening.first_ns is None else opening.first_ns
                if not new:
                    self.counts.stale += 1
                    return
                self._live(opening, now_ns)
            if watch.news:
                self._notices += [Notice(now_ns, "camera_changed", f"{self.uri} {change}") for change in watch.changes()]
            if not self._waiting.frames or not self._keep_all:
                if self._waiting.put(event):
                    self._came.ring()
                return
        while self._waiting.frames and opening is self._current:
            self._went.wait()
        with self._lock:
            if opening is self._current and self._waiting.put(event):
                self._came.ring()

    def _count_lost(self, opening: _Opening, reader: Reader) -> None:
        """Frames that the reader could not decode, or left out to catch up. Holds the lock."""
        self.counts.damaged += reader.damaged - opening.damaged
        self.counts.frames += reader.skipped - opening.skipped
        self.counts.stale += reader.skipped - opening.skipped
        opening.damaged, opening.skipped = reader.damaged, reader.skipped

    def _live(self, opening: _Opening, now_ns: int) -> None:
        """The first new picture of an opening. Holds the lock."""
        opening.live = True
        self.counts.reopened += self._lived
        self._lived, self.state, self._said = True, "live", None
        asked = ", ".join(f"{key} {value}" for key, value in self.asked.items() if value is not None) or "nothing"
        granted = ", ".join(f"{key} {value}" for key, value in (self.granted or {}).items() if value is not None) or "nothing known"
        self._notices.append(Notice(now_ns, "camera_open", f"{self.uri}: asked {asked}; granted {granted}"))
