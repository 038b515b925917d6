"""How fast a bundle is on this device: the whole loop over a video, every stage timed, several precisions taking turns.

    profile("demo.sage", ["fp32", "int8"], seconds=30).to_dict()

Every precision gets the same events in blocks of one hop, in turns, so that none has the quieter minute. Its real-time factor is seconds of
work per second of media (below 1 keeps up with a live source), decoding and emitting included. The first seconds warm up and are not counted.
With a meter of the machine's power, watts and joules follow (`energy.py`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import energy
from .bundle import Bundle
from .energy import Drawn, Energy, Meter
from .engines import check_backend
from .errors import SourceError, UsageError
from .live import STAGES
from .machine import machine, peak_rss_mb, versions
from .ort import load as load_onnxruntime
from .ov import load as load_openvino
from .precision import AUTO, Choice, choose
from .progress import Progress
from .session import Session
from .sinks import open_sink
from .sources import AudioEvent, Event, FrameEvent
from .stages import StageSummary
from .ticks import NS_PER_S

WARM_UP_S = 3.0
SIZE = (640, 480)
NAMES = {**STAGES, "hop": "hop"}
"""A session's names of its stages -> those of a profile; "hop" is all that happens when a hop is decided: sound, audio, fusion."""


@dataclass(frozen=True)
class Timing:
    """One precision: milliseconds per stage, the seconds of media that were measured and those of work for one of them, and what it took to be ready
    (ms)."""

    latency_ms: dict[str, StageSummary]
    seconds: float
    real_time_factor: float
    load_ms: float
    estimates: int


@dataclass(frozen=True)
class Power:
    """What `source` draws: at rest, and with each precision at the speed of a live run; and what slowed the machine down meanwhile."""

    source: str
    idle: Drawn
    precisions: dict[str, Energy]
    slowed: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "source": self.source,
            "idle_watts": round(self.idle.watts, 3),
            "precisions": {name: each.to_dict() for name, each in self.precisions.items()},
            **self.slowed,
        }


@dataclass(frozen=True)
class Profile:
    """What `profile` measured, and on what. `cold_start_ms` is imports and verification (once), to which each `Timing.load_ms` adds."""

    bundle: str
    digest: str
    backend: str
    threads: int
    feed: str
    hop: int
    seconds: float
    warm_up_s: float
    import_ms: float
    verify_ms: float
    timings: dict[str, Timing]
    choices: list[Choice]
    """What "auto" chose, and from what."""
    notes: list[str]
    power: Power | None
    """None without a meter."""
    live: dict[str, Any] | None
    """Of live devices (`profile_live.py`), by precision: what was asked and granted, how late estimates came, what was lost."""
    peak_rss_mb: float
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "bundle": self.bundle,
            "digest": self.digest,
            "backend": self.backend,
            "threads": self.threads,
            "feed": self.feed,
            "hop": self.hop,
            "seconds": round(self.seconds, 3),
            "warm_up_s": self.warm_up_s,
            "precisions": {
                name: {
                    "latency_ms": {stage: summary.to_dict() for stage, summary in timing.latency_ms.items()},
                    "seconds": round(timing.seconds, 3),
                    "real_time_factor": round(timing.real_time_factor, 4),
                    "cold_start_ms": round(self.import_ms + self.verify_ms + timing.load_ms, 1),
                    "load_ms": round(timing.load_ms, 1),
                    "estimates": timing.estimates,
                }
                for name, timing in self.timings.items()
            },
            "auto": [choice.to_dict() for choice in self.choices],
            "notes": self.notes,
            "live": self.live,
            "power": None if self.power is None else self.power.to_dict(),
            "import_ms": round(self.import_ms, 1),
            "verify_ms": round(self.verify_ms, 1),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "machine": self.machine,
            "versions": self.versions,
        }


