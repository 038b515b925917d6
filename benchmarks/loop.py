"""What the live loop costs beside its engines: CPU time of the whole process per second of stream, 30 frames of 640 x 480 and sound of 16 kHz.

The loop as `run` has it, in real time: capture thread, hop thread, status, smoothing, a JSONL sink behind its queue. Left out: the camera's own
work (it sleeps until the next frame and decodes its JPEG, as a USB camera's reader does; neither is counted), the audio server (who feeds libsage's
capture is not counted), the face finder (a fixed box). Variants: `loop`, where engines do nothing, so that every microsecond is the loop's, with
features as wide as those of `base`; `loop_tiny`, with those of `tiny`; `loop_48_khz`, as `loop` with a microphone of 48 kHz, whose sound is
resampled; `beside_engines`, where engines run and the CPU time of their calls is taken off, so that the loop finds its caches as they leave them,
39 MB of weights for each frame; `beside_engines_tiny`, the same with features as wide as those of `tiny`, and 10 MB;
`awake`, the same turns on a simulated clock, one after the other, where no cache gets cold and no core falls asleep between two frames: what the
code costs, without what waking up costs on this machine; and `nothing`, the same camera in a thread that rings a bell at each frame for another
that does nothing with it: what waking up alone costs. `loop_over_budget` is how many times less than one percent of a core `loop` is, and so on.
`pace_ms` is what a million additions take in Python, told by a thousand before each sixth frame (`awake`: once a second), which are not counted:
a core that somebody else's machine shares is slower, and everything on it, from one second to the next. `quiet` is of the seconds whose pace is
within `QUIET` of the best second of all (of its own, where it is `awake`), `quiet_n` of them: where there are none, that variant was never alone
on its core.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE_HZ, WIDTH, HEIGHT, FRAMES = 30, 640, 480, 8
MIC_HZ, FAST_MIC_HZ = 16_000, 48_000
BUDGET_MS = 10.0
"""One percent of a core, per second."""
WARM_S = 3
QUIET = 1.15
ADDITIONS, PACE_FRAMES = 1000, 6
DIMS, TINY_DIMS = (2048, 768), (512, 128)
"""Features of `base`, and of `tiny`."""


class _Apart:
    """CPU time that is not the loop's: of calls in one thread, also of the one that is under way while another thread asks. As little as can be is
    done before the clock is first read and after it was last read, for that counts as the loop's."""

    def __init__(self) -> None:
        self._state = 0, 0  # what is over, and the thread's clock when the call under way began; one assignment, for who reads meanwhile
        self._clock: int | None = None

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, counted; for one thread."""
        now_ns, total_ns = time.thread_time_ns, 0

        def timed(*arguments: Any) -> Any:
            nonlocal total_ns
            begun_ns = now_ns()
            if self._clock is None:
                self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._state = total_ns, begun_ns
            result = call(*arguments)
            total_ns += now_ns() - begun_ns
            self._state = total_ns, 0
            return result

        return timed

    def ns(self) -> int:
        total_ns, begun_ns = self._state
        return total_ns + (time.clock_gettime_ns(self._clock) - begun_ns if begun_ns and self._clock is not None else 0)


def _cpu_ns() -> int:
    """CPU time of all of this process's threads that run now, each up to now: the process's own clock leaves out what others are about."""
    return sum(time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident)) for thread in threading.enumerate() if thread.ident)


class _Pace:
    """How fast this core is: some additions now and then, and what they took."""

    def __init__(self) -> None:
        self.told = 0, 0
        """Nanoseconds, and additions; one assignment, for who reads meanwhile."""

    def tell(self) -> None:
        start_ns, total = time.thread_time_ns(), 0
        for number in range(ADDITIONS):
            total += number
        took_ns, additions = self.told
        self.told = took_ns + time.thread_time_ns() - start_ns, additions + ADDITIONS


class _Readings:
    """Of a clock of CPU time, and of the pace, once a second."""

    def __init__(self, pace: _Pace) -> None:
        self._pace = pace
        self._all: list[tuple[float, int, tuple[int, int]]] = []

    def add(self, at_s: float, cpu_ns: int) -> None:
        self._all.append((at_s, cpu_ns, self._pace.told))

    def per_second(self) -> list[tuple[float, float]]:
        """CPU ms per second, and the pace in it: ms for a million additions."""
        found = []
        for (at_s, cpu_ns, (took_ns, additions)), (to_s, to_cpu_ns, (to_took_ns, to_additions)) in itertools.pairwise(self._all[WARM_S:]):
            if to_additions > additions:
                found.append(((to_cpu_ns - cpu_ns) / 1e6 / (to_s - at_s), (to_took_ns - took_ns) / (to_additions - additions)))
        return found


@dataclass
class _Box:
    """A face of 200 pixels in the middle; costs nothing."""

    box: tuple[float, float, float, float] = (220.3, 140.7, 200.0, 200.0)
    score: float = 0.9
    track: int = 1

    def find(self, pixels: Any, format: str, t_ns: int) -> _Box:
        return self


class _Frames:
    """A reader that decodes frames of MJPEG, RATE_HZ a second; more of them than from one look at whether they freeze to the next."""

    def __init__(self, clock: Any, frames: Any) -> None:
        import cv2

        from sage_edge.runtime.sources import FrameEvent

        cv2.setNumThreads(1)
        self._decode: Callable[[Any], Any] = lambda jpeg: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        self._event = FrameEvent
        self.granted = {"width": WIDTH, "height": HEIGHT, "rate_hz": float(RATE_HZ), "fourcc": None}
        self.damaged = self.skipped = 0
        self._clock, self._count, self._start_ns = clock, 0, clock.now_ns()
        self._jpegs = [cv2.imencode(".jpg", frame)[1] for frame in frames]
        self.pace = _Pace()
        self.own = _Apart()
        """A camera's own work: the sleep until a frame is there, and its decoding; and the pace."""
        self._next = self.own.timed(self._wait_and_decode)

    def read(self) -> Any:
        t_ns, pixels = self._next()
        return self._event(t_ns, pixels, "bgr")

    def _wait_and_decode(self) -> tuple[int, Any]:
        self._count += 1
        self._clock.sleep((self._start_ns + self._count * 1_000_000_000 // RATE_HZ - self._clock.now_ns()) / 1e9)
        if self._count % PACE_FRAMES == 0:
            self.pace.tell()  # seldom, and before the decoding: what is done with a frame does not find Python warm for it
        return self._clock.now_ns(), self._decode(self._jpegs[self._count % FRAMES])

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class _Microphone:
    """libsage's capture, fed with the chunks that are due, then read as the live microphone reads it."""

    uri, state = "fed", "live"
    granted: dict[str, Any] | None = None
    drift_ppm: float | None = 0.0

    def __init__(self, clock: Any, rate_hz: int = MIC_HZ) -> None:
        from sage_edge.runtime.native import AudioCapture
        from sage_edge.runtime.sources import MicrophoneCounts
        from sage_edge.runtime.sources.steady import Steady

        self.asked: dict[str, Any] = {"rate_hz": None, "channels": None}
        self.counts = MicrophoneCounts()
        self._clock, self._capture, self._steady = clock, AudioCapture("float32", 1, rate_hz, 10 * rate_hz), Steady(rate_hz)
        self._chunk = (0.1 * np.random.default_rng(0).standard_normal(rate_hz // 50)).astype(np.float32)
        self._start_ns, self._chunks, self._at = clock.now_ns(), 0, 0
        self.fed_ns = 0

    def read(self) -> list[Any]:
        now_ns, before_ns = self._clock.now_ns(), time.thread_time_ns()
        while (due_ns := self._start_ns + (self._chunks + 1) * 20_000_000) <= now_ns:
            self._capture.feed(self._chunk, due_ns)
            self._chunks += 1
        self.fed_ns += time.thread_time_ns() - before_ns
        written = self._capture.written
        if written == self._at:
            return []
        samples = np.empty(written - self._at, np.float32)
        self._capture.read(self._at, samples)
        events = self._steady.push(samples, self._at, self._capture.time_ns)
        self._at = written
        return events

    def start(self) -> None: ...

    def notices(self) -> list[Any]:
        return []

    def close(self) -> None: ...


class _Meter:
    """A sink that reads the CPU clock at each status, once a second."""

    spec = "meter:"

    def __init__(self, engines_ns: Callable[[], int], pace: _Pace) -> None:
        self._engines_ns = engines_ns
        self.readings = _Readings(pace)

    def start(self, hello: Any) -> None: ...

    def write(self, estimate: Any) -> None: ...

    def notice(self, notice: Any) -> None: ...

    def status(self, status: Any) -> None:
        self.readings.add(time.monotonic(), _cpu_ns() - self._engines_ns())

    def close(self) -> None: ...


class _Timed:
    """The calls of a session's engines: left out, or timed by the CPU clock of the thread that makes them."""

    def __init__(self, session: Any, idle: bool) -> None:
        graphs = (session._graphs.visual, session._graphs.audio, session._graphs.fusion)
        self._all = [_Apart() for _ in graphs]
        for graph, apart in zip(graphs, self._all, strict=True):
            graph.run = (lambda *_: None) if idle else apart.timed(graph.run)

    def ns(self) -> int:
        return sum(apart.ns() for apart in self._all)


def _measure(path: Path, frames: Any, seconds: float, idle: bool, mic_hz: int = MIC_HZ) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.clock import MonotonicClock
    from sage_edge.runtime.live_devices import run_live_devices
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.sinks import open_sink
    from sage_edge.runtime.sinks.queued import Queued
    from sage_edge.runtime.smooth_tracks import SmoothTracks
    from sage_edge.runtime.smoothing import Smoothing
    from sage_edge.runtime.sources.camera import LiveCamera
    from sage_edge.runtime.sources.uri import CameraUri
    from sage_edge.runtime.thermal import Thermometer

    clock = MonotonicClock()
    reader = _Frames(clock, frames)
    camera = LiveCamera(CameraUri("memory", "v4l2", "memory"), clock, lambda: reader)
    camera.start()
    with contextlib.closing(camera), Session(Bundle.open(path), precision="fp32", threads=1, faces=_Box(), hop_thread=True) as session:
        timed = _Timed(session, idle)
        microphone = _Microphone(clock, mic_hz)
        meter = _Meter(lambda: timed.ns() + microphone.fed_ns + reader.own.ns(), reader.pace)
        summary = run_live_devices(
            camera,
            microphone,
            session,
            [Queued(open_sink(f"jsonl:{os.devnull}")), meter],
            clock=clock,
            seconds=seconds,
            smooth=SmoothTracks(Smoothing.parse("one-euro")),
            thermometer=Thermometer(),
        )
    facts = {
        "frames": summary.frames,
        "estimates": summary.estimates,
        "late_ms_p50": round(summary.late.p50, 1),
        "late_ms_p99": round(summary.late.p99, 1),
        "engines_ms_per_s": round(timed.ns() / 1e6 / summary.seconds, 2),
        "camera_ms_per_s": round(reader.own.ns() / 1e6 / summary.seconds, 2),
        "crop_ms_per_s": round(1000 * summary.stages["crop"].total_s / summary.seconds, 2),
    }
    return meter.readings.per_second()[:-1], facts  # the last status is not a second after the one before


def _measure_nothing(frames: Any, seconds: float) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    from sage_edge.runtime.clock import MonotonicClock
    from sage_edge.runtime.sources.bell import Bell

    reader, bell, woken = _Frames(MonotonicClock(), frames), Bell(), 0
    readings = _Readings(reader.pace)
    end_s = time.monotonic() + seconds

    def capture() -> None:
        while time.monotonic() < end_s:
            reader.read()
            bell.ring()

    thread = threading.Thread(target=capture, name="capture")
    thread.start()
    last_s = 0.0
    while thread.is_alive():
        woken += bell.wait(1.0)
        now_s = time.monotonic()
        if now_s - last_s >= 1:
            cpu_ns = _cpu_ns() - reader.own.ns()
            if thread.is_alive():  # still: its time is in that
                readings.add(now_s, cpu_ns)
            last_s = now_s
    thread.join()
    return readings.per_second(), {"frames": woken}


class _Simulated:
    """A simulated camera whose own work is timed, to be taken off."""

    def __init__(self, camera: Any) -> None:
        self._camera, self.total_ns = camera, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._camera, name)

    def wait(self, timeout_s: float, gather_until_ns: int = 0, most: int = 1) -> bool:
        before_ns = time.thread_time_ns()
        found = bool(self._camera.wait(timeout_s, gather_until_ns, most))
        self.total_ns += time.thread_time_ns() - before_ns
        return found


def _measure_awake(path: Path, frames: Any, seconds: float) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.clock import SimulatedClock
    from sage_edge.runtime.live_devices import run_live_devices
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.smooth_tracks import SmoothTracks
    from sage_edge.runtime.smoothing import Smoothing
    from sage_edge.runtime.sources.simulated import SimulatedCamera

    clock = SimulatedClock()
    camera = _Simulated(SimulatedCamera(clock, lambda t_ns: frames[round(t_ns * RATE_HZ / 1e9) % FRAMES], rate_hz=RATE_HZ))
    microphone = _Microphone(clock)
    camera.start()
    pace = _Pace()
    readings, apart, next_s = _Readings(pace), _Apart(), 1
    with Session(Bundle.open(path), precision="fp32", threads=1, faces=_Box()) as session:
        _Timed(session, idle=True)
        tell = apart.timed(pace.tell)

        def stop() -> bool:
            nonlocal next_s
            if clock.now_ns() >= next_s * 1_000_000_000:
                tell()
                readings.add(next_s, time.process_time_ns() - camera.total_ns - microphone.fed_ns - apart.ns())
                next_s += 1
            return False

        smooth = SmoothTracks(Smoothing.parse("one-euro"))
        summary = run_live_devices(camera, microphone, session, [], clock=clock, stop=stop, seconds=seconds, smooth=smooth)
    return readings.per_second(), {"frames": summary.frames, "estimates": summary.estimates}


@contextlib.contextmanager
def _bundle(dims: tuple[int, int] = DIMS) -> Iterator[Path]:
    """The tests' bundle of hand-made graphs, `dims` wide where the loop copies."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))
    tiny_bundle: Any = importlib.import_module("tiny_bundle")
    narrow = tiny_bundle.D_V, tiny_bundle.D_A
    tiny_bundle.D_V, tiny_bundle.D_A = dims
    try:
        with tempfile.TemporaryDirectory(prefix="sage-edge-loop-") as folder:
            yield tiny_bundle.make_bundle(Path(folder) / "wide.sage")
    finally:
        tiny_bundle.D_V, tiny_bundle.D_A = narrow


def _variant(seconds: list[tuple[float, float]], best_ms: float) -> dict[str, float]:
    spent = [ms for ms, _ in seconds]
    quiet = [ms for ms, pace_ms in seconds if pace_ms <= QUIET * best_ms]
    found = {"median": statistics.median(spent), "min": min(spent), "n": len(spent), "pace_ms": statistics.median(pace_ms for _, pace_ms in seconds)}
    return {
        name: round(value, 3) for name, value in (found | ({"quiet": statistics.median(quiet)} if quiet else {}) | {"quiet_n": len(quiet)}).items()
    }


def run(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """`variants`: ms of CPU per second of stream; a second in n / 20 of each variant is measured, in three turns (one when n < 60)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (FRAMES, HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    frames = coarse.repeat(16, 1).repeat(16, 2)
    names = ("loop", "loop_tiny", "loop_48_khz", "beside_engines", "beside_engines_tiny", "awake", "nothing")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    notes: dict[str, Any] = {}
    with _bundle() as path, _bundle(TINY_DIMS) as tiny_path:
        for _ in range(3 if n >= 60 else 1):
            for name, seconds in found.items():
                length_s = WARM_S + 2 + max(1.0, n / 60)
                if name == "awake":
                    more, notes[name] = _measure_awake(path, frames, length_s)
                elif name == "nothing":
                    more, notes[name] = _measure_nothing(frames, length_s)
                else:
                    which, mic_hz = tiny_path if name.endswith("_tiny") else path, FAST_MIC_HZ if name == "loop_48_khz" else MIC_HZ
                    more, notes[name] = _measure(which, frames, length_s, not name.startswith("beside"), mic_hz)
                seconds += more
    awake = found.pop("awake")  # where no core sleeps, those additions find it warm, too
    best_ms = min(pace_ms for seconds in found.values() for _, pace_ms in seconds)
    variants = {name: _variant(seconds, best_ms) for name, seconds in found.items()}
    variants["awake"] = _variant(awake, min(pace_ms for _, pace_ms in awake))
    return {
        "unit": "ms of CPU per second",
        "variants": variants,
        "ratios": {f"{name}_over_budget": round(BUDGET_MS / values["median"], 3) for name, values in variants.items()},
        "notes": {
            "budget": f"{BUDGET_MS:g} ms: one percent of a core",
            "stream": f"{RATE_HZ} frames/s of {WIDTH} x {HEIGHT} BGR, sound of {MIC_HZ} Hz, features {DIMS[0]} and {DIMS[1]} wide",
            "stream_tiny": f"features {TINY_DIMS[0]} and {TINY_DIMS[1]} wide",
            "best_pace_ms": round(best_ms, 1),
            "left_out": "engines, face finder, the camera's own work: a sleep until its next frame, which is a JPEG, and its decoding",
            **notes,
        },
    }
