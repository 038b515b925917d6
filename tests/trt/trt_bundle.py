"""The bundle made by hand of the runtime's tests, with int8-trt graphs that our emitter makes of its fp32 ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path.append(str(Path(__file__).resolve().parents[1] / "runtime"))
from tiny_bundle import make_bundle, write_manifest

from sage_edge.compile.quantize_trt import emit, tensors
from sage_edge.runtime.bundle import GRAPHS, Bundle, graph_path
from sage_edge.runtime.engines import Engine, open_engine
from sage_edge.runtime.flavours import Flavour
from sage_edge.runtime.golden import GoldenPass

NAMES = {"visual": "layer1.0/", "audio": "wavlm.feature_projection.", "fusion": "core.refine.layers.0.linear1/"}
"""By their names nodes are of a group; the products of `fusion` are a transformer's, but for the first."""
TOLERANCE = 0.03
"""Of int8-trt: less than what INT8 costs here, so that an engine near FP32 is not near the stored windows."""
FIRST = {"fusion": "tcn_visual."}


def make(path: Path) -> Path:
    """Write the bundle at `path`; returns it."""
    make_bundle(path)
    for graph in GRAPHS:
        file = path / graph_path(graph, "fp32")
        model = onnx.load(file)
        weighted = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
        for i, node in enumerate(model.graph.node):
            node.name = f"{FIRST.get(graph, NAMES[graph]) if node is weighted[0] else NAMES[graph]}{node.op_type}_{i}"
        model.metadata_props.add(key="graph", value=graph)
        onnx.save(model, file)
    write_manifest(path)
    bundle = Bundle.open(path)
    golden = GoldenPass(bundle, Flavour("fp32", "fp32"))
    for graph in GRAPHS:
        watch = _Watch(bundle.graph(graph, "fp32"))
        golden.run(graph, watch)
        onnx.save(emit(bundle.graph(graph, "fp32"), watch.ranges, ()), path / graph_path(graph, "int8-trt"))
    tolerance, size = {"fp32": 1e-3, "int8-cpu": 0.05, "int8-trt": TOLERANCE}, {"fp32": 1000, "int8-cpu": 260, "int8-trt": 500}
    write_manifest(path, tolerance=tolerance, weights_bytes=size)
    simulated = GoldenPass(bundle := Bundle.open(path), Flavour("int8-trt", "int8-trt"))
    for graph in GRAPHS:
        simulated.run(graph, open_engine(bundle.graph(graph, "int8-trt")))
    arrays = {**bundle.golden(), **{f"{name}_int8-trt": np.stack(rows) for name, rows in simulated._outputs.items()}}
    np.savez_compressed(path / "golden.npz", **arrays)
    write_manifest(path, tolerance=tolerance, weights_bytes=size)
    return path


class _Watch:
    """An engine that notes the least and the greatest value of each tensor that the emitter asks for."""

    threads = 1

    def __init__(self, path: Path) -> None:
        self._engine: Engine = open_engine(path)
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        model = onnx.load(path)
        self.ranges: dict[str, tuple[float, float]] = {}
        self._names = tensors(model, ())
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in self._names if name not in self.inputs)
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self) -> None:
        values = dict(zip([each.name for each in self._session.get_outputs()], self._session.run(None, self.inputs), strict=True))
        for name in self._names:
            value = values.get(name, self.inputs.get(name))
            low, high = self.ranges.get(name, (float("inf"), float("-inf")))
            self.ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
        self._engine.run()

    def close(self) -> None:
        self._engine.close()
