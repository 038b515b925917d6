"""Which graph costs the CCC: each one alone in the precision that failed, the two others in FP32, under the protocol that failed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

from sage_edge.calibration.check import Evaluation
from sage_edge.calibration.evaluation import Loss, Variant, live, overlap, score
from sage_edge.calibration.offline import Offline
from sage_edge.runtime.bundle import GRAPHS, MANIFEST, Bundle, graph_path

from .quantize_cpu import PRECISION


def blame(bundle: Bundle, found: Evaluation, loss: Loss, progress: bool = True) -> str:
    """One text that says what each graph costs by itself where `loss` was found."""
    protocol, dimension = loss.protocol, loss.dimension
    whole = found.ccc[protocol]["fp32"][dimension]
    if protocol == "overlap":
        alone = {name: dataclasses.replace(Variant(), **{name: loss.precision}) for name in GRAPHS}
        with Offline.of(bundle) as offline:
            predictions = overlap(offline, found.trials, alone, bundle.manifest.window, progress)
    else:
        predictions = {}
        for name in GRAPHS:
            with tempfile.TemporaryDirectory(prefix="sage-blame-") as folder:
                predictions[name] = live(_only(bundle, name, Path(folder)), found.trials, PRECISION, progress=progress)
    losses = {name: whole - score(rows, found.trials)[dimension] for name, rows in predictions.items()}
    worst = max(losses, key=lambda name: losses[name])
    each = ", ".join(f"{name} {loss:+.4f}" for name, loss in losses.items())
    return (
        f"graph {worst} does it (alone in {loss.precision}: {each}); "
        f"try another --method, more --clips, or leave groups of {worst} in float with --float"
    )


def _only(bundle: Bundle, quantized: str, folder: Path) -> Bundle:
    """A bundle in `folder` whose INT8 graphs are the FP32 ones, except that of `quantized`."""
    files = {}
    for name in GRAPHS:
        source = graph_path(name, PRECISION if name == quantized else "fp32")
        target = graph_path(name, PRECISION)
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(bundle.path / source, folder / target)
        except OSError:  # another file system
            shutil.copyfile(bundle.path / source, folder / target)
        files[target] = bundle.manifest.files[source]
    (folder / MANIFEST).write_text(dataclasses.replace(bundle.manifest, files=files).to_json(), encoding="utf-8")
    return Bundle.open(folder)
