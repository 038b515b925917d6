"""The whole chain on a synthetic corpus: make it, train SAGE, compile to INT8, hold it against FP32, profile, run a video, report.

DIR is written whole or not at all: demo.sage, sample.mp4 (a validation video), report.html, summary.json, and what they came from (corpus,
store, checkpoint), so that every step can be repeated by its own verb. An older demo in DIR is replaced. About ten minutes on two cores.

example:
  sage-edge demo --out out/demo
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import plain

if TYPE_CHECKING:
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.estimate import Estimate
    from sage_edge.runtime.notice import Notice, Status
    from sage_edge.training.data.store import Store, Trial

    from .report import Stretch, Trace

NAMES = ("demo.sage", "sample.mp4", "report.html", "summary.json")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the corpus and of the training (default 0)")
    parser.add_argument("--json", action="store_true", help="print summary.json")


def run(args: argparse.Namespace) -> int:
    summary = demo(args.out, args.seed)
    if args.json:
        print(plain.dumps(summary))
        return 0 if summary["verified"]["ok"] else 1
    score, weights = summary["ccc"], summary["weights_bytes"]
    print("CCC on unseen people   valence  arousal     mean")
    for protocol in score:
        for precision, row in score[protocol].items():
            print(f"  {protocol:<8} {precision:<10} {row['valence']:>9.4f}{row['arousal']:>9.4f}{row['mean']:>9.4f}")
    print(f"INT8 weights: {weights['int8'] / weights['fp32']:.2f} of FP32; real-time factor {summary['real_time_factor']:.3f} (below 1 keeps up)")
    print(f"{sum(summary['seconds'].values()):.0f} s, {summary['peak_rss_mb']:.0f} MB at most")
    print(f"look at {args.out / 'report.html'}")
    for failure in summary["verified"]["failures"]:
        print(f"FAILED: {failure}")
    return 0 if summary["verified"]["ok"] else 1


def demo(
    out: Path, seed: int = 0, *, corpus: dict[str, Any] | None = None, training: dict[str, Any] | None = None, max_drop: float = 0.005
) -> dict[str, Any]:
    """Write `out` and return what `summary.json` holds. `corpus` goes to `synthesise`, `training` are settings as of `train --set`.

    Raises UsageError when `out` exists and is no demo, and what the steps raise: CompileError when INT8 loses more CCC than `max_drop`.
    """
    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.files import atomic_folder

    if out.exists() and not all((out / name).exists() for name in NAMES):
        raise UsageError(f"{out} exists and is no demo; choose another folder or remove it")
    with atomic_folder(out, replace=True) as work:
        return _chain(work, out, seed, corpus or {}, training or {}, max_drop)


def _chain(work: Path, out: Path, seed: int, corpus: dict[str, Any], training: dict[str, Any], max_drop: float) -> dict[str, Any]:
    import cv2
    import torch

    from sage_edge.calibration import verify
    from sage_edge.compile import compile_bundle
    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.machine import PeakMemory, machine, versions
    from sage_edge.runtime.profile import profile
    from sage_edge.training import presets, train
    from sage_edge.training.config import recipe, split_settings
    from sage_edge.training.data.store import Store, prepare
    from sage_edge.training.data.synthetic import synthesise

    from . import report

    cv2.setNumThreads(1)
    torch.set_num_threads(machine()["cores"])
    steps = _Steps()
    with PeakMemory() as memory:
        with steps.step("synth", "people, voices, videos and labels"):
            synthesise(work / "corpus", seed=seed, **corpus)
        with steps.step("prepare", "the corpus, indexed by time stamps"):
            prepare(work / "corpus", work / "store")
        store = Store.open(work / "store")
        with steps.step("train", "faces, then sound, then their fusion, in FP32"):
            preset, config = split_settings(presets.get("tiny"), recipe("tiny"), {"seed": str(seed), **training})
            train(store, preset, work / "checkpoint", config)
        with steps.step("compile", "to INT8, calibrated on training clips"):
            compile_bundle(work / "checkpoint", store, work / "demo.sage", max_drop=max_drop)
        bundle = Bundle.open(work / "demo.sage")
        with steps.step("verify", "golden windows, CCC of INT8 against FP32"):
            checked = verify(bundle, store, max_drop)
        with steps.step("profile", "latency, stage by stage"):
            profiled = profile(bundle.path).to_dict()
        with steps.step("run", "a validation video with sound through the live session"):
            trial = _sample(store, work / "corpus")
            shutil.copyfile(_media(work / "corpus", trial), work / "sample.mp4")
            trace = _trace(bundle, work / "sample.mp4", trial, _stretches(work / "corpus", trial))
    commands = [
        f"sage-edge run {out}/demo.sage --video {out}/sample.mp4",
        f"sage-edge verify {out}/demo.sage --data {out}/store",
        f"sage-edge profile {out}/demo.sage",
        f"sage-edge train {out}/store --preset tiny --out checkpoint --seed {seed}",
        f"sage-edge compile checkpoint --data {out}/store --out again.sage",
    ]
    manifest, timing = bundle.manifest, profiled["precisions"]["int8-cpu"]
    summary = {
        "model": {"name": manifest.model.name, "preset": manifest.model.preset, "trained_on": manifest.to_dict()["trained_on"]},
        "ccc": _short(checked.ccc),
        "ccc_without": checked.ccc_without,
        "ccc_interval": _short(checked.ccc_interval),
        "golden": {name: {"difference": max(g.differences.values()), "tolerance": g.tolerance} for name, g in checked.golden.items()},
        "verified": {"ok": checked.ok, "failures": checked.failures, "max_drop": max_drop, "videos": checked.videos, "frames": checked.frames},
        "latency_ms": timing["latency_ms"],
        "real_time_factor": timing["real_time_factor"],
        "threads": profiled["threads"],
        "weights_bytes": _short_precisions(manifest.weights_bytes),
        "seconds": steps.seconds,
        "peak_rss_mb": round(memory.peak_mb, 1),
        "machine": machine(),
        "versions": versions(),
        "seed": seed,
        "sample": trial.name,
        "commands": commands,
    }
    report.write(work / "report.html", summary, trace)
    (work / "summary.json").write_text(plain.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


class _Steps:
    """Says what is going on, keeps how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        print(f"== {name}: {text}", file=sys.stderr, flush=True)
        start_s = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start_s, 1)


