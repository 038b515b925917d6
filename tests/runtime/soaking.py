"""A soak at simulated speed: hours of stream through the whole loop into real outputs, with faults at random, checked while it runs.

    report = soak(bundle, folder, seconds=3600, faults=200, seed=0)

The devices are simulated (`sources/simulated.py`), the outputs real: a file on a disk that fills up, a pipe that takes nothing for a while, as a
slow disk does, a WebSocket with a reader that sleeps, a broker that is restarted. A stop, as SIGTERM makes it, ends the loop and begins another one
in the same process, on the same clock. Nothing is kept that grows with the time: what is checked, is checked at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import math
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from broker import MOSQUITTO, Broker
from numpy.typing import NDArray

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.clock import SimulatedClock
from sage_edge.runtime.estimate import Drops, Estimate, Live
from sage_edge.runtime.live_devices import JUMP_NS, run_live_devices
from sage_edge.runtime.notice import Notice, Status
from sage_edge.runtime.session import Session
from sage_edge.runtime.sinks import open_sink
from sage_edge.runtime.sinks.queued import DEPTH, Queued
from sage_edge.runtime.smooth_tracks import SmoothTracks
from sage_edge.runtime.smoothing import Smoothing
from sage_edge.runtime.sources.simulated import CAMERA_FAULTS, MICROPHONE_FAULTS, Fault, SimulatedCamera, SimulatedMicrophone
from sage_edge.runtime.status import rss_mb

NS = 1_000_000_000
START = 10_000 * NS
SETTLE_S = 20.0
"""How long a fault may be felt after its end: back-off of up to ten seconds, a stall that is still to be seen."""
TOLD_S = 2.5
"""So long after a stretch without sound it has been counted, or told."""
OUTSIDE = ("clock jump", "stop", "disk full", "disk slow", "reader slow", "broker restart")
DEADLINE_S = 60.0
PICTURES = np.random.default_rng(0).integers(40, 255, (61, 48, 64, 3), np.uint8)
NOISE = 0.2 * np.random.default_rng(1).standard_normal(16_000)


@dataclass(frozen=True)
class Trouble:
    """One fault of the plan."""

    kind: str
    start_ns: int
    end_ns: int


def plan(seconds: float, faults: int, seed: int, kinds: tuple[str, ...]) -> list[Trouble]:
    """`faults` of `kinds`, each kind at least once, at random times."""
    rng = np.random.default_rng(seed)
    drawn = [*kinds, *rng.choice(kinds, max(0, faults - len(kinds)))][:faults]
    rng.shuffle(drawn)
    starts = np.sort(rng.uniform(20, seconds - 40, faults))
    lengths = rng.uniform(0.3, 12, faults)
    return [
        Trouble(kind, START + round(start * NS), START + round((start + (6 + 4 * length if kind == "clock jump" else length)) * NS))
        for kind, start, length in zip(drawn, starts.tolist(), lengths.tolist(), strict=True)
    ]


@dataclass
class Report:
    """What was found; `problems` is empty when all is well."""

    seconds: float = 0.0
    lives: int = 0
    estimates: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    rss_mb: list[float] = field(default_factory=list)
    """Once in half a minute of stream."""
    used_mb: list[float] = field(default_factory=list)
    """At the same times: what of it malloc has given out, without what it keeps for later; empty where that is not known."""
    problems: list[str] = field(default_factory=list)

    def growth_mb(self) -> float:
        """Memory at the end beyond that at half time: the first half is for pools and caches to fill."""
        return round(self.rss_mb[-1] - self.rss_mb[len(self.rss_mb) // 2], 1)

    @staticmethod
    def slope_mb_per_hour(mb: list[float]) -> tuple[float, float]:
        """Of memory in the second half, and its standard error."""
        y = np.array(mb[len(mb) // 2 :])
        x = np.arange(len(y)) / 120
        slope, offset = np.polyfit(x, y, 1)
        rest = y - slope * x - offset
        return float(slope), float(math.sqrt((rest @ rest) / max(1, len(y) - 2) / ((x - x.mean()) @ (x - x.mean()))))

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        slopes = {
            f"{name}_slope_mb_per_hour": [round(value, 3) for value in self.slope_mb_per_hour(mb)]
            for name, mb in (("rss", self.rss_mb), ("used", self.used_mb))
            if mb
        }
        return {
            **{"seconds": round(self.seconds, 1), "lives": self.lives, "estimates": self.estimates},
            **{"faults": dict(self.faults), "notices": dict(self.notices)},
            "rss_mb": {"first": self.rss_mb[0], "last": self.rss_mb[-1], "most": max(self.rss_mb), "growth": self.growth_mb()},
            **slopes,
            "problems": self.problems,
        }


class Box:
    """A face in every picture that is not black, where it is bright."""

    box, score, track = (8.0, 0.0, 48.0, 48.0), 1.0, 1

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> Box | None:
        return self if pixels[20, 20, 0] else None


class _Malloc(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    )


def used_mb() -> float | None:
    """What malloc has given out in all of its pools, MB; None without glibc 2.33."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return None
    mallinfo.restype = _Malloc
    found = mallinfo()
    return float(found.uordblks + found.hblkhd) / 1e6


