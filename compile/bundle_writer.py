"""Checkpoint in, checked bundle out: export, calibrate, quantize, golden windows, evaluation, manifest. Written whole or not at all.

    path = compile_bundle("CKPT", "STORE", "NAME.sage", max_drop=0.005)

The store gives the calibration clips (training split) and the videos on which INT8 must keep the CCC of FP32 (validation split), under both
protocols; `int8-trt`, which only TensorRT runs, is simulated on the CPU under `overlap`. Nothing from the store enters the bundle but hashes
and figures.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sage_edge.calibration import check, clips
from sage_edge.calibration.evaluation import drops, too_much, validation
from sage_edge.calibration.offline import Offline
from sage_edge.calibration.ranges import Ranges, check_method
from sage_edge.runtime.bundle import (
    GOLDEN,
    GRAPHS,
    MANIFEST,
    SCHEMA,
    SEARCH,
    SEARCH_PLOT,
    Bundle,
    CalibrationInfo,
    Ccc,
    Dims,
    FileInfo,
    Manifest,
    ModelInfo,
    OutputInfo,
    TrainedOn,
    graph_path,
)
from sage_edge.runtime.errors import CheckpointError, CompileError, UsageError
from sage_edge.runtime.files import atomic_folder, sha256_file

from . import golden, lint, modelopt, quantize_cpu, quantize_trt, search_plot
from .blame import blame
from .calibrated import EMITTERS, apply_equalised, calibrate_graphs, check_clips, export_graphs, face_info
from .facts import HOP, check_window, weights_bytes
from .groups import check_groups, check_names, groups

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store

PRECISIONS = ("fp32", *EMITTERS)
LINTED = "trt10.3"
"""TensorRT of the oldest JetPack served here: what it takes, its successors take."""


def compile_bundle(
    checkpoint: Path | str,
    store: Store | Path | str,
    out: Path | str,
    *,
    max_drop: float = check.MAX_DROP,
    method: str = "percentile",
    count: int = clips.COUNT,
    ranges: Ranges | None = None,
    float_groups: Collection[str] = (),
    reduce_range: bool = False,
    by_modelopt: bool = False,
    preset: str | None = None,
    replace: bool = False,
    progress: bool = True,
) -> Path:
    """Compile `checkpoint` with the data of `store` into the bundle folder `out`; returns its path.

    `max_drop` is the CCC that an INT8 precision may lose on valence or arousal; `method` is one that `ranges.check_method` takes, on `count` clips,
    unless `ranges` were collected before. `float_groups` stay in floating point besides those that each emitter, or the search that came with
    `ranges`, leaves so; `reduce_range` keeps the weights of `int8-cpu` in 7 bits; `by_modelopt` lets NVIDIA's ModelOpt emit `int8-trt` from the
    same ranges; `preset`, where given, is what the checkpoint must be of. Raises CheckpointError, DataError, UsageError, and CompileError when a
    step fails or INT8 loses too much, naming the graph that does it. On any failure nothing is left behind.
    """
    from sage_edge.training import checkpoint as checkpoints
    from sage_edge.training.data.store import Store

    out = Path(out)
    check_method(method)
    if by_modelopt:
        modelopt.check_installed()
    if math.isnan(max_drop):
        raise UsageError("--max-drop is nan, which no loss of CCC is below; give a number such as 0.005")
    if ranges is None:
        clips.check_count(count)
    elif ranges.search is not None:
        search_plot.check_plot(Path(SEARCH_PLOT))
    if replace:
        _check_replaceable(out)
    try:
        with atomic_folder(out, replace=replace) as work:
            model, meta = checkpoints.load(Path(checkpoint), preset)
            _trained_on(meta, Path(checkpoint))
            check_names(float_groups, model.preset)
            if ranges is not None:
                check_window(ranges, model.preset)
                check_names(ranges.search["float_groups"] if ranges.search else (), model.preset)
            store = store if isinstance(store, Store) else Store.open(store)
            validation(store, rate_hz=model.preset.rate_hz)
            if ranges is None:
                check_clips(store, model.preset, count)
            facts = _Facts(model, meta, Path(checkpoint))
            _graphs(work, model, meta, facts, store, method, count, ranges, float_groups, reduce_range, by_modelopt, progress)
            manifest = facts.manifest(work, {})
            (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            bundle = Bundle.open(work)
            found = check.evaluate(bundle, store, progress=progress)
            ccc = found.ccc
            if failed := too_much(drops(ccc), max_drop):
                raise CompileError(f"{failed[0]}; {blame(bundle, found, failed[0], progress)}")
            (work / MANIFEST).write_text(facts.manifest(work, ccc).to_json(), encoding="utf-8")
    except OSError as error:
        # errors of writing, unlike those of opening, do not know their file
        raise CompileError(
            f"{error.filename or out}: {error.strerror or error}; nothing was written, free some space or choose another place"
        ) from error
    return out


def _graphs(
    work: Path,
    model: Any,
    meta: Mapping[str, Any],
    facts: _Facts,
    store: Store,
    method: str,
    count: int,
    ranges: Ranges | None,
    float_groups: Collection[str],
    reduce_range: bool,
    by_modelopt: bool,
    progress: bool,
) -> None:
    """Write the graphs of every precision, the golden windows and what a search found into the folder `work`."""
    paths = export_graphs(model, meta, work / "onnx", "{graph}.fp32.onnx", progress)
    if ranges is not None:
        apply_equalised(paths, ranges)
    floats = {name: onnx.load(path) for name, path in paths.items()}
    check_groups(float_groups, {group for value in floats.values() for group in groups(value)})
    left = {precision: {*emitter.FLOAT, *float_groups} for precision, emitter in EMITTERS.items()}
    if ranges is None:
        _, ranges = calibrate_graphs(paths, facts.preset, store, method, count, left, progress)
    if ranges.search is not None:
        left[ranges.search["precision"]] = {*ranges.search["float_groups"], *float_groups}
        _keep_search(work, ranges.search)
    facts.calibration = CalibrationInfo(ranges.method, ranges.set_sha256, ranges.clips)
    facts.dims = Dims(*(_width(floats[name]) for name in ("visual", "audio")))
    facts.has_modality = any(value.name == "modality" for value in floats["fusion"].graph.output)
    facts.weights_bytes["fp32"] = sum(map(weights_bytes, floats.values()))
    del floats
    emit: dict[str, Callable[..., onnx.ModelProto]] = {
        quantize_cpu.PRECISION: functools.partial(quantize_cpu.emit, reduce_range=reduce_range),
        quantize_trt.PRECISION: modelopt.emit if by_modelopt else quantize_trt.emit,
    }
    for name, path in paths.items():
        for precision in EMITTERS:
            quantized = emit[precision](path, ranges.graphs.get(name, {}), left[precision])
            for key, value in (("calibration_method", ranges.method), ("calibration_set_sha256", ranges.set_sha256)):
                quantized.metadata_props.add(key=key, value=value)
            _look_at(name, precision, quantized)
            facts.weights_bytes[precision] = facts.weights_bytes.get(precision, 0) + weights_bytes(quantized)
            onnx.save(quantized, work / graph_path(name, precision))
            del quantized
    every = {(name, p): work / graph_path(name, p) for name in GRAPHS for p in PRECISIONS}
    with Offline(every, facts.face) as offline:
        golden.write(work / GOLDEN, offline, golden.inputs(facts.preset.window, facts.preset.samples, facts.preset.face_size), PRECISIONS)


def _keep_search(work: Path, search: Mapping[str, Any]) -> None:
    """Write what a search found into the folder `work`, and draw it: the videos without their names."""
    kept = {**search, "videos": sorted(search["videos"].values())}
    (work / SEARCH).write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    search_plot.plot(kept, work / SEARCH_PLOT)


def _look_at(name: str, precision: str, quantized: onnx.ModelProto) -> None:
    """CompileError when TensorRT would refuse an `int8-trt` graph; one line on stderr when ONNX Runtime computes in float what is in 8 bits."""
    if precision == quantize_cpu.PRECISION:
        if slow := quantize_cpu.unfused(quantized, quantize_cpu.kernels(quantized)):
            print(f"warning: {name}: {', '.join(slow)} nodes are quantized and yet run in float on this machine", file=sys.stderr)
        return
    if errors := [finding for finding in lint.lint(quantized, LINTED) if finding.severity == "error"]:
        raise CompileError(f"{name}.{precision}: {errors[0].node}: {errors[0].fact} (1 of {len(errors)} errors for {LINTED}); {errors[0].fix}")


class _Facts:
    """What the manifest will say, gathered step by step."""

    calibration: CalibrationInfo
    dims: Dims
    has_modality: bool

    def __init__(self, model: Any, meta: Mapping[str, Any], checkpoint: Path) -> None:
        self.weights_bytes: dict[str, int] = {}
        self.preset, self.meta = model.preset, meta
        self.trained_on = _trained_on(meta, checkpoint)
        self.face = face_info(model.preset)

    def manifest(self, folder: Path, ccc: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Manifest:
        """The manifest of the files that lie in `folder`."""
        p = self.preset
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        return Manifest(
            schema=SCHEMA,
            model=ModelInfo("SAGE", p.name, str(self.meta["revision"]), "modality" if self.has_modality else "temporal", p.rgf_scale),
            window=p.window,
            hop=min(HOP, p.window),
            rate_hz=p.rate_hz,
            sample_rate_hz=p.sample_rate_hz,
            samples=p.samples,
            face=self.face,
            dims=self.dims,
            output=OutputInfo(("valence", "arousal"), (-1.0, 1.0)),
            calibration=self.calibration,
            trained_on=self.trained_on,
            weights_bytes=self.weights_bytes,
            ccc={protocol: {precision: Ccc(**row) for precision, row in rows.items()} for protocol, rows in ccc.items()},
            tolerance=dict(golden.TOLERANCE),
            files={name: FileInfo(os.stat(folder / name).st_size, sha256_file(folder / name)) for name in names},
        )


def _check_replaceable(out: Path) -> None:
    """UsageError unless what lies at `out` is a bundle, an empty folder or nothing: --force must not cost anybody another folder."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is no folder, so it is not replaced; choose another path or remove it")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise UsageError(f"{out} is no bundle (it has no {MANIFEST}), so it is not replaced; choose another path or remove it")


def _trained_on(meta: Mapping[str, Any], checkpoint: Path) -> TrainedOn:
    said = dict(meta["trained_on"])
    name, synthetic = said.pop("name", None), said.pop("synthetic", None)
    if not isinstance(name, str) or not isinstance(synthetic, bool):
        raise CheckpointError(f"{checkpoint} does not say which corpus it was trained on; train it again on a store that `sage-edge prepare` wrote")
    return TrainedOn(name, synthetic, said)


def _width(model: onnx.ModelProto) -> int:
    """Size of the last axis of the only output."""
    return int(model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
