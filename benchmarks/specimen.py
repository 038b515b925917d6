"""A model in every precision, with windows to feed it: what `engines` times and `precision` compares.

The weights are random, the ranges are real: found by this project's calibration on clips of a small synthetic corpus, which is made here too. What
was made lies in the system's temporary folder, under a name that holds a hash of the sources that made it, and is used again until they change.
Or: a trained checkpoint and the store it came from, which are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAPHS = ("visual", "audio", "fusion")
PRECISIONS = ("fp32", "int8-cpu", "int8-trt")
FRAMES = 15
"""Faces per run of the visual graph: those of one hop."""
CLIPS, WINDOWS = 6, 3
"""Windows to calibrate on, other people's windows to compare on."""
PEOPLE = {"train": 3, "val": 2, "seconds": 14.0}

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Specimen:
    """A folder with `onnx/GRAPH.PRECISION.onnx` and what to feed them, of windows that were not calibrated on."""

    folder: Path
    preset: Any
    facts: Mapping[str, Any]
    """What was made how: seconds of each step, clips, method."""

    def graph(self, graph: str, precision: str) -> Path:
        """The ONNX file."""
        return self.folder / "onnx" / f"{graph}.{precision}.onnx"

    def feeds(self, graph: str) -> list[Feed]:
        """Inputs of `graph`, one feed per window: FRAMES faces, one window of sound, or one window of FP32 features and masks."""
        with np.load(self.folder / f"{graph}.npz") as kept:
            return [{name: kept[name][i] for name in kept.files} for i in range(len(kept[kept.files[0]]))]


@contextlib.contextmanager
def specimen(preset: str, seed: int = 0, method: str = "percentile") -> Iterator[Specimen]:
    """`preset` with random weights; made in minutes for `base`, opened in no time when it lies there already."""
    from sage_edge.runtime.files import atomic_folder
    from sage_edge.training import presets

    folder = Path(tempfile.gettempdir()) / f"sage-edge-specimen-{preset}-{seed}-{method}-{_sources()[:12]}"
    if not folder.is_dir():
        with atomic_folder(folder) as work:
            _make_random(work, preset, seed, method)
    else:
        _say(f"using {folder}")
    yield Specimen(folder, presets.get(preset), json.loads((folder / "facts.json").read_text()))


@contextlib.contextmanager
def trained(checkpoint: Path, store: Path, method: str = "percentile") -> Iterator[Specimen]:
    """The model of `checkpoint`, calibrated on the training split of `store`, in a folder that goes away again."""
    from sage_edge.calibration import clips
    from sage_edge.training import checkpoint as checkpoints
    from sage_edge.training.data.store import Store

    with tempfile.TemporaryDirectory(prefix="sage-edge-specimen-") as folder:
        model, meta = checkpoints.load(checkpoint)
        _make(Path(folder), model, meta, Store.open(store), clips.COUNT, method)
        yield Specimen(Path(folder), model.preset, json.loads((Path(folder) / "facts.json").read_text()))


def _make_random(folder: Path, preset: str, seed: int, method: str) -> None:
    import torch

    from sage_edge.training import SAGE, presets
    from sage_edge.training.data.store import Store

    with tempfile.TemporaryDirectory(prefix="sage-edge-corpus-") as corpus:
        store = synthetic_store(Path(corpus), seed)
        torch.manual_seed(seed)
        _make(folder, SAGE(presets.get(preset)).eval(), {"trained_on": {"name": "nothing: random weights"}}, Store.open(store), CLIPS, method)


def synthetic_store(folder: Path, seed: int = 0) -> Path:
    """A prepared store of a few synthetic people below `folder`."""
    from sage_edge.training.data.store import prepare
    from sage_edge.training.data.synthetic import synthesise

    _say(f"a corpus of {PEOPLE['train']} + {PEOPLE['val']} synthetic people")
    synthesise(folder / "corpus", seed=seed, train=int(PEOPLE["train"]), val=int(PEOPLE["val"]), seconds=PEOPLE["seconds"], workers=1, progress=False)
    prepare(folder / "corpus", folder / "store", workers=1, progress=False)
    return folder / "store"


def _make(folder: Path, model: Any, meta: Mapping[str, Any], store: Any, count: int, method: str) -> None:
    """Export, calibrate, emit; then a few windows of the validation split as inputs."""
    import onnx

    from sage_edge.calibration.offline import Offline
    from sage_edge.compile.calibrated import EMITTERS, calibrate_graphs, export_graphs, face_info
    from sage_edge.compile.groups import FLOAT

    begin_s, seconds = time.perf_counter(), {}
    paths = export_graphs(model, meta, folder / "onnx", "{graph}.fp32.onnx", True)
    begin_s, seconds["export"] = time.perf_counter(), time.perf_counter() - begin_s
    chosen, ranges = calibrate_graphs(paths, model.preset, store, method, count, dict.fromkeys(EMITTERS, FLOAT), True)
    begin_s, seconds["calibrate"] = time.perf_counter(), time.perf_counter() - begin_s
    for precision, emitter in EMITTERS.items():
        for graph, path in paths.items():
            onnx.save(emitter.emit(path, ranges.graphs[graph]), folder / "onnx" / f"{graph}.{precision}.onnx")
    begin_s, seconds["emit"] = time.perf_counter(), time.perf_counter() - begin_s
    with Offline({(graph, "fp32"): path for graph, path in paths.items()}, face_info(model.preset)) as offline:
        _inputs(folder, store, model.preset, offline)
    facts = {"seconds": {name: round(value, 1) for name, value in seconds.items()}, "clips": len(chosen.clips), "method": method}
    (folder / "facts.json").write_text(json.dumps(facts))


def _inputs(folder: Path, store: Any, preset: Any, offline: Any) -> None:
    from sage_edge.training.data.windows import window_at

    trials = [trial for trial in store.trials("val") if trial.n_ticks >= preset.window] or list(store.trials("val"))
    found: dict[str, list[Feed]] = {graph: [] for graph in GRAPHS}
    for i in range(WINDOWS):
        trial = trials[i % len(trials)]
        # of one person the end, then windows a second earlier each
        window = window_at(trial, max(trial.n_ticks - 1 - i // len(trials) * preset.rate_hz, 0), preset.window)
        seen = np.flatnonzero(window.visual_mask)
        if not len(seen):
            raise SystemExit(f"{trial.name} shows no face in its window; nothing was measured")
        visual = np.zeros((preset.window, offline.visual_dim("fp32")), np.float32)
        visual[window.visual_mask] = offline.faces(window.faces[window.visual_mask], "fp32")
        audio = offline.sound(window.samples, "fp32")
        masks = {name: getattr(window, name)[None].astype(np.float32) for name in ("visual_mask", "audio_mask")}
        found["visual"].append({"faces": offline.pixels(window.faces[seen[np.linspace(0, len(seen) - 1, FRAMES).astype(int)]])})
        found["audio"].append({"samples": window.samples[None]})
        found["fusion"].append({"visual": visual[None], "audio": audio[None], **masks})
    for graph, feeds in found.items():
        arrays: dict[str, Any] = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
        np.savez(folder / f"{graph}.npz", **arrays)


def _sources() -> str:
    """Hash of the files that decide what a specimen is."""
    root = Path(__file__).parents[1]
    files = [Path(__file__), *(path for package in ("training", "calibration", "compile") for path in sorted((root / package).rglob("*.py")))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
