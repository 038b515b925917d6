"""The `int8-trt` emitter: Q/DQ as TensorRT's fusions want them, FP16 elsewhere, every type written into the file.

Symmetric int8, zero points 0. Activations per tensor, weights per output channel. The inputs of a chosen Conv, MatMul or Gemm are quantized, its
output and bias are not; weights stay floating point in front of their Q, which is what TensorRT 10.3 reads. Where a chosen convolution ends in a
residual Add and a Relu, the other input of the Add is quantized, so that the three become one kernel with int8 in and out. Everything else, products
of two activations, Softmax, norms, GELU, masks and weights of reliability, works in FP16 (`half.delicate`: in float32). Each tensor has one Q and one
DQ, which chosen nodes share; all others read the float tensor.

Rules: NVIDIA's guide to explicit quantization (docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types"). `strip` needs nothing but the
packages onnx and numpy, nor does `single`: a device can take Q/DQ or FP16 out of a file that its builder refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sage_edge.runtime.errors import CompileError

from .groups import FLOAT, graph_name, group_of, weighted
from .half import LARGEST, SMALLEST, delicate, halve, widen

PRECISION = "int8-trt"
_STEPS = 127
"""Positive steps of symmetric int8; -128 is never made."""
_GROUP_MULTIPLE = 4
"""Channels per group of a grouped INT8 convolution are a multiple of this (IConvolutionLayer)."""
_QDQ = ("QuantizeLinear", "DequantizeLinear")


def selection(model: onnx.ModelProto, float_groups: Collection[str] = FLOAT) -> dict[str, list[int]]:
    """Name of each node that reads int8 when `float_groups` stay in float -> the numbers of its quantized inputs."""
    graph = graph_name(model)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    chosen = {n.name: [0, 1] for n in weighted(model) if group_of(graph, n.name) not in float_groups and _quantizable(n, values[n.input[1]])}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    depth: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
        depth.update(dict.fromkeys(node.output, 1 + max((depth.get(name, 0) for name in node.input), default=0)))
    for node in model.graph.node:
        if node.op_type != "Add" or readers.get(node.output[0]) != ["Relu"] or not values.keys().isdisjoint(node.input):
            continue
        ends = [i for i, name in enumerate(node.input) if name in makers and makers[name].op_type == "Conv" and makers[name].name in chosen]
        if ends:
            # Of two convolutions the later one takes the Add in, when what the other made is there.
            chosen[node.name] = [1 - max(ends, key=lambda i: depth[node.input[i]])]
    return chosen


def tensors(model: onnx.ModelProto, float_groups: Collection[str] = FLOAT) -> list[str]:
    """Names of the activations whose ranges `emit` needs, in graph order."""
    chosen = selection(model, float_groups)
    values = {tensor.name for tensor in model.graph.initializer}
    names = [node.input[i] for node in model.graph.node for i in chosen.get(node.name, ())]
    return list(dict.fromkeys(name for name in names if name not in values))


def emit(graph: Path, ranges: Mapping[str, tuple[float, float]], float_groups: Collection[str] = FLOAT, half: bool = True) -> onnx.ModelProto:
    """The float32 graph at `graph` with Q/DQ nodes, in FP16; `ranges` is tensor -> (low, high) for at least the names in `tensors`.

    Inputs and outputs of the graph stay float32. `half=False` gives the float32 twin: the same scales, for measuring on a CPU, which has no kernels
    for FP16. Raises CompileError when a range is missing or not finite, and for a graph whose types do not fit together.
    """
    model = onnx.load(graph)
    chosen = selection(model, float_groups)
    limits = _limits(model, ranges, float_groups)
    model = onnx.shape_inference.infer_shapes(model)
    single = delicate(model, ranges)
    single |= _insert(model, chosen, limits, single)
    if half:
        model = onnx.shape_inference.infer_shapes(model)
        halve(model, single)
    return _finished(model, precision=PRECISION, float_groups=",".join(sorted(float_groups)))


def strip(model: onnx.ModelProto, groups: Collection[str] | None) -> onnx.ModelProto:
    """An emitted `model` without the Q/DQ that nodes of `groups` read (None: without any); what they read instead has the same type."""
    stripped, graph = onnx.ModelProto(), graph_name(model)
    stripped.CopyFrom(model)
    nodes, values = stripped.graph.node, stripped.graph.initializer
    makers = {node.output[0]: node for node in nodes if node.op_type in _QDQ}
    for node in nodes:
        if node.op_type not in _QDQ and (groups is None or group_of(graph, node.name) in groups):
            node.input[:] = [makers[makers[name].input[0]].input[0] if name in makers else name for name in node.input]
    for op in reversed(_QDQ):
        read = {name for node in nodes for name in node.input}
        for unread in [node for node in nodes if node.op_type == op and node.output[0] not in read]:
            nodes.remove(unread)
    read = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in values if tensor.name not in read]:
        values.remove(tensor)
    before = {name for prop in model.metadata_props if prop.key == "float_groups" for name in prop.value.split(",") if name}
    now = {name for name in (group_of(graph, node.name) for node in weighted(stripped)) if groups is None or name in groups}
    return _finished(stripped, float_groups=",".join(sorted(before | now)))


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """An emitted `model` with float32 in place of FP16, scales included: for builders that do not take FP16 scales."""
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    widen(widened)
    return _finished(widened)


def scales_of(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], float_groups: Collection[str] = FLOAT
) -> dict[str, NDArray[np.float32]]:
    """Scales of the activations in `tensors` as they are in FP16, from their `ranges`. Raises CompileError for one without a usable range."""
    return {name: _scale(limit, True) for name, limit in _limits(model, ranges, float_groups).items()}


def _limits(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], float_groups: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Tensor -> greatest magnitude."""
    limits = {}
    for name in tensors(model, float_groups):
        low, high = ranges.get(name, (np.nan, np.nan))
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise CompileError(f"no usable range for tensor {name!r} of graph {graph_name(model)}: calibrate this checkpoint again")
        limits[name] = np.array(max(abs(low), abs(high)), np.float32)
    return limits