def picture(t_ns: int) -> NDArray[np.uint8]:
    return PICTURES[t_ns // 16_000_000 % 61]


def sound(t_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(NOISE[(t_ns / 62_500).astype(np.int64) % len(NOISE)])


class Stamps:
    """Times one after the other, in memory that is there from the beginning: what is kept to check with must not look like growth."""

    def __init__(self, seconds: float) -> None:
        self._all, self._count = np.ones(round(30 * seconds) + 100, np.int64), 0

    def append(self, t_ns: int) -> None:
        self._all[self._count] = t_ns
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return int(self._all[: self._count][index])

    def __iter__(self) -> Iterator[int]:
        return map(int, self._all[: self._count])


class Ledger:
    """The sink that checks: ticks without hole or overlap, numbers in range; a face and sound in every line, but where the stream itself says why
    not: the state of the device, the age of the newest frame, a break that is counted, a notice. Counts of losses rise only where the plan has
    a reason."""

    spec = "ledger:"

    def __init__(self, report: Report, troubles: list[Trouble], stamps: Stamps, pause: Callable[[], None]) -> None:
        self.stamps = stamps
        self.status_: Status | None = None
        self._report, self._pause = report, pause
        self._short = [(t.start_ns, t.end_ns + NS // 2) for t in troubles if t.kind in ("camera black", "camera stalled")]  # nobody is told at once
        self._jumps = [(t.start_ns, t.end_ns + NS) for t in troubles if t.kind == "clock jump"]
        self._black = False
        self._causes = {
            lost: [(t.start_ns - NS, t.end_ns + round(SETTLE_S * NS)) for t in troubles if t.kind.partition(" ")[0] in (device, "clock")]
            for lost, device in (("frames_stale", "camera"), ("audio_overruns", "microphone"))
        }
        self._told = {"camera": 0, "microphone": 0}
        self._before: Estimate | None = None
        self._unheard: int | None = None
        self._next_ns: float | None = None
        self._begun_ns = 0
        self._jumped = False
        self._statuses = 0

    def start(self, hello: dict[str, Any]) -> None: ...

    def write(self, estimate: Estimate) -> None:
        report, problems = self._report, self._report.problems
        report.estimates += 1
        self.stamps.append(estimate.t_ns)
        first_ns = estimate.trail[0][0]
        if self._next_ns is None:
            self._begun_ns = first_ns
        elif self._jumped:
            self._begun_ns = first_ns
            if first_ns < self._next_ns - 1e6:
                problems.append(f"tick {first_ns} comes again after a jump")
        elif abs(first_ns - self._next_ns) > 1e6:
            problems.append(f"ticks from {self._next_ns:.0f} to {first_ns} are missing, and nothing says why")
        self._jumped = False
        self._next_ns = estimate.t_ns + NS / 30
        values = [estimate.valence, estimate.arousal, *(value for _, *pair in estimate.trail for value in pair)]
        if not all(-1 <= value <= 1 for value in values):
            problems.append(f"{estimate.t_ns}: {values}")
        self._check_losses(estimate)
        if estimate.t_ns - self._begun_ns > 2 * NS and len(estimate.trail) > 2:
            if estimate.face is None and not self._says_why_unseen(estimate):
                problems.append(f"no face at {(estimate.t_ns - START) / NS:.2f} s, and nothing says why: {estimate.live}")
            if estimate.audio.rms_dbfs < -100 and self._unheard is None and not self._says_why_unheard(estimate):
                self._unheard = estimate.t_ns
        if self._unheard is not None and estimate.t_ns - self._unheard > TOLD_S * NS:
            problems.append(f"no sound at {(self._unheard - START) / NS:.2f} s, and nothing says why: {estimate.live}")
            self._unheard = None
        self._before = estimate
        if len(self.stamps) % 16 == 0:
            self._pause()

    def _check_losses(self, estimate: Estimate) -> None:
        """What is lost has a cause; and it is what explains a stretch without sound."""
        before = Drops() if self._before is None else self._before.drops
        for lost, causes in self._causes.items():
            more = getattr(estimate.drops, lost) - getattr(before, lost)
            if more < 0 or (more and not _within(causes, estimate)):
                self._report.problems.append(f"{lost} rises by {more} at {(estimate.t_ns - START) / NS:.2f} s without a cause: {estimate.live}")
        if estimate.drops.audio_overruns > before.audio_overruns:
            self._unheard = None

    def _lives(self, estimate: Estimate, device: str) -> list[Live | None]:
        """Of this line and the one before, for a device may be back by the time that a line is written; None where a notice came since then."""
        lines = [line for line in (self._before, estimate) if line is not None]
        told = self._told[device] >= lines[0].t_ns
        return [None if told else line.live for line in lines]

    def _says_why_unseen(self, estimate: Estimate) -> bool:
        lives = self._lives(estimate, "camera")
        away = any(live is None or live.camera != "live" or live.frame_age_ms is None or live.frame_age_ms > 150 for live in lives)
        return away or self._black or _within(self._short + self._jumps, estimate)

    def _says_why_unheard(self, estimate: Estimate) -> bool:
        lives = self._lives(estimate, "microphone")
        return any(live is None or live.microphone != "live" for live in lives) or _within(self._jumps, estimate)

    def notice(self, notice: Notice) -> None:
        self._report.notices[notice.what] += 1
        self._jumped |= notice.what == "clock_jump"
        self._black = "black" in notice.detail or (self._black and notice.what not in ("camera_changed", "camera_open"))
        device = notice.what.partition("_")[0]
        if device in self._told:
            self._told[device] = notice.t_ns
        if device == "microphone":
            self._unheard = None

    def status(self, status: Status) -> None:
        self.status_ = status
        if self._statuses % 30 == 0:
            self._report.rss_mb.append(rss_mb() or 0.0)
            if (used := used_mb()) is not None:
                self._report.used_mb.append(used)
        self._statuses += 1

    def close(self) -> None: ...


def _within(spans: list[tuple[int, int]], estimate: Estimate) -> bool:
    return any(start < estimate.t_ns and estimate.trail[0][0] < end for start, end in spans)


class Reader:
    """Somebody at the WebSocket, who sleeps now and then; remembers the newest stamp and how many came."""

    def __init__(self, port: int) -> None:
        from websockets.sync.client import connect

        self.newest_ns, self.came = 0, 0
        self.awake = threading.Event()
        self.awake.set()
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(connect(f"ws://127.0.0.1:{port}", max_queue=4))
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for text in self._socket:
            line = json.loads(text)
            if "type" not in line:
                self.newest_ns = line["t_ns"]
                self.came += 1
            self.awake.wait()

    def close(self) -> None:
        self.awake.set()
        self._thread.join(DEADLINE_S)
        self._open.close()


class SlowDisk:
    """A pipe in the place of a file, whose other end takes nothing now and then; remembers the stamps of the estimates that came."""

    def __init__(self, path: Path, stamps: Stamps) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._ours = os.open(path, os.O_WRONLY)  # a pipe that nobody can write to has ended
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self._end, True)
        self.stamps = stamps
        self.awake = threading.Event()
        self.awake.set()
        self._thread = threading.Thread(target=self._read, name="slow disk", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with os.fdopen(self._end, encoding="utf-8", buffering=1) as stream:
            for text in stream:
                self.awake.wait()
                line = json.loads(text)
                if "type" not in line:
                    self.stamps.append(line["t_ns"])

    def close(self) -> None:
        """After the output was closed."""
        os.close(self._ours)
        self.awake.set()
        self._thread.join(DEADLINE_S)
        self.path.unlink()


class World:
    """The hour: one clock, one plan, one life of the loop after the other."""

    def __init__(self, bundle: Bundle, folder: Path, seconds: float, faults: int, seed: int) -> None:
        devices = [f"camera {kind}" for kind in CAMERA_FAULTS] + [f"microphone {kind}" for kind in MICROPHONE_FAULTS]
        outside = [kind for kind in OUTSIDE if MOSQUITTO is not None or kind != "broker restart"]
        self.troubles = plan(seconds, faults, seed, (*devices, *outside))
        self.report = Report()
        self.report.faults.update(trouble.kind for trouble in self.troubles)
        self._bundle, self._folder, self._seed = bundle, folder, seed
        self._clock, self._end_ns = SimulatedClock(START), START + round(seconds * NS)
        self._coming = [trouble for trouble in self.troubles if trouble.kind in OUTSIDE]
        self._held: dict[str, tuple[int, Callable[[], None]]] = {}
        self._broker = Broker(folder) if MOSQUITTO is not None else None

    def run(self) -> Report:
        if self._broker is not None:
            self._broker.start()
        try:
            while self._clock.now_ns() < self._end_ns:
                before = self._state()
                self._live()
                self._check_state(before)
        finally:
            if self._broker is not None:
                self._broker.stop()
        self.report.seconds = (self._clock.now_ns() - START) / NS
        return self.report

    def _state(self) -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def _check_state(self, before: tuple[int, int]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (now := self._state()) != before and self.report.lives > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        if now != before and self.report.lives > 1:  # the first life may load what stays
            names = sorted(thread.name for thread in threading.enumerate())
            self.report.problems.append(f"threads and open files {before} before, {now} after a life: {names}")

    def _live(self) -> None:
        """From a start to the next stop, or to the end."""
        clock, report = self._clock, self.report
        report.lives += 1
        ahead = [(t.kind, Fault(t.kind.partition(" ")[2], t.start_ns, t.end_ns)) for t in self.troubles if t.end_ns > clock.now_ns()]
        camera = SimulatedCamera(clock, picture, faults=[fault for kind, fault in ahead if kind.startswith("camera")])
        microphone = SimulatedMicrophone(
            clock, sound, drift_ppm=80, faults=[fault for kind, fault in ahead if kind.startswith("microphone")], seed=self._seed
        )
        path = self._folder / "lines.jsonl"
        served = open_sink("ws://127.0.0.1:0", clock.now_ns)
        whole_s = (self._end_ns - START) / NS  # as long for each life, so that they do not differ in memory
        disk = SlowDisk(self._folder / "pipe", Stamps(whole_s))
        specs = [open_sink(f"jsonl:{path}", clock.now_ns), open_sink(f"jsonl:{disk.path}", clock.now_ns), served]
        if self._broker is not None:
            specs.append(open_sink(f"mqtt://127.0.0.1:{self._broker.port}/soak", clock.now_ns))
        depths = [4 if sink is specs[1] else DEPTH for sink in specs]  # a short queue, so that a slow disk is too slow
        self._sinks = [Queued(sink, depth, clock.now_ns, first_retry_s=0.01, last_retry_s=0.05) for sink, depth in zip(specs, depths, strict=True)]
        self._served, self._reader, self._disk = served, None, disk
        self.ledger = Ledger(report, self.troubles, Stamps(whole_s), self._keep_up)
        camera.start()
        microphone.start()
        # every other life computes hops in a thread, as `run` does; simulated time then waits for it as well
        with Session(self._bundle, precision="fp32", threads=1, faces=Box(), hop_thread=report.lives % 2 == 1) as session:
            self._settle = session._hops.settle
            summary = run_live_devices(
                camera,
                microphone,
                session,
                [*self._sinks, self.ledger],
                clock=clock,
                stop=self._happens,
                smooth=SmoothTracks(Smoothing.parse("one-euro")),
            )
        self._release(None)
        if summary.estimates != len(self.ledger.stamps):
            report.problems.append(f"{summary.estimates} estimates, {len(self.ledger.stamps)} in the ledger")
        if self._reader is not None:
            self._reader.close()
        disk.close()
        with open(path) as stream:
            self._check_lines(self._sinks[0], (line["t_ns"] for line in map(json.loads, stream) if "type" not in line))
        self._check_lines(self._sinks[1], disk.stamps)
        camera.close()
        microphone.close()

    def _happens(self) -> bool:
        """Called at every turn of the loop: what the plan has for now. True ends the life."""
        self._settle()
        now_ns = self._clock.now_ns()
        self._release(now_ns)
        if self._reader is None and len(self.ledger.stamps) and self._served.port:  # type: ignore[attr-defined]
            self._reader = Reader(self._served.port)  # type: ignore[attr-defined]
        while self._coming and self._coming[0].start_ns <= now_ns:
            trouble = self._coming.pop(0)
            if trouble.kind == "stop":
                return True
            self._begin(trouble)
        return now_ns >= self._end_ns

    def _begin(self, trouble: Trouble) -> None:
        kind = trouble.kind
        if kind == "clock jump" and trouble.end_ns - self._clock.now_ns() <= JUMP_NS:
            self.report.faults[kind] -= 1  # another jump has led past it, or almost
        elif kind == "clock jump":
            self._clock.sleep_until(trouble.end_ns)
        elif kind in self._held:  # it holds already, and goes on
            self._held[kind] = max(self._held[kind][0], trouble.end_ns), self._held[kind][1]
        elif kind == "disk full":
            self._keep_up()
            resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(self._folder / "lines.jsonl") + 700, resource.RLIM_INFINITY))
            room = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            self._held[kind] = trouble.end_ns, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, room)
        elif kind == "disk slow":
            self._disk.awake.clear()
            self._held[kind] = trouble.end_ns, self._disk.awake.set
        elif kind == "reader slow" and self._reader is not None:
            self._reader.awake.clear()
            self._held[kind] = trouble.end_ns, self._reader.awake.set
        elif kind == "broker restart" and self._broker is not None:
            self._broker.stop()
            self._held[kind] = trouble.end_ns, self._start_broker

    def _start_broker(self) -> None:
        """Its disk is not the one that is full: a child has the limits of its parent."""
        assert self._broker is not None
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, limits[1]))
        try:
            self._broker.start()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def _release(self, now_ns: int | None) -> None:
        """End what is over by `now_ns`; everything when that is None."""
        over = [kind for kind, (end_ns, _) in self._held.items() if now_ns is None or end_ns <= now_ns]
        for kind in over:
            self._held.pop(kind)[1]()
        if over:
            self._keep_up()

    def _keep_up(self) -> None:
        """Simulated time waits for real outputs, but for those that are in trouble."""
        if self._held:
            return
        for sink in self._sinks:
            if not sink.flush(DEADLINE_S):
                self.report.problems.append(f"{sink.spec} does not recover: {sink.counts()}")
        reader, newest_ns = self._reader, self.ledger.stamps[-2] if len(self.ledger.stamps) > 1 else 0
        deadline = time.monotonic() + DEADLINE_S
        while reader is not None and reader.came and reader.newest_ns < newest_ns:
            if time.monotonic() > deadline:
                self.report.problems.append(f"the reader has {reader.newest_ns}, not yet {newest_ns}")
                break
            time.sleep(0.001)

    def _check_lines(self, queue: Queued, stamps: Iterable[int]) -> None:
        """What has come out of an output, whole lines all, is every estimate that its queue has not counted as dropped."""
        wanted = iter(self.ledger.stamps)
        missing, lines = 0, 0
        for found_ns in stamps:
            lines += 1
            for t_ns in wanted:
                if t_ns == found_ns:
                    break
                missing += 1
        missing += sum(1 for _ in wanted)
        if missing > queue.dropped or lines + missing != len(self.ledger.stamps):
            self.report.problems.append(f"{queue.spec}: {missing} of {len(self.ledger.stamps)} estimates are missing, {queue.dropped} counted")


def soak(bundle: Bundle, folder: Path, seconds: float = 3600.0, faults: int = 200, seed: int = 0) -> Report:
    """Run it; `folder` is for the files."""
    return World(bundle, folder, seconds, faults, seed).run()