def profile(
    path: str | os.PathLike[str],
    precisions: Sequence[str] = ("int8",),
    backend: str = "onnxruntime",
    *,
    seconds: float = 30.0,
    video: str | os.PathLike[str] | None = None,
    size: tuple[int, int] = SIZE,
    hop: int | None = None,
    threads: int | None = None,
    progress: bool = True,
    meter: Meter | None = None,
) -> Profile:
    """Time the bundle at `path` over `seconds` of media after a warm-up of `WARM_UP_S`.

    The media is `video`, repeated as often as needed, or a clip of `size` (width, height) with a drawn face and a voice, which is written
    to a temporary folder first. With a `meter`, some ten seconds at the speed of a live run follow for every precision.
    Raises UsageError, BundleError, EngineError, SourceError.
    """
    if not seconds > 0 or seconds > 86_400:
        raise UsageError(f"seconds is {seconds}, must be above 0 and at most 86400")
    if min(size) < 64 or any(side % 2 for side in size):
        raise UsageError(f"size is {size[0]}x{size[1]}, must be even and at least 64x64")
    if backend != AUTO:
        check_backend(backend)
    began = time.perf_counter()
    import cv2  # noqa: F401

    with contextlib.suppress(ImportError):  # what is missing is said where it is used
        load_openvino() if backend == "openvino" else load_onnxruntime()
    imported = time.perf_counter()
    bundle = Bundle.open(path)
    verified = time.perf_counter()
    with contextlib.ExitStack() as stack:
        runs: dict[str, _Run] = {}
        choices = [choose(bundle, precision, backend, threads, progress) for precision in precisions]
        for choice in choices:
            name = choice.name if backend == AUTO else choice.precision
            if name not in runs:
                start = time.perf_counter()
                session = stack.enter_context(Session(bundle, precision=choice, hop=hop, t0_ns=0, threads=threads))
                runs[name] = _Run(session, 1e3 * (time.perf_counter() - start))
        if not runs:
            raise UsageError("no precision to profile; name fp32, int8 or auto")
        if video is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-edge-")))
            media, feed = folder / "clip.mp4", f"drawn face, {size[0]}x{size[1]} at 30 frames/s, 48 kHz sound"
            from .clip import write_clip

            write_clip(media, 10.0, size)
        else:
            media = Path(video)
            feed = str(media)
        at_rest = None if meter is None else energy.idle(meter)
        measured_s, last = _feed(runs, media, seconds, progress, meter)
        timings = {name: run.timing(measured_s) for name, run in runs.items()}
        power = None
        if meter is not None and at_rest is not None:
            used = energy.measure(meter, dict(runs), last.events, last.start_ns, last.length_ns, at_rest, progress)
            power = Power(meter.source, at_rest, used, meter.slowed())
        first = next(iter(runs.values())).session
        raced = [choice for choice in choices if choice.raced]
        said = [choice.note(bundle) for choice in choices] + [run.session.rung_note for run in runs.values()]
        notes = list(dict.fromkeys([choice.line() for choice in raced] + [note for note in said if note]))
        return Profile(
            bundle.path.name, bundle.manifest.digest, backend, first.threads, feed, first.hop, measured_s, WARM_UP_S,
            1e3 * (imported - began), 1e3 * (verified - imported), timings,
            raced, notes, power, None, peak_rss_mb(), machine(), versions(),
        )  # fmt: skip


