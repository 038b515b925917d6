"""The loop: a source's frames and sound go into a session, its estimates go to sinks, until the source ends or somebody stops it.

    with VideoFile("talk.mp4") as video, Session(bundle, t0_ns=0) as session:
        summary = run_live(video, session, [open_sink("jsonl:-")])

One thread, nothing is dropped and nothing piles up: memory stays flat however long the source is.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .estimate import Drops
from .session import Session
from .sinks import Sink, SinkClosed
from .sources import FrameEvent, Source, SourceDrops
from .stages import StageSummary
from .ticks import NS_PER_S

STAGES = {"capture": "capture", "find": "face", "crop": "crop", "visual": "visual", "audio": "audio", "fusion": "fusion", "emit": "emit"}
"""A session's names of its stages -> how people see them, in the order of the loop."""


@dataclass(frozen=True)
class Summary:
    """What a run did. `ended` is "end" (of the source), "closed" (the reader of a sink has gone) or "interrupted"."""

    frames: int
    estimates: int
    media_s: float
    """How much of the source was taken, in its own time."""
    wall_s: float
    busy_s: float
    """Wall time without the waiting of `pace`."""
    stages: dict[str, StageSummary]
    drops: Drops
    source_drops: SourceDrops
    """What the source found damaged; `drops` counts it too."""
    ended: str

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of media: below 1 keeps up with a live source. 0 when nothing was taken."""
        return self.busy_s / self.media_s if self.media_s > 0 else 0.0

    def line(self) -> str:
        """The run in one line for people."""
        lost = self.source_drops
        times = ", ".join(f"{STAGES[name]} {s.p50:.2f}/{s.p95:.2f}" for name in STAGES if (s := self.stages.get(name)) is not None)
        end = {"end": "", "closed": "; the reader of the output has gone", "interrupted": "; interrupted"}[self.ended]
        return (
            f"{self.frames} frames, {self.estimates} estimates, {self.media_s:.1f} s of media in {self.wall_s:.1f} s; "
            f"real-time factor {self.real_time_factor:.3f}; drops: frames_stale {self.drops.frames_stale}, "
            f"audio_overruns {self.drops.audio_overruns}, sinks {self.drops.sinks}, of them "
            f"damaged frames {lost.frames}, damaged sound {lost.audio}; "
            f"p50/p95 ms: {times or 'none'}{end}"
        )


def hello(session: Session) -> dict[str, Any]:
    """The first line of a stream: what the session says of itself, how long its window takes to fill, and the version of sage-edge."""
    version = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("sage-edge")
    return {**session.hello(), "warm_up_ms": round(session.window * 1000 / session.rate_hz), "version": version}


def run_live(source: Source, session: Session, sinks: Sequence[Sink], *, pace: bool = False) -> Summary:
    """Run `source` to its end through `session` into `sinks`, which are closed; source and session stay the caller's.

    `pace` waits until each event's time has come, as if it were live. Ctrl-C ends the run; estimates that were not written by then are not
    written. Raises what source, session and sinks raise: SourceError, EngineError, SinkError.
    """
    loop = _Loop(source, session, sinks, pace)
    ended = "end"
    try:
        loop.run()
    except KeyboardInterrupt:
        ended = "interrupted"
    except SinkClosed:
        ended = "closed"
    finally:
        for sink in sinks:
            sink.close()
    return loop.summary(ended)


class _Loop:
    """One run's counts and clocks; all in ns of perf_counter."""

    def __init__(self, source: Source, session: Session, sinks: Sequence[Sink], pace: bool) -> None:
        self._source, self._session, self._sinks, self._pace = source, session, sinks, pace
        self._frames = self._estimates = self._media_ns = self._slept_ns = 0
        self._counted = SourceDrops()
        self._started_ns = time.perf_counter_ns()

    def run(self) -> None:
        session, capture = self._session, self._session.stages["capture"]
        alone = not self._source.has_sound
        first = hello(session)
        for sink in self._sinks:
            sink.start(first)
        events = iter(self._source)
        taken = 0  # time spent on getting events since the last frame
        self._started_ns = time.perf_counter_ns()
        while True:
            before = time.perf_counter_ns()
            event = next(events, None)
            taken += time.perf_counter_ns() - before
            self._count_damage()
            if event is None:
                break
            if self._pace:
                self._wait(event.t_ns)
            if isinstance(event, FrameEvent):
                capture.add(taken)
                taken = 0
                self._frames += 1
                self._media_ns = max(self._media_ns, event.t_ns)
                session.push_frame(event.pixels, event.t_ns, event.format, copy=False)
                if alone:
                    session.advance(event.t_ns)
            else:
                self._media_ns = max(self._media_ns, event.t_ns + len(event.samples) * NS_PER_S // session.sample_rate_hz)
                session.push_audio(event.samples, event.t_ns)
            self._emit()
        session.finish()
        self._emit()

    def _count_damage(self) -> None:
        """What the source has lost since the last call goes into the session's drops."""
        now, before = self._source.drops, self._counted
        self._session.count_drops(now.frames - before.frames, now.audio - before.audio)
        self._counted = SourceDrops(now.frames, now.audio)

    def _wait(self, t_ns: int) -> None:
        ahead_ns = self._started_ns + t_ns - time.perf_counter_ns()
        if ahead_ns > 0:
            self._slept_ns += ahead_ns
            time.sleep(ahead_ns / NS_PER_S)

    def _emit(self) -> None:
        for estimate in self._session.poll():
            before = time.perf_counter_ns()
            for sink in self._sinks:
                sink.write(estimate)
            self._session.stages.add("emit", time.perf_counter_ns() - before)
            self._estimates += 1

    def summary(self, ended: str) -> Summary:
        wall_ns = time.perf_counter_ns() - self._started_ns
        busy_s, wall_s = max(0, wall_ns - self._slept_ns) / NS_PER_S, wall_ns / NS_PER_S
        stages, drops = self._session.stages.summary(), self._session.drops
        return Summary(self._frames, self._estimates, self._media_ns / NS_PER_S, wall_s, busy_s, stages, drops, self._source.drops, ended)
