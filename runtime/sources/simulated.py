"""A camera and a microphone that do not exist, on a simulated clock, with the faults of real ones: for soaks, drift and every test of the loop.

    clock = SimulatedClock()
    camera = SimulatedCamera(clock, lambda t_ns: pixels, faults=[Fault("gone", 5 * NS, 9 * NS)])
    microphone = SimulatedMicrophone(clock, lambda t_ns: np.sin(t_ns / 1e6), drift_ppm=200)

What a device would do in a thread of its own happens when the loop waits or reads. Behind the devices stand the real parts: the detector and
the back-off of cameras, libsage's capture and clock, the resampler that takes drift out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clock import SimulatedClock
from ..native import AudioCapture
from ..notice import Notice
from ..ticks import NS_PER_S
from . import AudioEvent, CameraCounts, FrameEvent, MicrophoneCounts
from .backoff import Backoff
from .steady import Steady
from .waiting import Waiting
from .watch import Watch

CAMERA_FAULTS = ("gone", "stalled", "frozen", "black")
MICROPHONE_FAULTS = ("gone", "stalled", "nan", "clipped", "rate")
SILENT_NS = NS_PER_S
"""A microphone without a callback for this long has stalled."""
SLEPT_NS = 10 * NS_PER_S
"""A device that nobody asked for this long was asleep with the machine: what it would have given is gone."""
Picture = Callable[[int], NDArray[np.uint8]]
"""Time in ns -> pixels, BGR [H, W, 3], never the same array with other content."""
Sound = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Times in ns, [n] -> samples [n]."""


@dataclass(frozen=True)
class Fault:
    """`kind` holds from `start_ns` to `end_ns`. gone: unplugged, then plugged in again; stalled: open, but nothing comes; frozen: the same picture
    again and again; rate: the device comes back with another rate at the start, and with the first one at the end."""

    kind: str
    start_ns: int
    end_ns: int