def _short_precisions(values: dict[str, Any]) -> dict[str, Any]:
    """Precisions as people name them: "int8" for the one this backend runs."""
    return {"int8" if name == "int8-cpu" else name: value for name, value in values.items()}


def _short(by_protocol: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {protocol: _short_precisions(values) for protocol, values in by_protocol.items()}


def _stretches(corpus: Path, trial: Trial) -> list[Stretch]:
    from sage_edge.training.data.synthetic import read_corruption

    from .report import Stretch

    return [Stretch(c.kind, c.start_s, c.end_s) for c in read_corruption(corpus).get(trial.name, [])]


def _sample(store: Store, corpus: Path) -> Trial:
    """The validation video of one person in which most kinds of corruption occur."""
    alone = [trial for trial in store.trials("val") if trial.name == Path(trial.source).stem] or store.trials("val")
    return max(alone, key=lambda trial: (len({stretch.kind for stretch in _stretches(corpus, trial)}), trial.name))


def _media(corpus: Path, trial: Trial) -> Path:
    return next(corpus.glob(f"batch*/{trial.source}"))


class _Keep:
    """A sink that keeps the estimates of one run."""

    spec = "memory"

    def __init__(self) -> None:
        self.estimates: list[Estimate] = []

    def start(self, hello: dict[str, Any]) -> None:
        pass

    def write(self, estimate: Estimate) -> None:
        self.estimates.append(estimate)

    def notice(self, notice: Notice) -> None:
        pass

    def status(self, status: Status) -> None:
        pass

    def close(self) -> None:
        pass


def _trace(bundle: Bundle, video: Path, trial: Trial, stretches: list[Stretch]) -> Trace:
    """What `run` gives for `video` in both precisions, beside the truth."""
    import numpy as np

    from sage_edge.runtime.live import run_live
    from sage_edge.runtime.session import Session
    from sage_edge.runtime.sources.video import VideoFile

    from .report import Trace

    kept: dict[str, list[Estimate]] = {}
    for precision in ("fp32", "int8"):
        sink = _Keep()
        with VideoFile(str(video)) as source, Session(bundle, precision=precision, t0_ns=0) as session:
            run_live(source, session, [sink])
        kept[precision] = sink.estimates
    ticks = {precision: np.array([row for e in estimates for row in e.trail], np.float64) for precision, estimates in kept.items()}
    hops = kept["int8"]
    visual = np.array([e.reliability.visual for e in hops], np.float64)
    audio = np.array([e.reliability.audio for e in hops], np.float64)
    known = not np.isnan(visual).any()
    truth = np.where(trial.labels_valid[:, None], trial.labels, np.nan)
    return Trace(
        truth_t_s=trial.frame_t_ns / 1e9,
        truth=truth,
        estimate_t_s=ticks["int8"][:, 0] / 1e9,
        fp32=ticks["fp32"][:, 1:],
        int8=ticks["int8"][:, 1:],
        hop_t_s=np.array([e.t_ns for e in hops]) / 1e9,
        temporal=np.array([e.reliability.temporal for e in hops], np.float64),
        visual=visual if known else None,
        audio=audio if known else None,
        stretches=stretches,
    )
