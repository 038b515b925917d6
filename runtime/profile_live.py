"""How fast a bundle is on this device over a live camera and microphone, as `run` has them: every stage, how late estimates come, what is lost.

    profile_live("demo.sage", ["int8"], camera="camera:0", microphone="mic:default", seconds=30).to_dict()

Devices cannot be asked for the same second twice, so precisions follow each other, each with the devices opened anew. The first seconds are not
counted. The real-time factor is seconds of work outside of the camera's own thread and the microphone's per second that passed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

from . import energy
from .bundle import Bundle
from .clock import MonotonicClock
from .energy import Drawn, Energy, Meter
from .engines import check_backend
from .errors import SourceError, UsageError
from .estimate import Drops, Estimate
from .live_devices import DeviceSummary, run_live_devices
from .machine import machine, peak_rss_mb, versions
from .notice import Notice, Status
from .precision import AUTO, Choice, choose
from .profile import NAMES, WARM_UP_S, Power, Profile, Timing
from .progress import Progress
from .session import Session
from .sources import Camera, Microphone
from .sources.camera import open_camera
from .sources.microphone import open_microphone
from .sources.uri import parse_camera, parse_microphone
from .stages import Histogram, Stages, StageSummary
from .ticks import NS_PER_S

PARTS = ("find", "crop", "visual", "hop", "emit")
"""Stages that hold all of a loop's work: sound and fusion are in "hop", "capture" is how old a frame is when it is taken."""


def profile_live(
    path: str | os.PathLike[str],
    precisions: Sequence[str] = ("int8",),
    backend: str = "onnxruntime",
    *,
    camera: str = "none",
    microphone: str = "none",
    seconds: float = 30.0,
    hop: int | None = None,
    threads: int | None = None,
    progress: bool = True,
    meter: Meter | None = None,
) -> Profile:
    """Run the bundle at `path` over the devices for `seconds` after a warm-up of `WARM_UP_S`, once for each precision.

    Raises UsageError, BundleError, EngineError, SourceError; KeyboardInterrupt when it was interrupted.
    """
    if not 0 < seconds <= 86_400:
        raise UsageError(f"seconds is {seconds}, must be above 0 and at most 86400")
    uris = [uri.text for uri in (parse_camera(camera), parse_microphone(microphone)) if uri is not None]
    if not uris:
        raise UsageError("nothing to look at or to listen to; give a camera, a microphone, or neither option")
    if backend != AUTO:
        check_backend(backend)
    began = time.perf_counter()
    bundle = Bundle.open(path)
    verified = time.perf_counter()
    at_rest = None if meter is None else energy.idle(meter)
    choices = [choose(bundle, precision, backend, threads, progress) for precision in precisions]
    runs: dict[str, _Run] = {}
    for choice in choices:
        name = choice.name if backend == AUTO else choice.precision
        if name not in runs:
            runs[name] = _Run(bundle, choice, hop, threads, meter)
            with Progress(f"profile {name}", int(WARM_UP_S + seconds), "s", shown=progress) as bar:
                runs[name].run(camera, microphone, seconds, bar)
    if not runs:
        raise UsageError("no precision to profile; name fp32, int8 or auto")
    first = next(iter(runs.values()))
    said = [choice.line() for choice in choices if choice.raced] + [choice.note(bundle) for choice in choices] + [run.note for run in runs.values()]
    return Profile(
        bundle=bundle.path.name,
        digest=bundle.manifest.digest,
        backend=backend,
        threads=first.threads,
        feed=f"{' and '.join(uris)}, live",
        hop=first.hop,
        seconds=sum(run.measured_s for run in runs.values()) / len(runs),
        warm_up_s=WARM_UP_S,
        import_ms=0.0,
        verify_ms=1e3 * (verified - began),
        timings={name: run.timing() for name, run in runs.items()},
        choices=[choice for choice in choices if choice.raced],
        notes=list(dict.fromkeys(note for note in said if note)),
        power=None if meter is None or at_rest is None else _power(meter, at_rest, runs),
        live={name: run.live for name, run in runs.items()},
        peak_rss_mb=peak_rss_mb(),
        machine=machine(),
        versions=versions(),
    )


def _power(meter: Meter, at_rest: Drawn, runs: dict[str, _Run]) -> Power:
    used = {name: Energy.of([(run.drawn, run.estimates)], at_rest) for name, run in runs.items() if run.drawn is not None}
    return Power(meter.source, at_rest, used, meter.slowed())


