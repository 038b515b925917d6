"""A live microphone: PortAudio calls libsage, libsage keeps the samples, `read` fetches them; a thread watches that they keep coming.

    microphone = open_microphone("mic:default", MonotonicClock())
    microphone.start()
    for event in microphone.read(): session.push_audio(event.samples, event.t_ns)

No Python runs when sound comes, so a busy interpreter loses none: `KEPT_S` seconds wait for the next `read`. What the device's clock is off by is
taken out (`steady.py`). A microphone that falls silent for `STALL_S`, ends, or fails in any other way is opened again, with back-off.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clock import Clock
from ..errors import SourceError, UsageError
from ..native import AudioCapture
from ..notice import Notice
from ..ticks import NS_PER_S
from . import AudioEvent, Microphone, MicrophoneCounts
from .backoff import Backoff
from .portaudio import Device, Recording, find_microphone, leave_open, refresh
from .pulse import pulse_sources, recorded_number
from .steady import Steady
from .uri import MicrophoneUri, parse_microphone

KEPT_S = 10
"""Sound that waits for `read`; what is older by then is an overrun."""
SETTLE_S = 0.5
"""The first sound waits for this long, until its clock is known to a millisecond."""
STALL_S = 1.0
"""A microphone that gives nothing for this long is stalled; twice this, and it is closed."""
_ROOM_S = KEPT_S + 2
_LOOK_S = 0.2
_SOURCE_S = 4.0
_CLOSE_S = 2.0


def open_microphone(text: str, clock: Clock) -> Microphone:
    """The microphone that `text` (mic:NAME, mic:default) names, not yet started. Raises UsageError."""
    uri = parse_microphone(text)
    if uri is None:
        raise UsageError("microphone 'none' cannot be opened; write mic:default, or mic:NAME")
    return PortAudioMicrophone(uri, clock)


@dataclass
class _Take:
    """One opening of the device: the watching thread makes it and says when it is over, the reading one empties it."""

    recording: Recording
    capture: AudioCapture
    opened_ns: int
    source: str | None
    """Of a sound server: what it records now, and the server's number for that."""
    number: int | None = None
    at: int = 0
    """The next sample to read."""
    losses: int = 0
    """Samples overrun and overflows of the device, as far as they are in the counts."""
    looked_at: int = 0
    """Where the counts were last looked at."""
    over: bool = False


