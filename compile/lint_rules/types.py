"""Element types, and their agreement where TensorRT takes a graph at its word (strong typing), and sizes that change at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .rule import LAYERS, STRONG, Found, rule, values
from .targets import CHANGELOG_MD, OPERATORS_MD, Target
from .view import BFLOAT16, BOOL, DEFAULT, DOUBLE, FLOAT, FLOAT16, FLOATS, INT8, INT32, INT64, UINT8, UNDEFINED, View, label

if TYPE_CHECKING:
    import onnx

NAMES = {
    FLOAT: "float32", UINT8: "uint8", INT8: "int8", 4: "uint16", 5: "int16", INT32: "int32", INT64: "int64", 8: "string", BOOL: "bool",
    FLOAT16: "float16", DOUBLE: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", BFLOAT16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
}  # fmt: skip
"""ONNX's element types as text."""
_TAKEN = (UNDEFINED, FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE, BFLOAT16, 17, 22, 23)
_QDQ = ("QuantizeLinear", "DequantizeLinear")


@rule("type", "error", "tensors have types that TensorRT has", f"{OPERATORS_MD}, data types")
def kind(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if node.op_type in _QDQ:
        return
    for name in (*node.output, *(name for name in node.input if name not in view.maker)):
        if view.type(name) not in _TAKEN:
            yield Found(label(node), f"{name!r} is {NAMES.get(view.type(name), view.type(name))}", "cast it to float32, float16, int32 or int64")


@rule("uint8-tensor", "error", "UINT8 is a type of network inputs and outputs only", f"{OPERATORS_MD}, note on UINT8")
def uint8_tensor(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    outputs = {value.name for value in view.outputs}
    for name in node.output:
        quantized = node.op_type in _QDQ or any(reader.op_type == "DequantizeLinear" for reader in view.readers.get(name, ()))
        if view.type(name) == UINT8 and not view.built(name) and not quantized and name not in outputs:
            yield Found(label(node), f"{name!r} inside the graph is uint8", "cast network inputs of uint8 to float as the first thing")


@rule("double", "warning", "there are no doubles", f"{OPERATORS_MD}, note on DOUBLE")
def double(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = [name for name in (*node.input, *node.output) if view.type(name) == DOUBLE]
    if found:
        yield Found(label(node), f"{found[0]!r} is double, which becomes float32 by clamping", "export it as float32")


@rule(
    "int64",
    "note",
    "nothing but shapes and indices is INT64",
    f"{CHANGELOG_MD}, 9.0",
    "graph",
)
def int64(view: View, target: Target) -> Iterator[Found]:
    for value in (*view.inputs, *view.outputs):
        if value.type.tensor_type.elem_type == INT64:
            yield Found(value.name, "a network input or output of int64, whose buffer has 8 bytes per value since TensorRT 9.0", "use int32")


@rule("mixed-types", "error", "inputs of one node have one float type: strong typing adds no casts", STRONG)
def mixed_types(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if node.domain not in DEFAULT or node.op_type in _QDQ:
        return
    groups: dict[str, dict[str, int]] = {}
    for bound, name in _bound_inputs(node, view.opset):
        if name and view.type(name) in FLOATS:
            groups.setdefault(bound, {})[name] = view.type(name)
    for found in groups.values():
        if len({*found.values()}) > 1:
            text = values(*(f"{name!r} {NAMES[kind]}" for name, kind in found.items()))
            yield Found(label(node), f"{node.op_type} reads {text}", "cast them to one type in the graph")


@rule("declared-type", "error", "outputs have the types that the file declares", STRONG, "graph")
def declared_type(view: View, target: Target) -> Iterator[Found]:
    for value in view.outputs:
        declared, made = value.type.tensor_type.elem_type, view.type(value.name)
        if UNDEFINED not in (declared, made) and declared != made:
            fact = f"declared {NAMES.get(declared, declared)}, and its node makes {NAMES.get(made, made)}"
            yield Found(value.name, fact, "add a Cast before the output")


@rule("dynamic-axis", "warning", "only the batch changes its size", f"{LAYERS}, IOptimizationProfile", "graph")
def dynamic_axis(view: View, target: Target) -> Iterator[Found]:
    for value in view.inputs:
        free = [f"axis {axis} ({size})" for axis, size in enumerate(view.shape(value.name) or ()) if axis and not isinstance(size, int)]
        if free:
            yield Found(value.name, f"{values(*free)} may change, which needs a profile per size and slower kernels", "export it with a fixed size")


def _bound_inputs(node: onnx.NodeProto, opset: int) -> Iterator[tuple[str, str]]:
    """(what the schema binds together, tensor) of each input. Elementwise operators of TensorRT also want one type where ONNX allows two."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return
    for index, name in enumerate(node.input):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        yield "T" if node.op_type == "Pow" else formal.type_str, name


RULES = (kind, uint8_tensor, double, int64, mixed_types, declared_type, dynamic_axis)
