"""`int8-trt` by NVIDIA ModelOpt, in place of our own emitter: same float32 graph, same ranges, same nodes; its Q/DQ, weights' scales and FP16.

It works in a process of its own, because it patches ONNX Runtime's quantizer for good. Given feeds it also calibrates by itself (greatest magnitude).
Left to its defaults it quantizes products of two activations, sums and norms of a transformer too (measured on a trained `tiny`: estimates of 18 dB
instead of 41), so it is told which nodes to leave alone. An extra: `pip install 'sage-edge[modelopt]'`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sage_edge.runtime.errors import CompileError

from .groups import FLOAT, graph_name, weighted
from .quantize_trt import PRECISION, scales_of, selection

INSTALL = "pip install 'sage-edge[modelopt]'"
_SCALE = re.compile(r"_scale(_\d+)?$")
_QDQ = ("QuantizeLinear", "DequantizeLinear")


def check_installed() -> None:
    """CompileError unless ModelOpt can be found."""
    if importlib.util.find_spec("modelopt") is None:
        raise CompileError(f"nvidia-modelopt is not installed; {INSTALL}")


def emit(
    graph: Path,
    ranges: Mapping[str, tuple[float, float]],
    float_groups: Collection[str] = FLOAT,
    half: bool = True,
    feeds: Iterable[Mapping[str, NDArray[Any]]] | None = None,
) -> onnx.ModelProto:
    """The float32 graph at `graph` with ModelOpt's Q/DQ, in FP16 with float32 inputs and outputs; `ranges` as of `quantize_trt.emit`.

    Given `feeds` (input name -> [n, ...]), ModelOpt calibrates on them instead, and pools get int8, too. All readers of a tensor that it quantizes
    get the rounded copy. `half=False` leaves float32 what is not int8. Raises CompileError when ModelOpt is missing or fails, when a range is missing
    or not finite, and when the file breaks what `int8-trt` promises.
    """
    check_installed()
    source = onnx.load(graph)
    chosen = selection(source, float_groups)
    scales = scales_of(source, ranges, float_groups) if feeds is None else {}
    kept = [node.name for node in source.graph.node if node.name not in chosen and (feeds is None or node.op_type != "MaxPool")]
    parts = list(feeds or ())
    if feeds is not None and not parts:
        raise CompileError(f"no calibration feed for graph {Path(graph).stem}; give ModelOpt at least one")
    with tempfile.TemporaryDirectory(prefix="sage-modelopt-") as folder:
        data, out = Path(folder, "feeds.npz"), Path(folder, "out.onnx")
        stacked: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        np.savez(data, **stacked)
        job = {
            "onnx_path": str(graph),
            "output_path": str(out),
            "feeds": str(data),
            "nodes_to_exclude": [re.escape(name) + "$" for name in kept],
            "high_precision_dtype": "fp16" if half else "fp32",
        }
        worker = [sys.executable, "-m", "sage_edge.compile.modelopt"]
        environment = {**os.environ, "TMPDIR": folder}
        ran = subprocess.run(worker, input=json.dumps(job), env=environment, capture_output=True, text=True, check=False)
        if ran.returncode or not out.is_file():
            last = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1]
            raise CompileError(f"ModelOpt cannot quantize graph {Path(graph).stem} ({last[:200]}); check its parts with {INSTALL}")
        model = onnx.load(out)
    for tensor in model.graph.initializer:
        # each reader of a scale gets an FP16 copy of its own: T_scale_1, T_scale_2
        if (name := _SCALE.sub("", tensor.name)) in scales and name != tensor.name:
            value = scales[name].astype(numpy_helper.to_array(tensor).dtype)
            tensor.CopyFrom(numpy_helper.from_array(value.reshape(tensor.dims), tensor.name))
    weights = {node.name for node in weighted(source)}
    return _checked(model, source, weights.difference(chosen), float_groups)


def _checked(model: onnx.ModelProto, source: onnx.ModelProto, kept: Collection[str], float_groups: Collection[str]) -> onnx.ModelProto:
    """`model` with the metadata of `source`, or CompileError."""
    name = graph_name(source)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    behind = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in _QDQ:
            zero = values.get(node.input[2]) if len(node.input) > 2 else None
            if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
                raise CompileError(f"ModelOpt gave {node.name} of graph {name} a zero point that is not int8 and 0; use the own emitter")
            scale = values.get(node.input[1])
            if scale is None or not (numpy_helper.to_array(scale) > 0).all():
                raise CompileError(f"ModelOpt gave {node.name} of graph {name} a scale that is not above 0; use the own emitter")
        elif node.name in kept and any(each in behind for each in node.input[:2]):
            raise CompileError(f"ModelOpt quantized {node.name} of graph {name}, which was to stay in floating point; use the own emitter")
    ends = [(value.name, value.type.tensor_type.elem_type) for value in [*model.graph.input, *model.graph.output]]
    if ends != [(value.name, TensorProto.FLOAT) for value in [*source.graph.input, *source.graph.output]]:
        raise CompileError(f"ModelOpt changed inputs or outputs of graph {name} to {ends}; use the own emitter")
    del model.metadata_props[:]
    model.metadata_props.extend(prop for prop in source.metadata_props)
    for key, value in {"precision": PRECISION, "float_groups": ",".join(sorted(float_groups)), "emitter": "modelopt"}.items():
        model.metadata_props.add(key=key, value=value)
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        first = "".join(str(error).strip().splitlines()[:1])
        raise CompileError(f"types in ModelOpt's file of graph {name} do not fit together ({first}); use the own emitter") from error
    return model


def _work(feeds: str, **settings: Any) -> None:
    """In the worker process: quantize."""
    from sage_edge.runtime import ort

    ort.load()
    from modelopt.onnx.quantization import quantize

    with np.load(feeds) as data:
        # None: noise, for scales that are replaced
        calibration = dict(data) or None
    quantize(quantize_mode="int8", calibration_data=calibration, calibration_method="max", calibration_eps=["cpu"], log_level="ERROR", **settings)


if __name__ == "__main__":
    _work(**json.load(sys.stdin))