class _Run:
    """One precision over the devices; it is its own sink, and counts what comes after the warm-up."""

    spec = "profile"

    def __init__(self, bundle: Bundle, choice: Choice, hop: int | None, threads: int | None, meter: Meter | None) -> None:
        self._bundle, self._choice, self._hop, self._threads, self._meter = bundle, choice, hop, threads, meter
        self.estimates = self.hop = self.threads = 0
        self.measured_s = self.load_ms = 0.0
        self.note: str | None = None
        self.drawn: Drawn | None = None
        self.live: dict[str, Any] = {}
        self._clock = MonotonicClock()
        self._late = Histogram()
        self._stages: dict[str, StageSummary] = {}
        self._before, self._drops = Stages(), Drops()
        self._warm_ns: int | None = None
        self._begin_ns = self._shown_s = 0

    def run(self, camera_uri: str, microphone_uri: str, seconds: float, bar: Progress) -> None:
        """Open everything, run, close everything."""
        self._bar = bar
        with contextlib.ExitStack() as stack:
            uri = parse_camera(camera_uri)
            camera = None if uri is None else open_camera(camera_uri, self._clock)
            microphone = None if parse_microphone(microphone_uri) is None else open_microphone(microphone_uri, self._clock)
            recorded = camera if uri is not None and uri.kind == "file" else None
            for device in (camera, microphone):  # what cannot be opened is refused before engines are loaded
                if device is not None:
                    stack.callback(device.close)
                    if device is not recorded:
                        device.start()
            start = time.perf_counter()
            session = stack.enter_context(Session(self._bundle, precision=self._choice, hop=self._hop, threads=self._threads, hop_thread=True))
            self.load_ms = 1e3 * (time.perf_counter() - start)
            self.hop, self.threads, self.note = session.hop, session.threads, session.rung_note
            if recorded is not None:  # it begins when it is started
                recorded.start()
            self._begin_ns = self._clock.now_ns()
            try:
                summary = run_live_devices(
                    camera, microphone, session, [self], clock=self._clock, stop=lambda: self._turn(session), seconds=WARM_UP_S + seconds
                )
            finally:
                if self._warm_ns is not None and self._meter is not None:
                    self.drawn = self._meter.end()
            if summary.ended == "interrupted":
                raise KeyboardInterrupt
            if self._warm_ns is None or not self.estimates:
                name = camera.uri if camera is not None else microphone_uri
                raise SourceError(f"{name} was over before anything could be counted; give a longer one, or a camera")
            self.measured_s = (self._clock.now_ns() - self._warm_ns) / NS_PER_S
            self._stages = session.stages.summary(self._before)
            self.live = self._said(camera, microphone, summary)

    def _turn(self, session: Session) -> bool:
        """Asked at every turn: counts from the end of the warm-up on, never stops anything."""
        now_ns = self._clock.now_ns()
        passed_s = (now_ns - self._begin_ns) / NS_PER_S
        if int(passed_s) > self._shown_s:
            self._bar.step(int(passed_s) - self._shown_s)
            self._shown_s = int(passed_s)
        if self._warm_ns is None and passed_s >= WARM_UP_S:
            self._before, self._drops, self._warm_ns = session.stages.copy(), session.drops, now_ns
            if self._meter is not None:
                self._meter.begin()
        if self._warm_ns is not None and self._meter is not None:
            self._meter.look()
        return False

    def _said(self, camera: Camera | None, microphone: Microphone | None, summary: DeviceSummary) -> dict[str, Any]:
        return {
            "camera": None if camera is None else {"uri": camera.uri, "asked": camera.asked, "granted": camera.granted},
            "microphone": None if microphone is None else {"uri": microphone.uri, "asked": microphone.asked, "granted": microphone.granted},
            "late_ms": self._late.summary().to_dict(),
            "frames_stale": summary.drops.frames_stale - self._drops.frames_stale,
            "audio_overruns": summary.drops.audio_overruns - self._drops.audio_overruns,
            "reopened": summary.reopened,
            "degraded": summary.degraded,
        }

    def timing(self) -> Timing:
        """What was measured after the warm-up."""
        found = self._stages
        stages = {shown: found[name] for name, shown in NAMES.items() if name in found}
        work_s = sum(found[name].total_s for name in PARTS if name in found)
        return Timing(stages, self.measured_s, work_s / self.measured_s, self.load_ms, self.estimates)

    # ---- what a sink has

    def start(self, hello: dict[str, Any]) -> None: ...

    def write(self, estimate: Estimate) -> None:
        """Count it, once it is warm."""
        if self._warm_ns is not None and estimate.live is not None:
            self.estimates += 1
            self._late.add(round(estimate.live.late_ms * 1e6))

    def notice(self, notice: Notice) -> None: ...

    def status(self, status: Status) -> None: ...

    def close(self) -> None: ...
