"""Ranges of a checkpoint, without a bundle: export into a folder that goes away again, then calibrate."""

from __future__ import annotations

import dataclasses
import io
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sage_edge.calibration import clips
from sage_edge.calibration.equalise import apply
from sage_edge.calibration.feeds import calibrate, check, equalise
from sage_edge.calibration.ranges import Ranges, check_method
from sage_edge.runtime.bundle import GRAPHS, FaceInfo
from sage_edge.runtime.faces import MARGIN
from sage_edge.runtime.progress import Progress
from sage_edge.runtime.ticks import MAX_FRAME_AGE_NS

from . import quantize_cpu, quantize_trt

EMITTERS = {emitter.PRECISION: emitter for emitter in (quantize_cpu, quantize_trt)}
"""Precision -> the module that emits it from a float graph and its ranges."""

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store
    from sage_edge.training.model import SAGE
    from sage_edge.training.presets import Preset


def calibrate_checkpoint(
    checkpoint: Path, store: Store, method: str = "percentile", count: int = clips.COUNT, equalised: bool = False, progress: bool = True
) -> tuple[clips.ClipSet, Ranges]:
    """The clips chosen from `store` and the ranges that the model of `checkpoint` shows on them, in every group, so that any mix can be emitted.
    `equalised` folds factors into its channels first, as `calibrate_graphs` has it.

    Raises CheckpointError, DataError, UsageError, CompileError.
    """
    from sage_edge.training import checkpoint as checkpoints

    check_method(method)
    model, meta = checkpoints.load(checkpoint)
    check_clips(store, model.preset, count)
    with tempfile.TemporaryDirectory(prefix="sage-export-") as folder:
        paths = export_graphs(model, meta, Path(folder), "{graph}.onnx", progress)
        return calibrate_graphs(paths, model.preset, store, method, count, dict.fromkeys(EMITTERS, ()), progress, equalised)


def check_clips(store: Store, preset: Preset, count: int) -> None:
    """What `calibrate_graphs` would refuse of the clips, before the minutes of an export. Raises UsageError, DataError."""
    check(store, clips.pick(store, count, length=preset.window), {"rate_hz": str(preset.rate_hz), "window": str(preset.window)})


def export_graphs(model: SAGE, meta: Mapping[str, Any], folder: Path, pattern: str, progress: bool) -> dict[str, Path]:
    """`export.export`, with progress."""
    from .export import export

    with Progress("export", len(GRAPHS), "graphs", stream=None if progress else io.StringIO()) as bar:
        return export(model, meta, folder, pattern, lambda name: bar.step(note=name))


def calibrate_graphs(
    paths: Mapping[str, Path],
    preset: Preset,
    store: Store,
    method: str,
    count: int,
    float_groups: Mapping[str, Collection[str]],
    progress: bool,
    equalised: bool = False,
) -> tuple[clips.ClipSet, Ranges]:
    """Choose `count` clips of `store` and find the ranges that each emitter of `float_groups` (precision -> groups that it leaves in float)
    needs for the exported graphs at `paths`. With `equalised`, their channels are equalised first where that lowers the error of `int8-cpu`, in
    the files themselves; the ranges say how, and hold for such graphs alone (see `apply_equalised`)."""
    chosen = clips.pick(store, count, length=preset.window)
    factors = _equalise(paths, preset, store, chosen, method, progress) if equalised else {}
    tensors = {}
    for name, path in paths.items():
        graph = onnx.load(path)
        tensors[name] = list(dict.fromkeys(t for precision, groups in float_groups.items() for t in EMITTERS[precision].tensors(graph, groups)))
    ranges = calibrate(paths, store, chosen, tensors, face_info(preset), method, progress)
    return chosen, dataclasses.replace(ranges, equalised=factors)


def apply_equalised(paths: Mapping[str, Path], ranges: Ranges) -> None:
    """Fold the factors that `ranges` were found with into the exported graphs at `paths`: what they compute stays the same."""
    for name, factors in ranges.equalised.items():
        graph = onnx.load(paths[name])
        apply(graph, factors)
        onnx.save(graph, paths[name])


def _equalise(
    paths: Mapping[str, Path], preset: Preset, store: Store, chosen: clips.ClipSet, method: str, progress: bool
) -> dict[str, dict[str, list[int]]]:
    """Equalise the graphs at `paths` in place; graph -> tensor -> exponents of 2 per channel, where they were kept."""
    tensors = {name: quantize_cpu.tensors(onnx.load(path)) for name, path in paths.items()}
    with tempfile.TemporaryDirectory(prefix="sage-equalise-") as folder:
        gains = equalise(paths, Path(folder), store, chosen, tensors, quantize_cpu.emit, face_info(preset), method, progress)
        for name, path in paths.items():
            shutil.copyfile(Path(folder) / f"{name}.onnx", path)
    kept = {name: {gain.place.tensor: gain.exponents.tolist() for gain in rows if gain.alpha} for name, rows in gains.items()}
    return {name: places for name, places in kept.items() if places}


def face_info(preset: Preset) -> FaceInfo:
    """How the runtime makes the visual input of a model of `preset`."""
    size, inner = preset.face_size, preset.input_size
    return FaceInfo(size, inner, MARGIN, "rgb", tuple(preset.mean), tuple(preset.std), MAX_FRAME_AGE_NS / 1e6)