class _Faults:
    """Which faults hold at a time; asked with times that ascend."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._coming = sorted(faults, key=lambda fault: -fault.start_ns)
        self._on: list[Fault] = []

    def at(self, t_ns: int) -> set[str]:
        while self._coming and self._coming[-1].start_ns <= t_ns:
            self._on.append(self._coming.pop())
        if self._on:
            self._on = [fault for fault in self._on if fault.end_ns > t_ns]
        return {fault.kind for fault in self._on}


class SimulatedCamera:
    """`rate_hz` frames a second of `picture`, as BGR. See `sources.Camera`; for one thread."""

    uri = "simulated:camera"
    ended = False

    def __init__(self, clock: SimulatedClock, picture: Picture, *, rate_hz: float = 30.0, faults: Sequence[Fault] = ()) -> None:
        self.asked: dict[str, Any] = {"width": None, "height": None, "rate_hz": rate_hz, "fourcc": None}
        self.granted: dict[str, Any] | None = None
        self.state = "opening"
        self.counts = CameraCounts()
        self._clock, self._picture, self._rate_hz = clock, picture, rate_hz
        self._period_ns = round(NS_PER_S / rate_hz)
        self._faults, self._watch, self._backoff = _Faults(faults), Watch(), Backoff()
        self._next_ns = self._retry_ns = clock.now_ns()
        self._waiting = Waiting(self.counts)
        self._last: NDArray[np.uint8] | None = None
        self._notices: list[Notice] = []
        self._told = False

    def start(self) -> None:
        self._next_ns = self._clock.now_ns()
        self._open(self._next_ns)

    def wait(self, timeout_s: float, gather_until_ns: int = 0, most: int = 1) -> bool:
        clock, waiting = self._clock, self._waiting
        end_ns = clock.now_ns() + round(timeout_s * NS_PER_S)
        self._run(clock.now_ns())
        waiting.gather_until_ns, waiting.most = gather_until_ns, most
        self._told = waiting.enough()
        while not self._told and self._next_ns <= end_ns:
            clock.sleep_until(self._next_ns)
            self._run(clock.now_ns())
        waiting.gather_until_ns = 0
        if not self._told:
            clock.sleep_until(end_ns)
        return bool(waiting.frames)

    def hush(self) -> None:
        """See `sources.Camera`; there is nothing to forget."""

    def nudge(self) -> None:
        """Nothing: no simulated time passes while something else is done."""

    def take(self) -> list[FrameEvent]:
        self._run(self._clock.now_ns())
        return self._waiting.take()

    def notices(self) -> list[Notice]:
        notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        self.state = "gone"

    def _run(self, now_ns: int) -> None:
        if now_ns - self._next_ns > SLEPT_NS:
            self._next_ns = now_ns
        while self._next_ns <= now_ns:
            self._step(self._next_ns)
            self._next_ns += self._period_ns

    def _step(self, t_ns: int) -> None:
        """One period of the device."""
        faults = self._faults.at(t_ns)
        if self.state == "gone":
            if t_ns >= self._retry_ns:
                if "gone" in faults:
                    self._later(t_ns)
                else:
                    self.counts.reopened += 1
                    self._open(t_ns)
            return
        if "gone" in faults:
            self._lose(t_ns, "camera_gone", "is gone")
            return
        if "stalled" not in faults:
            self._give(t_ns, faults)
        why = self._watch.overdue(t_ns)
        if why is not None:
            self._lose(t_ns, "camera_stalled", why)

    def _give(self, t_ns: int, faults: set[str]) -> None:
        if "frozen" in faults and self._last is not None:
            pixels = self._last.copy()
        else:
            pixels = self._picture(t_ns)
            if "black" in faults:
                pixels = np.zeros_like(pixels)
        new = self._watch.frame(t_ns, pixels, "bgr")
        self._last = pixels
        self.counts.frames += 1
        if not new and self.state == "opening":
            return  # the same picture as before it was opened again
        self.state = "live"
        self._told |= self._waiting.put(FrameEvent(t_ns, pixels, "bgr"))
        self._backoff.reset()
        self._notices += [Notice(t_ns, "camera_changed", f"{self.uri} {change}") for change in self._watch.changes()]

    def _open(self, t_ns: int) -> None:
        self.state = "opening"
        self.granted = {**self.asked}
        self._watch.opened(t_ns, self._rate_hz)
        self._notices.append(Notice(t_ns, "camera_open", f"{self.uri} is open at {self._rate_hz:g} frames/s"))

    def _lose(self, t_ns: int, what: str, why: str) -> None:
        self.state = "gone"
        self._notices.append(Notice(t_ns, what, f"{self.uri} {why}; opening it again"))
        self._later(t_ns)

    def _later(self, t_ns: int) -> None:
        self._retry_ns = t_ns + round(self._backoff.next_s() * NS_PER_S)


class SimulatedMicrophone:
    """`sound`, recorded by a device of `rate_hz` samples a second that is `drift_ppm` faster than it says, in chunks that arrive up to
    `late_ns` late. See `sources.Microphone`; for one thread."""

    uri = "simulated:microphone"

    def __init__(
        self,
        clock: SimulatedClock,
        sound: Sound,
        *,
        rate_hz: int = 16_000,
        drift_ppm: float = 0.0,
        late_ns: int = 10_000_000,
        chunk_s: float = 0.02,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        self.asked: dict[str, Any] = {"rate_hz": None, "channels": None}
        self.granted: dict[str, Any] | None = None
        self.state = "opening"
        self.counts = MicrophoneCounts()
        self.drift_ppm: float | None = None
        self._clock, self._sound, self._rates, self._drift = clock, sound, (rate_hz, 44_100 if rate_hz != 44_100 else 48_000), drift_ppm * 1e-6
        self._late_ns, self._chunk_s = late_ns, chunk_s
        self._faults, self._backoff, self._rng = _Faults(faults), Backoff(), np.random.default_rng(seed)
        self._steady = Steady(rate_hz)
        self._events: list[AudioEvent] = []
        self._notices: list[Notice] = []
        self._rate_hz = rate_hz
        self._capture = AudioCapture("float32", 1, rate_hz, 4 * rate_hz)
        self._fed = self._taken = 0
        self._next_ns = self._start_ns = self._heard_ns = clock.now_ns()

    def start(self) -> None:
        self._open(self._clock.now_ns(), self._rates[0])

    def read(self) -> list[AudioEvent]:
        now_ns = self._clock.now_ns()
        if now_ns - self._next_ns > SLEPT_NS:
            self._lose(now_ns, "microphone_stalled", "slept with the machine")
        while self._next_ns <= now_ns:
            self._step(self._next_ns)
        events, self._events = self._events, []
        return events

    def notices(self) -> list[Notice]:
        notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        self.state = "gone"

    def _step(self, t_ns: int) -> None:
        """What happens at `t_ns`: a chunk arrives, or it is tried to open the device again."""
        faults = self._faults.at(t_ns)
        wanted = self._rates["rate" in faults]
        if self.state == "gone":
            if "gone" in faults:
                self._next_ns = t_ns + round(self._backoff.next_s() * NS_PER_S)
            else:
                self.counts.reopened += 1
                self._open(t_ns, wanted)
        elif "gone" in faults:
            self._lose(t_ns, "microphone_gone", "is gone")
        elif wanted != self._rate_hz:
            self._lose(t_ns, "microphone_changed", f"has another rate, {wanted} Hz")
        elif "stalled" in faults:
            self._next_ns = t_ns + round(self._chunk_s * NS_PER_S)
            if t_ns - self._heard_ns > SILENT_NS:
                self._lose(t_ns, "microphone_stalled", "gave no sound for 1 s")
        else:
            self._record(t_ns, faults)

    def _record(self, t_ns: int, faults: set[str]) -> None:
        """The chunk of which the last sample is older than `t_ns` is here."""
        if t_ns - self._heard_ns > SILENT_NS // 2:  # it did not record while it was stalled
            self._start_ns += t_ns - self._heard_ns
        n = round(self._chunk_s * self._rate_hz)
        period_ns = NS_PER_S / (self._rate_hz * (1 + self._drift))
        samples = self._sound(np.asarray(self._start_ns + (self._fed + np.arange(n)) * period_ns, np.float64)).astype(np.float32)
        if "nan" in faults:
            samples[::7] = np.nan
        if "clipped" in faults:
            samples = np.clip(100 * samples, -1, 1)
        self._capture.feed(samples, t_ns)
        self._fed += n
        self._heard_ns, self.state = t_ns, "live"
        self.counts.samples += n
        self._take()
        arrives_ns = round(self._start_ns + (self._fed + n) * period_ns) + int(self._rng.integers(0, self._late_ns + 1))
        self._next_ns = max(t_ns + 1, arrives_ns)

    def _take(self) -> None:
        """As `LiveMicrophone` does: what is in the ring goes to this machine's grid."""
        n = self._fed - self._taken
        samples = np.empty(n, np.float32)
        self._capture.read(self._taken, samples)
        gaps, damaged = self._steady.gaps, self._steady.damaged
        self._events += self._steady.push(samples, self._taken, self._capture.time_ns)
        self.counts.overruns += self._steady.gaps - gaps + self._steady.damaged - damaged
        self._taken = self._fed
        self.drift_ppm = self._capture.clock().drift_ppm

    def _open(self, t_ns: int, rate_hz: int) -> None:
        self._events += self._steady.cut(rate_hz)
        self._rate_hz, self._fed, self._taken = rate_hz, 0, 0
        self._capture = AudioCapture("float32", 1, rate_hz, 4 * rate_hz)
        self._start_ns = self._heard_ns = t_ns
        self._next_ns = t_ns + round(self._chunk_s * NS_PER_S)
        self.state, self.granted = "opening", {"device": "simulated", "rate_hz": rate_hz, "channels": 1}
        self._notices.append(Notice(t_ns, "microphone_open", f"{self.uri} is open at {rate_hz} Hz"))
        self._backoff.reset()

    def _lose(self, t_ns: int, what: str, why: str) -> None:
        self.state = "gone"
        self._notices.append(Notice(t_ns, what, f"{self.uri} {why}; opening it again"))
        self._next_ns = t_ns + round(self._backoff.next_s() * NS_PER_S)