def _quantizable(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    if node.op_type != "Conv":
        return len(weight.dims) == 2
    count = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return count == 1 or (weight.dims[1] % _GROUP_MULTIPLE == 0 and weight.dims[0] // count % _GROUP_MULTIPLE == 0)


def _channel_axis(node: onnx.NodeProto) -> int:
    """Axis of the output channels in the weight of `node`."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _insert(model: onnx.ModelProto, chosen: Mapping[str, list[int]], limits: Mapping[str, NDArray[np.float32]], single: Collection[str]) -> set[str]:
    """Put Q/DQ in front of the `chosen` inputs; names of the Q and DQ nodes that belong to nodes in `single`.

    `limits` is tensor -> greatest magnitude. A tensor that nodes of both kinds read has a pair for each, with one scale but for its rounding to FP16.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    pairs: dict[tuple[str, bool], str] = {}
    nodes: list[onnx.NodeProto] = []
    kept: set[str] = set()

    def pair(name: str, limit: NDArray[np.float32], axis: int | None, in_half: bool) -> str:
        base = name if in_half else f"{name}/single"
        scale = _scale(limit, in_half)
        graph.initializer.append(numpy_helper.from_array(scale, f"{base}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{base}_zero_point"))
        source = name
        for op, end in zip(_QDQ, ("quantized", "dequantized"), strict=True):
            inputs = [source, f"{base}_scale", f"{base}_zero_point"]
            nodes.append(helper.make_node(op, inputs, [f"{base}/{end}"], f"{base}/{op}"))
            if axis is not None:
                nodes[-1].attribute.append(helper.make_attribute("axis", axis))
            source = f"{base}/{end}"
            if not in_half:
                kept.add(f"{base}/{op}")
        return source

    for node in graph.node:
        for i in chosen.get(node.name, ()):
            name, in_half = node.input[i], node.name not in single
            if (name, in_half) not in pairs:
                if name in values:
                    axis = _channel_axis(node)
                    weight = np.abs(numpy_helper.to_array(values[name]))
                    limit = weight.max(axis=tuple(j for j in range(weight.ndim) if j != axis))
                    pairs[name, in_half] = pair(name, limit, axis, in_half)
                else:
                    pairs[name, in_half] = pair(name, limits[name], None, in_half)
            node.input[i] = pairs[name, in_half]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return kept


def _scale(limit: NDArray[np.float32], in_half: bool) -> NDArray[np.float32]:
    """Scale of a tensor or of each channel, from greatest magnitudes: above 0 where all values are 0, and a normal FP16 number for FP16."""
    scale = np.where(limit > 0, limit, 1).astype(np.float32) / np.float32(_STEPS)
    if in_half:
        scale = np.clip(scale, SMALLEST, LARGEST).astype(np.float16).astype(np.float32)
    positive: NDArray[np.float32] = np.maximum(scale, np.finfo(np.float32).tiny)
    return positive


def _finished(model: onnx.ModelProto, **properties: str) -> onnx.ModelProto:
    """`model` with all types and shapes inferred anew and checked, and `properties` in its metadata."""
    for key, value in properties.items():
        prop = next((prop for prop in model.metadata_props if prop.key == key), None) or model.metadata_props.add(key=key)
        prop.value = value
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        first = "".join(str(error).strip().splitlines()[:1])
        raise CompileError(
            f"types of the {PRECISION} graph do not fit together ({first}); check the pair of versions with `pip list | grep onnx`"
        ) from error
    return model