class PortAudioMicrophone:
    """See `Microphone`. `read` and `notices` are for one thread; neither waits for the device."""

    def __init__(self, uri: MicrophoneUri, clock: Clock) -> None:
        self.uri = uri.text
        self.asked: dict[str, Any] = {"rate_hz": uri.rate_hz, "channels": uri.channels}
        self.granted: dict[str, Any] | None = None
        self.state = "opening"
        self.counts = MicrophoneCounts()
        self.drift_ppm: float | None = None
        self.lateness_p99_ms: float | None = None
        """How long after its due time 99 % of the callbacks came, since the device was opened."""
        self._uri, self._clock = uri, clock
        self._notices: deque[Notice] = deque()
        self._takes: deque[_Take] = deque()
        self._now: _Take | None = None  # this and the next four are the watching thread's
        self._backoff, self._source_ns = Backoff(), clock.now_ns()
        self._looked_ns = self._silent_ns = clock.now_ns()  # the last look, and since when it is silent
        self._failed: str | None = None
        self._steady: Steady | None = None
        self._losses = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open it and begin. Raises SourceError for what can never work: no such microphone, a busy one, a rate that it does not have."""
        try:
            self._open(find_microphone(self._uri.name))
        except SourceError:  # by PortAudio's list of devices, which is as old as the process
            if not refresh():
                raise
            self._open(find_microphone(self._uri.name))
        self._thread = threading.Thread(target=self._watch, name="microphone", daemon=True)
        self._thread.start()

    def read(self) -> list[AudioEvent]:
        """All new sound at 16 kHz on this machine's clock; chunks that follow each other touch, a gap in the stamps is a gap in the sound."""
        events: list[AudioEvent] = []
        while self._takes:
            take = self._takes[0]
            over = take.over  # asked before the last look: nothing comes after it
            events += self._drain(take)
            if not over:
                break
            self._takes.popleft()
        return events

    def notices(self) -> list[Notice]:
        """What has changed since the last call."""
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def close(self) -> None:
        """Stop and release it; again does nothing. A sound server that hangs is given two seconds."""
        self._stop.set()
        self.state = "gone"
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_CLOSE_S)
            if thread.is_alive():
                leave_open()

    # ---- the reading thread

    def _drain(self, take: _Take) -> list[AudioEvent]:
        capture, rate_hz = take.capture, take.capture.rate_hz
        events: list[AudioEvent] = []
        if self._steady is None:
            self._steady = Steady(rate_hz)
        elif not take.at:
            events += self._steady.cut(rate_hz)
            self.drift_ppm = None
        written = capture.written
        if written < rate_hz * SETTLE_S and not take.over:
            return events
        start = max(take.at, written - KEPT_S * rate_hz)
        if start < written:
            samples = np.empty(written - start, np.float32)
            missing = len(samples) - capture.read(start, samples)  # overwritten meanwhile: the first ones
            events += self._steady.push(samples[missing:], start + missing, capture.time_ns)
            self.counts.samples += written - take.at
            take.at = written
        if (take.over and written) or written - take.looked_at > rate_hz // 4:
            self._look(take)
        self.counts.overruns = self._losses + self._steady.gaps + self._steady.damaged
        return events

    def _look(self, take: _Take) -> None:
        stats, fit = take.capture.stats(), take.capture.clock()
        take.looked_at = take.at
        losses = stats.overruns + stats.input_overflows
        self._losses += losses - take.losses
        take.losses = losses
        self.lateness_p99_ms = stats.lateness_p99_ns / 1e6
        if fit.drift_ppm is not None:
            self.drift_ppm = fit.drift_ppm

    # ---- the watching thread

    def _open(self, device: Device) -> None:
        """Raises SourceError."""
        rate_hz, channels = self._uri.rate_hz or device.rate_hz, self._uri.channels or device.channels
        capture = AudioCapture("float32", channels, rate_hz, _ROOM_S * rate_hz)
        opened_ns = self._clock.now_ns()
        recording = Recording(device, rate_hz, channels, capture, pinned=self._uri.name is not None)
        self._now = _Take(recording, capture, opened_ns, device.source)
        self._takes.append(self._now)
        granted = {"device": device.name, "rate_hz": rate_hz, "channels": channels}
        if self.granted is not None and granted != self.granted:
            self._tell("microphone_changed", f"was {_mode(self.granted)}, is {_mode(granted)}")
        self.granted = granted

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                if self._now is None:
                    if not self._stop.wait(self._backoff.next_s()):
                        self._reopen()
                else:
                    self._look_after(self._now)
            except Exception as error:  # a sound server's tool, PortAudio, libsage: whatever they run into, it is tried again
                self._fail(error)
        if self._now is not None:
            with contextlib.suppress(Exception):  # nobody is left to try again
                self._shut(self._now)

    def _look_after(self, take: _Take) -> None:
        before_ns, self._looked_ns = self._looked_ns, self._clock.now_ns()
        now_ns, last_ns = self._looked_ns, take.capture.stats().last_call_ns
        late_ns = now_ns - before_ns - round(_LOOK_S * NS_PER_S)  # this process, or the machine, stood still: the device has had no chance
        self._silent_ns = max(last_ns, take.opened_ns, self._silent_ns + max(0, late_ns))
        silent_s = (now_ns - self._silent_ns) / NS_PER_S
        if not take.recording.active:
            self._lose(take, "has ended: the device or the sound server is gone")
        elif silent_s > 2 * STALL_S:
            self._lose(take, f"gave no sound for {silent_s:.1f} s")
        elif silent_s > STALL_S:
            if self.state in ("opening", "live"):
                self._become("stalled", "microphone_stalled", f"gave no sound for {silent_s:.1f} s; opening it again if it stays silent")
        elif last_ns:
            self._backoff.reset()
            if self.state != "live":
                self._become("live", "microphone_open", f"{_mode(self.granted)}; asked for {_asked(self.asked)}")
            if take.source is not None and now_ns - self._source_ns > _SOURCE_S * NS_PER_S:
                self._source_ns = now_ns
                self._check_source(take)

    def _reopen(self) -> None:
        try:
            refresh()
            self._open(find_microphone(self._uri.name))
        except (SourceError, OSError):  # not yet
            return
        self.counts.reopened += 1

    def _fail(self, error: Exception) -> None:
        failed = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
        if self.state != "gone" or failed != self._failed:
            self._become("gone", "microphone_gone", f"{failed}; opening it again")
        self._failed = failed
        if self._now is not None:
            with contextlib.suppress(Exception):  # it is let go of all the same
                self._shut(self._now)

    def _lose(self, take: _Take, why: str) -> None:
        if self.state != "gone":
            self._become("gone", "microphone_gone", f"{why}; opening it again")
        self._shut(take)

    def _shut(self, take: _Take) -> None:
        try:
            take.recording.close()
        finally:
            take.over, self._now = True, None

    def _check_source(self, take: _Take) -> None:
        """A sound server moves a recording to another source when its own goes."""
        number = recorded_number()
        if number is None or number == take.number:
            return
        take.number = number
        source = next((each.name for each in pulse_sources() if each.number == number), take.source)
        if source == take.source:
            return
        moved = f"was moved by the sound server from {take.source!r} to {source!r}"
        take.source = source
        if self._uri.name is None:
            self._tell("microphone_changed", moved)
        else:
            self._lose(take, f"{moved}, which was not asked for")

    def _become(self, state: str, what: str, detail: str) -> None:
        self.state = state
        self._tell(what, detail)

    def _tell(self, what: str, detail: str) -> None:
        self._notices.append(Notice(self._clock.now_ns(), what, f"{self.uri}: {detail}"))


def _mode(granted: dict[str, Any] | None) -> str:
    return "closed" if granted is None else f"{granted['device']!r} at {granted['rate_hz']} Hz, {granted['channels']} channel(s)"


def _asked(asked: dict[str, Any]) -> str:
    said = [f"{asked[key]} {unit}" for key, unit in (("rate_hz", "Hz"), ("channels", "channel(s)")) if asked[key] is not None]
    return ", ".join(said) or "its own rate and channels"