class _Run:
    """One session, its work in ns, and the estimates it gave."""

    def __init__(self, session: Session, load_ms: float) -> None:
        self.session, self.load_ms = session, load_ms
        self.busy_ns = self.estimates = 0
        self._sink = open_sink(f"jsonl:{os.devnull}")
        self._sink.start(session.hello())

    def take(self, block: Sequence[tuple[Event, int]]) -> None:
        """Push a block of (event, ns that it took to get) and emit what comes out."""
        session, capture, emit = self.session, self.session.stages["capture"], self.session.stages["emit"]
        start, waited, pending = time.perf_counter_ns(), 0, 0
        for event, got_ns in block:
            waited += got_ns
            pending += got_ns
            if isinstance(event, FrameEvent):
                capture.add(pending)
                pending = 0
                session.push_frame(event.pixels, event.t_ns, event.format, copy=False)
            else:
                session.push_audio(event.samples, event.t_ns)
            for estimate in session.poll():
                before = time.perf_counter_ns()
                self._sink.write(estimate)
                emit.add(time.perf_counter_ns() - before)
                self.estimates += 1
        self.busy_ns += time.perf_counter_ns() - start + waited

    def reset(self) -> None:
        """Forget the warm-up."""
        self.session.stages.clear()
        self.busy_ns = self.estimates = 0

    def timing(self, media_s: float) -> Timing:
        """What was measured since the last reset."""
        summary = self.session.stages.summary()
        stages = {shown: summary[name] for name, shown in NAMES.items() if name in summary}
        return Timing(stages, media_s, self.busy_ns / 1e9 / media_s, self.load_ms, self.estimates)


@dataclass(frozen=True)
class _Block:
    """The events of one hop, `length_ns` from `start_ns` on."""

    events: list[Event]
    start_ns: int
    length_ns: int


def _feed(runs: dict[str, _Run], media: Path, seconds: float, progress: bool, meter: Meter | None) -> tuple[float, _Block]:
    """Give every run the same events in turns; returns the seconds of media after the warm-up, and the last hop of it."""
    session = next(iter(runs.values())).session
    block_ns = session.hop * NS_PER_S // session.rate_hz
    warm_ns, measure_ns = int(WARM_UP_S * NS_PER_S), int(seconds * NS_PER_S)
    block: list[tuple[Event, int]] = []
    last = _Block([], 0, block_ns)
    warm_at: int | None = None
    turns = itertools.cycle(range(len(runs)))
    order = list(runs.values())
    with Progress("profile", int(WARM_UP_S + seconds), "s of media", shown=progress) as bar:
        done_s, now, end_of_block = 0, 0, block_ns
        for event, got_ns in _timed(_repeated(media)):
            if event.t_ns >= end_of_block:
                first = next(turns)
                for run in order[first:] + order[:first]:
                    run.take(block)
                if meter is not None:
                    meter.look()
                if block:
                    last = _Block([each for each, _ in block], end_of_block - block_ns, block_ns)
                block, now = [], event.t_ns
                end_of_block += block_ns * ((now - end_of_block) // block_ns + 1)
                if warm_at is None and now >= warm_ns:
                    warm_at = now
                    for run in order:
                        run.reset()
                if now // NS_PER_S > done_s:
                    bar.step(now // NS_PER_S - done_s)
                    done_s = now // NS_PER_S
                if warm_at is not None and now - warm_at >= measure_ns:
                    return (now - warm_at) / NS_PER_S, last
            block.append((event, got_ns))
    raise SourceError(f"{media} gave no more frames after {now / NS_PER_S:.1f} s; give a video with some length")


def _timed(events: Iterator[Event]) -> Iterator[tuple[Event, int]]:
    while True:
        before = time.perf_counter_ns()
        event = next(events, None)
        if event is None:
            return
        yield event, time.perf_counter_ns() - before


def _repeated(media: Path) -> Iterator[Event]:
    """The events of a video over and over, one second apart from its last at most, stamps going on."""
    from .sources.video import VideoFile

    start_ns = 0
    while True:
        last_ns = -1
        with VideoFile(media) as video:
            for event in video:
                last_ns = max(last_ns, event.t_ns)
                t_ns = start_ns + event.t_ns
                if isinstance(event, FrameEvent):
                    yield FrameEvent(t_ns, event.pixels, event.format)
                else:
                    yield AudioEvent(t_ns, event.samples)
        start_ns += last_ns + NS_PER_S // 30
