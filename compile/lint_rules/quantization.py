"""QuantizeLinear and DequantizeLinear: types, zero points, scales and axes that TensorRT's explicit quantization takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .rule import LAYERS, PARSER, QDQ, STRONG, Found, rule, values
from .targets import INTEGER_OPERATORS, OPERATORS_MD, Target
from .types import NAMES
from .view import FLOAT16, INT8, UINT8, UNDEFINED, View, attribute, label

if TYPE_CHECKING:
    import onnx

_BOTH = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
AXIS_OPSET = 13
"""From this opset on Q and DQ have an axis, 1 unless said otherwise."""
HALF_OPSET = 19
"""From this opset on Q and DQ have scales of float16 (ONNX, Changelog of QuantizeLinear)."""


def _type(view: View, node: onnx.NodeProto) -> int:
    """Type of the 8-bit side of a Q or DQ."""
    if node.op_type == "DequantizeLinear":
        return view.type(node.input[0])
    zero = view.reads(node, 2)
    return view.type(zero) if zero else int(attribute(node, "output_dtype", 0) or UINT8)


def _fixed(view: View, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
    name = view.reads(node, index)
    return view.value(name) if name else None


@rule(
    "uint8-quantization",
    "error",
    "Q and DQ are INT8, never UINT8",
    f"{PARSER}, QuantDequantLinearHelper, alike in 9.2, 10.1 and since 10.11",
    operators=_BOTH,
)
def uint8_quantization(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if _type(view, node) == UINT8:
        zero = view.reads(node, 2)
        why = f"zero point {zero!r} is uint8" if zero else "no zero point, which ONNX reads as uint8"
        yield Found(
            label(node),
            f"{why}: the parser takes a UINT8 zero point of 0 for INT8, saying so in a warning only, and values above 127 are cut off",
            "quantize to int8 with zero point 0 (int8-trt; int8-cpu graphs are not for TensorRT)",
        )


@rule("quantized-type", "error", "what Q makes and DQ reads is INT8", f"{LAYERS}, IQuantizeLayer, IDequantizeLayer", operators=_BOTH)
def quantized_type(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    kind = _type(view, node)
    if kind not in (INT8, UINT8, UNDEFINED):
        yield Found(label(node), f"{NAMES.get(kind, kind)} instead of int8 on its quantized side", "leave a bias in float; quantize the rest to int8")


@rule("zero-point", "error", "zero points are all 0: TensorRT is symmetric", f"{LAYERS}, IQuantizeLayer; {OPERATORS_MD}", operators=_BOTH)
def zero_point(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    zero = _fixed(view, node, 2)
    if zero is not None and zero.any():
        yield Found(label(node), f"zero point {values(*zero[zero != 0].ravel()[:3])}", "quantize symmetrically, with zero point 0")


@rule("scale-constant", "error", "scales and zero points are constants", f"{LAYERS}, IQuantizeLayer", operators=_BOTH)
def scale_constant(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    for index, what in ((1, "scale"), (2, "zero point")):
        name = view.reads(node, index)
        if name and not view.built(name):
            yield Found(label(node), f"{what} {name!r} is computed at run time", "quantize statically, with constants from a calibration")


@rule(
    "scale-value",
    "error",
    "scales are positive and finite",
    f"{PARSER}, QuantDequantLinearHelper: 'Scale coefficients must all be positive'",
    operators=_BOTH,
)
def scale_value(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    scale = _fixed(view, node, 1)
    if scale is None:
        return
    wrong = scale[~((scale > 0) & np.isfinite(scale))].ravel()
    if wrong.size:
        fact = f"{wrong.size} of {scale.size} scale(s) of type {scale.dtype} not positive and finite: {values(*map(float, wrong[:3]))}"
        yield Found(label(node), fact, "give a tensor that is always 0 a small positive range; a scale that underflows in float16 wants float32")


@rule(
    "scale-type",
    "error",
    "a scale has the type of the data: strong typing adds no casts",
    f"{PARSER}, QuantDequantLinearHelper; {STRONG}",
    operators=("QuantizeLinear",),
)
def scale_type(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    data, scale = view.type(node.input[0]), view.type(node.input[1])
    if UNDEFINED not in (data, scale) and data != scale:
        fact = f"scale is {NAMES.get(scale, scale)} and its data {NAMES.get(data, data)}"
        yield Found(label(node), fact, f"write the scale in the data's type (opset {HALF_OPSET} or newer), or cast the data")
    elif data == FLOAT16 and view.opset < HALF_OPSET:
        yield Found(label(node), f"float16 data and scale in opset {view.opset}", f"use opset {HALF_OPSET} or newer")


@rule("scale-pair", "warning", "DQ has the scale of its Q", QDQ, operators=("DequantizeLinear",))
def scale_pair(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    quantize = view.made_by(node.input[0], "QuantizeLinear")
    if quantize is None:
        return
    here, there = _fixed(view, node, 1), _fixed(view, quantize, 1)
    if here is None or there is None or node.input[1] == quantize.input[1]:
        return
    if here.dtype != there.dtype or not np.array_equal(here, there):
        fact = f"scale {values(*map(float, here.ravel()[:2]))} ({here.dtype}), and its Q has {values(*map(float, there.ravel()[:2]))} ({there.dtype})"
        yield Found(label(node), fact, "share one scale between Q and DQ")


@rule("scale-size", "error", "a scale is one number, or one per channel, and zero points are as many", f"{LAYERS}, IQuantizeLayer", operators=_BOTH)
def scale_size(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    scale, zero, shape = view.shape(node.input[1]), view.shape(view.reads(node, 2)), view.shape(node.input[0])
    if scale is None:
        return
    fix = "one scale per tensor, or a vector with one per channel of axis"
    size = scale[0] if scale else 1
    if len(scale) > 1:
        yield Found(label(node), f"scale of shape {list(scale)}", fix)
        return
    if zero is not None and (zero[0] if zero else 1) != size:
        yield Found(label(node), f"{size} scale(s) and zero point of shape {list(zero)}", fix)
    axis = _axis(node, shape)
    channels = None if axis is None or shape is None else shape[axis]
    if size != 1 and isinstance(channels, int) and channels != size:
        yield Found(label(node), f"{size} scales for {channels} channels of axis {axis}", fix)


@rule("axis-range", "error", "the axis of a Q or DQ is one of its data, of a scalar too", f"{PARSER}, convertAxis", operators=_BOTH)
def axis_range(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    shape, axis = view.shape(node.input[0]), int(attribute(node, "axis", 1))
    if shape is not None and view.opset >= AXIS_OPSET and not -len(shape) <= axis <= len(shape):
        fact = f"axis {axis}{' (the default)' * (attribute(node, 'axis') is None)} of {node.input[0]!r}, which has {len(shape)} dimensions"
        yield Found(label(node), fact, "leave scalars in float, or give it the shape [1]")


@rule("per-tensor", "error", "activations have one scale", QDQ, operators=("QuantizeLinear",))
def per_tensor(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    scale = view.shape(node.input[1])
    if scale is not None and len(scale) == 1 and scale[0] != 1 and not view.built(node.input[0]):
        yield Found(label(node), f"{scale[0]} scales for the activation {node.input[0]!r}", "quantize activations per tensor")


@rule("per-channel-axis", "error", "weights are quantized along their output channels", QDQ, operators=_WEIGHTED)
def per_channel_axis(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    for index in (0, 1):
        dequantize = view.made_by(view.reads(node, index), "DequantizeLinear")
        if dequantize is None or not view.built(dequantize.output[0]):
            continue
        shape, scale = view.shape(dequantize.input[0]), view.shape(dequantize.input[1])
        axis = _axis(dequantize, shape)
        if shape is None or not scale or scale[0] == 1 or axis is None:
            continue
        wanted = _output_axis(node, index, len(shape))
        if axis != wanted:
            fact = f"scales of weight {view.before(dequantize)!r} run along axis {axis}"
            yield Found(label(node), fact, f"a {node.op_type}{' with transB' * _transposed(node)} wants axis {wanted}")


@rule("int8-reader", "error", "an INT8 tensor is read by DequantizeLinear", f"{OPERATORS_MD}, note on quantized types")
def int8_reader(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if node.op_type in _BOTH or node.op_type in INTEGER_OPERATORS:
        return
    found = [name for name in node.input if view.type(name) == INT8]
    if found:
        yield Found(label(node), f"{node.op_type} reads {found[0]!r}, which is int8", "put a DequantizeLinear in between; TensorRT fuses it")


@rule("int8-weights", "warning", "weights are stored in float under Q", f"{OPERATORS_MD}, quantized types", operators=("DequantizeLinear",))
def int8_weights(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if not target.int8_weights and node.input[0] in view.constants and view.type(node.input[0]) == INT8:
        fact = f"{node.input[0]!r} is stored as int8; TensorRT 10 documents quantized types 'only through quantization from a floating-point type'"
        yield Found(label(node), fact, "store the weight in float16 or float32 under a QuantizeLinear")


@rule("equal-scales", "warning", "a tensor that is quantized twice has one scale", QDQ, operators=("QuantizeLinear",))
def equal_scales(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    twins = [other for other in view.readers.get(node.input[0], ()) if other.op_type == "QuantizeLinear" and other.input[0] == node.input[0]]
    if len(twins) < 2 or twins[0] is not node:
        return
    scales = [value for other in twins if (value := _fixed(view, other, 1)) is not None]
    if any(not np.array_equal(scale, scales[0]) for scale in scales[1:]):
        found = values(*(float(scale.ravel()[0]) for scale in scales))
        yield Found(
            label(node), f"{node.input[0]!r} is quantized {len(twins)} times, with scales {found}", "give them one scale: rewrites compare scales"
        )


def _axis(node: onnx.NodeProto, shape: tuple[int | str, ...] | None) -> int | None:
    """The axis along which a Q or DQ has several scales, counted from the front."""
    if not shape:
        return None
    axis = int(attribute(node, "axis", 1))
    axis += len(shape) if axis < 0 else 0
    return axis if 0 <= axis < len(shape) else None


def _transposed(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and bool(attribute(node, "transB", 0))


def _output_axis(node: onnx.NodeProto, index: int, rank: int) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        return int(node.op_type == "ConvTranspose")
    if node.op_type == "Gemm":
        return 0 if index == 0 or _transposed(node) else 1
    return rank - 1 if index == 1 else max(rank - 2, 0)


RULES = (
    uint8_quantization,
    quantized_type,
    zero_point,
    scale_constant,
    scale_value,
    scale_type,
    scale_pair,
    scale_size,
    axis_range,
    per_tensor,
    per_channel_axis,
    int8_reader,
    int8_weights,
    equal_scales,
)
