"""The `int8-cpu` emitter: Q/DQ for ONNX Runtime's and OpenVINO's CPU kernels.

Activations uint8, asymmetric, per tensor; weights int8, symmetric, per output channel, stored as int8; biases of convolutions int32. An input
of every chosen Conv, MatMul and Gemm is quantized, outputs of Conv too (QLinearConv needs both sides), outputs of MatMul and Gemm not: what
follows them (bias, residual, norm, GELU) works on float32. Relu, MaxPool and residual Add between quantized convolutions stay in 8 bits, which is
most of a ResNet. LeakyRelu does not: it would make the TCN's residual sums of values rounded twice (measured on a trained `tiny`: 1.7 times the
error of the valence, no time gained). `emit` is what a search over precisions calls: graph, ranges, groups to leave in float.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

from .groups import FLOAT, graph_name, group_of, weighted

PRECISION = "int8-cpu"
_CARRIERS = ("Relu", "MaxPool", "Add")
_FLOAT_OUTPUT = ["MatMul", "Gemm"]


def selection(model: onnx.ModelProto, float_groups: Collection[str] = FLOAT) -> set[str]:
    """Names of the nodes that work in 8 bits when `float_groups` stay in float."""
    graph = graph_name(model)
    chosen = {node.name for node in weighted(model) if group_of(graph, node.name) not in float_groups}
    initializers = {tensor.name for tensor in model.graph.initializer}
    in_8_bits: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _CARRIERS and all(name in in_8_bits and name not in initializers for name in node.input):
            chosen.add(node.name)
        if node.name in chosen and node.op_type not in _FLOAT_OUTPUT:
            in_8_bits.update(node.output)
    return chosen


def tensors(model: onnx.ModelProto, float_groups: Collection[str] = FLOAT) -> list[str]:
    """Names of the activations whose ranges `emit` needs, in graph order."""
    chosen = selection(model, float_groups)
    initializers = {tensor.name for tensor in model.graph.initializer}
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in chosen:
            outputs = [] if node.op_type in _FLOAT_OUTPUT else node.output
            names.update(dict.fromkeys(name for name in [*node.input, *outputs] if name and name not in initializers))
    return list(names)


def emit(
    graph: Path, ranges: Mapping[str, tuple[float, float]], float_groups: Collection[str] = FLOAT, reduce_range: bool = False
) -> onnx.ModelProto:
    """The float32 graph at `graph` with Q/DQ nodes; `ranges` is tensor -> (low, high) for at least the names in `tensors`.

    `reduce_range` gives weights 7 bits, [-64, 64]: x86 without VNNI adds pairs of products in 16 bits, which saturate with 8. Raises CompileError
    when a range is missing or not finite.
    """
    ort.load()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = onnx.load(graph)
    chosen = selection(model, float_groups)
    spans = {}
    for name in tensors(model, float_groups):
        low, high = ranges.get(name, (np.nan, np.nan))
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise CompileError(f"no usable range for tensor {name!r} of graph {Path(graph).stem}: calibrate this checkpoint again")
        spans[name] = TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
    if chosen:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=spans,
            nodes_to_quantize=sorted(chosen),
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({node.op_type for node in model.graph.node if node.name in chosen}),
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": _FLOAT_OUTPUT,
                "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "MatMul": 1},
            },
        )
        quantizer.quantize_model()
        _spare_float_consumers(quantizer.model.model, chosen)
        quantizer.model.topological_sort()
        model = quantizer.model.model
    properties = {"precision": PRECISION, "float_groups": ",".join(sorted(float_groups)), "weight_bits": "7" if reduce_range else "8"}
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return model


def _spare_float_consumers(model: onnx.ModelProto, chosen: set[str]) -> None:
    """Let float nodes read the float tensor: ONNX Runtime's quantizer gives every consumer of a quantized tensor the rounded copy.

    Not where the tensor itself is born in 8 bits (behind a chosen convolution): there the rounded copy is all there is.
    """
    graph = model.graph
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    born_8_bit = {name for node in graph.node if node.name in chosen and node.op_type not in _FLOAT_OUTPUT for name in node.output}
    spare = {
        node.output[0]: quantized[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized and quantized[node.input[0]] not in born_8_bit
    }
    for node in graph.node:
        if node.name not in chosen:
            node.input[:] = [spare.get(name, name) for name in node.input]


def kernels(graph: Path | onnx.ModelProto) -> Counter[str]:
    """Operator types that ONNX Runtime really runs on this machine's CPU, after its optimizer, with their numbers. Raises CompileError."""
    with tempfile.TemporaryDirectory(prefix="sage-kernels-") as folder:
        onnxruntime = ort.load()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        source: Any = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        try:
            onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime and protobuf raise classes of their own
            first = str(error).strip().splitlines()[:1]
            raise CompileError(f"ONNX Runtime cannot load the quantized graph ({type(error).__name__}: {''.join(first)})") from error


def unfused(model: onnx.ModelProto, ran: Counter[str]) -> list[str]:
    """What was quantized in `model` and yet is computed in float, as text for a person; empty when all of it runs in 8 bits."""
    behind_dq = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    wanted = Counter(node.op_type for node in model.graph.node if len(node.input) > 1 and {*node.input[:2]} <= behind_dq)
    got = {
        "Conv": ran["QLinearConv"],
        "MatMul": ran["MatMulIntegerToFloat"] + ran["QLinearMatMul"] + ran["MatMulInteger"],
        "Gemm": ran["QGemm"],
    }
    return [f"{wanted[op] - n} of {wanted[op]} {op}" for op, n in got.items() if n < wanted[op]]
