"""FP16 in an ONNX graph, written out type by type, as a strongly typed engine wants it.

Nodes work in FP16, those that FP16 cannot hold (`delicate`) in float32, with explicit casts in between and at the graph's inputs and outputs, which
stay float32. Q/DQ keep their int8 and take their scales along. `onnxruntime.transformers.float16` can do that for networks without float32 nodes in
the middle; with them, its casts come out of order, twice for a tensor that two such nodes read, and under one name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 2.0**-14
"""Smallest normal FP16 number: below it precision fades, and kernels may flush to zero."""
LARGEST = float(np.finfo(np.float16).max)
LONG = 1024
"""Sums over this many values and more are made in float32: FP16 counts in ones up to 2048 only, and overflows at 65504."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_NORMS = ("InstanceNormalization", "GroupNormalization", "BatchNormalization")


def delicate(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> set[str]:
    """Names of the nodes of a float32 `model` that FP16 cannot hold.

    Norms with statistics (of the input, or stored: a variance may be as small as an epsilon), sums over a long or unknown length, constants that
    overflow or vanish, and nodes that read or write a tensor whose range (tensor -> (low, high)) comes near the end of FP16's.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    wide = {name for name, (low, high) in ranges.items() if max(abs(low), abs(high)) > LARGEST / 2}
    wide |= {name for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT and not _fits(numpy_helper.to_array(tensor))}
    shapes = {value.name: _shape(value) for value in [*model.graph.value_info, *model.graph.input]}
    found = set()
    for node in model.graph.node:
        long = node.op_type.startswith("Reduce") and _reduced(node, shapes.get(node.input[0]), constants) >= LONG
        if node.op_type in _NORMS or long or not wide.isdisjoint([*node.input, *node.output]):
            found.add(node.name)
    return found


def halve(model: onnx.ModelProto, single: Collection[str]) -> None:
    """Make every float32 tensor of `model` FP16, in place, but for those of the nodes called `single` and the graph's inputs and outputs.

    Tensors without a known type (no `value_info`) count as not floating point: infer shapes first. Types and shapes of the result are for the caller
    to infer again.
    """
    graph = model.graph
    kinds = {node.name: TensorProto.FLOAT if node.name in single else TensorProto.FLOAT16 for node in graph.node}
    floats = {value.name for value in [*graph.input, *graph.value_info, *graph.output] if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    # (tensor, type) -> the name under which it can be had in that type
    made: dict[tuple[str, int], str] = {(value.name, TensorProto.FLOAT): value.name for value in graph.input}
    for name, tensor in constants.items():
        wanted = {kinds[node.name] for node in graph.node if name in node.input}
        made[name, TensorProto.FLOAT] = name
        made[name, TensorProto.FLOAT16] = f"{name}/half" if TensorProto.FLOAT in wanted else name
        if TensorProto.FLOAT16 in wanted:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), made[name, TensorProto.FLOAT16])
            (graph.initializer.add() if TensorProto.FLOAT in wanted else tensor).CopyFrom(half)
    outputs = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []

    def cast(name: str, kind: int) -> str:
        other = TensorProto.FLOAT if kind == TensorProto.FLOAT16 else TensorProto.FLOAT16
        target = name if kind == TensorProto.FLOAT and name in outputs else f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'single'}"
        nodes.append(helper.make_node("Cast", [made[name, other]], [target], f"{target}/cast", to=kind))
        made[name, kind] = target
        return target

    for node in graph.node:
        kind = kinds[node.name]
        for i, name in enumerate(node.input):
            if name in floats or name in constants:
                node.input[i] = made.get((name, kind)) or cast(name, kind)
        produced = [name for name in node.output if name in floats]
        if node.op_type == "Cast" and produced:
            node.attribute[0].i = kind
        nodes.append(node)
        for name in produced:
            made[name, kind] = f"{name}/half" if name in outputs and kind == TensorProto.FLOAT16 else name
        node.output[:] = [made[name, kind] if name in floats else name for name in node.output]
        for name in produced:
            if made[name, kind] != name:
                cast(name, TensorProto.FLOAT)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def widen(model: onnx.ModelProto) -> None:
    """Undo `halve` in place: FP16 becomes float32, casts between the two go, values keep the rounding they have had.

    Needs the types of all tensors (`value_info`); those of the result are for the caller to infer again.
    """
    graph = model.graph
    outputs = {value.name for value in graph.output}
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    names: dict[str, str] = {}
    for node in [node for node in graph.node if node.op_type == "Cast" and kinds[node.output[0]] in _FLOATS]:
        if kinds[node.input[0]] not in _FLOATS:
            node.attribute[0].i = TensorProto.FLOAT
            continue
        old, new = node.output[0], node.input[0]
        names.update({new: old} if old in outputs else {old: new})
        graph.node.remove(node)
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [_end(name, names) for name in field]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    del graph.value_info[:]


def _end(name: str, names: Mapping[str, str]) -> str:
    """Where a chain of renamings of `name` ends."""
    while name in names:
        name = names[name]
    return name


def _fits(values: NDArray[np.float32]) -> bool:
    """No value overflows in FP16, and a lone number does not vanish: a small weight may, an epsilon may not."""
    return bool(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0) <= LARGEST) and not (
        values.size == 1 and values.any() and not values.astype(np.float16).any()
    )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Sizes of a tensor, 0 where they are open."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _reduced(node: onnx.NodeProto, shape: list[int] | None, constants: Mapping[str, onnx.TensorProto]) -> float:
    """Number of values behind each sum of a Reduce `node`; infinite where it is not known."""
    if shape is None:
        return np.inf
    given = node.input[1] if len(node.input) > 1 else ""
    if given and given not in constants:
        return np.inf
    axes = numpy_helper.to_array(constants[given]).tolist() if given else range(len(shape))
    sizes = [shape[axis] for axis in axes]
    return float(np.prod(sizes)) if all(sizes) else np.inf
