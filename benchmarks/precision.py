"""Precision: what each precision costs, as signal to quantization noise of each graph, and for a trained model as CCC.

    python benchmarks/run.py precision --json                                   # base, random weights, 10 s windows
    python benchmarks/run.py precision --checkpoint CKPT --data STORE --json    # a trained model, its CCC too

SQNR is 10 log10(sum of squares of the FP32 output / sum of squares of the difference), in dB, over windows that were not calibrated on; every
graph gets FP32 inputs, so that what is said of one graph holds of it alone. The reference is ONNX Runtime in FP32. `int8-trt` is simulated:
ONNX Runtime runs TensorRT's graph on the CPU, in the numbers that the file writes down; no TensorRT took part. CCC is that of the `overlap`
protocol on the validation split of STORE, all three graphs in one precision.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from specimen import GRAPHS, PRECISIONS, Specimen, specimen, trained

THREADS = 2
SIMULATED = "int8-trt_simulated"


def run(n: int = 400, seed: int = 0, preset: str = "base", checkpoint: Path | None = None, data: Path | None = None) -> dict[str, Any]:
    """`variants`: {GRAPH: {BACKEND_PRECISION: {output: dB}}} and, with a checkpoint, "ccc": {BACKEND_PRECISION: {valence, arousal, drops}}."""
    if (checkpoint is None) != (data is None):
        raise SystemExit("precision: --checkpoint and --data go together; give both or neither")
    source = specimen(preset, seed) if checkpoint is None or data is None else trained(checkpoint, data)
    with source as made:
        variants: dict[str, Any] = {graph: _sqnr(made, graph) for graph in GRAPHS}
        if data is not None:
            variants["ccc"] = _ccc(made, data)
        facts = dict(made.facts)
        window = made.preset.window
    return {
        "unit": "dB; ccc: 1",
        "variants": variants,
        "ratios": {},
        "notes": {
            "model": f"{made.preset.name}, " + ("random weights" if checkpoint is None else "trained"),
            "window_ticks": window,
            "specimen": facts,
            "int8-trt": "simulated by ONNX Runtime on the CPU",
        },
    }


def sqnr_db(reference: NDArray[np.float32], value: NDArray[np.float32]) -> float:
    """Signal to quantization noise in dB; infinite when the two are equal."""
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - value).sum())
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def _kinds() -> dict[str, tuple[str, str, str | None]]:
    """BACKEND_PRECISION -> (backend, graphs, hint) of what can run here; FP32 on ONNX Runtime comes first."""
    from sage_edge.runtime.flavours import FLAVOURS

    kinds = {
        f"{backend}_{asked}": (backend, kind.graphs, kind.hint)
        for backend in ("onnxruntime", "openvino")
        for asked, kind in FLAVOURS[backend].items()
        if kind.hint != "cuda"
    }
    return {**kinds, SIMULATED: ("onnxruntime", PRECISIONS[2], "cpu")}


def _sqnr(made: Specimen, graph: str) -> dict[str, dict[str, float]]:
    """BACKEND_PRECISION -> output -> dB."""
    from sage_edge.runtime.engines import open_engine
    from sage_edge.runtime.errors import EngineError

    feeds = made.feeds(graph)
    wanted: dict[str, NDArray[np.float32]] = {}
    found: dict[str, dict[str, float]] = {}
    for name, (backend, graphs, hint) in _kinds().items():
        print(f"{graph}: {name}", file=sys.stderr, flush=True)
        try:
            engine = open_engine(made.graph(graph, graphs), backend, len(next(iter(feeds[0].values()))), THREADS, hint)
        except EngineError as error:
            print(f"{graph}: {name} left out: {error}", file=sys.stderr)
            continue
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for feed in feeds:
            for key, value in feed.items():
                engine.inputs[key][...] = value
            engine.run()
            for key, value in engine.outputs.items():
                rows.setdefault(key, []).append(value.copy())
        engine.close()
        outputs = {key: np.stack(values) for key, values in rows.items()}
        wanted = wanted or outputs
        if outputs is not wanted:
            found[name] = {key: round(min(sqnr_db(wanted[key], value), 999.0), 1) for key, value in outputs.items()}
    return found


def _ccc(made: Specimen, data: Path) -> dict[str, dict[str, float]]:
    """BACKEND_PRECISION -> CCC of valence and arousal, and what each loses against ONNX Runtime FP32."""
    from sage_edge.calibration.evaluation import Variant, overlap, score, validation
    from sage_edge.calibration.offline import Offline
    from sage_edge.compile.calibrated import face_info
    from sage_edge.runtime.errors import EngineError
    from sage_edge.training.data.store import Store

    trials = validation(Store.open(data), rate_hz=made.preset.rate_hz)
    found: dict[str, dict[str, float]] = {}
    first: dict[str, float] = {}
    for name, (backend, graphs, hint) in _kinds().items():
        paths = {(graph, name): made.graph(graph, graphs) for graph in GRAPHS}
        try:
            with Offline(paths, face_info(made.preset), backend, THREADS, {name: hint}) as offline:
                predictions = overlap(offline, trials, {name: Variant.all(name)}, made.preset.window)
        except EngineError as error:
            print(f"ccc: {name} left out: {error}", file=sys.stderr)
            continue
        ccc = score(predictions[name], trials)
        first = first or dict(ccc)
        row = {key: round(float(ccc[key]), 4) for key in ("valence", "arousal")}
        found[name] = {**row, **{f"{key}_drop": round(float(first[key] - ccc[key]), 4) for key in row}}
    return found
