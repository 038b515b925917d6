"""Where Q/DQ pairs and weights stand: what lets TensorRT fuse them into INT8 kernels, and what splits a fusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .rule import LAYERS, PARSER, QDQ, Found, rule, values
from .targets import Target
from .view import MOVES, View, attribute, label

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_WEIGHTED = (*_CONVOLUTIONS, "Gemm", "MatMul")
_FLOAT_ONLY = ("Softmax", "LogSoftmax", "LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "Gelu", "Erf")
_THROUGH = (*MOVES, "QuantizeLinear", "DequantizeLinear")
INT8_GROUP = 4
"""Channels per group, in and out, are a multiple of this in INT8."""


def _int8(view: View, node: onnx.NodeProto) -> bool:
    """Whether data and weight of a weighted node come out of DQ."""
    return all(view.quantized(view.reads(node, index)) is not None for index in (0, 1))


@rule("constant-weights", "error", "weights are constants", f"{PARSER}, importConv and convMultiInput", operators=_WEIGHTED)
def constant_weights(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    given = name = view.reads(node, 1)
    while (maker := view.made_by(name, *_THROUGH)) is not None:
        name = maker.input[0]
    if name in view.constants:
        moved = view.origin(given)[1]
        if moved and node.op_type in _CONVOLUTIONS and view.quantized(given) is None:
            fact = f"weight of {node.op_type} is made by {moved[0].op_type} {label(moved[0])!r}, which the parser takes for a weight that changes"
            yield Found(label(node), fact, "store it as the convolution reads it (polygraphy surgeon sanitize --fold-constants)")
        return
    if node.op_type == "MatMul" and not view.built(name):
        return
    source = view.maker.get(name)
    how = "a network input" if source is None else f"computed by {source.op_type} {label(source)!r}"
    fix = "fold it before export (torch.nn.utils.parametrize.remove_parametrizations for weight norm)"
    yield Found(label(node), f"weight {name!r} of {node.op_type} is {how}, which no quantizer and no fusion sees as a weight", fix)


@rule("half-quantized", "warning", "both inputs of a product are quantized, or none", QDQ, operators=_WEIGHTED)
def half_quantized(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = [view.quantized(view.reads(node, index)) is not None for index in (0, 1)]
    if found[0] != found[1]:
        which, other = ("data", "weight") if found[0] else ("weight", "data")
        yield Found(label(node), f"{which} of {node.op_type} is quantized and its {other} is not: it is computed in float", "quantize both, or none")


@rule("apart", "warning", "DQ stands directly before the product that it feeds", QDQ, operators=_WEIGHTED)
def apart(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    name = view.reads(node, 1)
    between = view.origin(name)[1]
    if between and view.quantized(name) is not None and view.built(name):
        names = values(*(each.op_type for each in reversed(between)))
        fact = f"{names} between the weight's DequantizeLinear and {node.op_type}"
        yield Found(label(node), fact, "move the weight itself; a Gemm can take transB")


@rule(
    "conv1d",
    "warning",
    "quantized convolutions are two-dimensional",
    f"{PARSER}, importConv and convMultiInput, release 10.1",
    operators=_CONVOLUTIONS,
)
def conv1d(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    shape = view.shape(view.reads(node, 1))
    if shape is not None and len(shape) == 3 and _int8(view, node):
        fact = f"INT8 {node.op_type} with weights {list(shape)}: the parser unsqueezes them between DequantizeLinear and the convolution"
        yield Found(label(node), fact, "export it as a convolution with kernel [1, K]")


@rule("int8-groups", "error", "INT8 groups have a multiple of 4 channels", f"{LAYERS}, IConvolutionLayer.num_groups", operators=_CONVOLUTIONS)
def int8_groups(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if sizes := _groups(view, node):
        groups, inputs, outputs = sizes
        if inputs % INT8_GROUP or outputs % INT8_GROUP:
            fact = f"{groups} groups of {inputs} channels in and {outputs} out"
            yield Found(label(node), fact, f"leave it in float, or use groups of a multiple of {INT8_GROUP}")


@rule("int8-grouped", "note", "grouped convolutions stay in float", "https://github.com/NVIDIA/TensorRT/issues/4529 (open)", operators=_CONVOLUTIONS)
def int8_grouped(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    sizes = _groups(view, node)
    if sizes and not (sizes[1] % INT8_GROUP or sizes[2] % INT8_GROUP):
        fact = f"INT8 {node.op_type} of {sizes[0]} groups, reported to be split per group and slower than FP16"
        yield Found(label(node), fact, "leave it in float unless timing on the device says otherwise")


def _groups(view: View, node: onnx.NodeProto) -> tuple[int, int, int] | None:
    """(groups, channels in, channels out) per group of an INT8 convolution that has groups."""
    groups, shape = int(attribute(node, "group", 1)), view.shape(view.reads(node, 1))
    if groups == 1 or not _int8(view, node) or shape is None or not all(isinstance(size, int) for size in shape[:2]):
        return None
    first, second = int(shape[0]), int(shape[1])
    return (groups, second, first // groups) if node.op_type == "Conv" else (groups, first // groups, second)


def _convolved(view: View, name: str) -> bool:
    maker = view.made_by(name, *_CONVOLUTIONS)
    return maker is not None and _int8(view, maker)


@rule("residual-both", "warning", "an Add behind a convolution has Q/DQ on the skip input only", QDQ, operators=("Add",))
def residual_both(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = [view.made_by(name, "DequantizeLinear") for name in node.input]
    behind = [dequantize is not None and _convolved(view, view.before(dequantize)) for dequantize in found]
    if None not in found and any(behind):
        fact = f"{node.input[0]!r} and {node.input[1]!r} are both quantized, which splits the fusion of convolution and Add"
        yield Found(label(node), fact, f"take Q/DQ away from {node.input[behind.index(True)]!r}, the convolution's side")


@rule("residual-skip", "note", "the skip input of an INT8 convolution's Add and Relu is quantized", QDQ, operators=("Add",))
def residual_skip(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    convolved = [_convolved(view, name) for name in node.input]
    if sum(convolved) != 1 or [reader.op_type for reader in view.readers.get(node.output[0], ())] != ["Relu"]:
        return
    skip = node.input[1 - convolved.index(True)]
    if view.quantized(skip) is None and not view.built(skip):
        yield Found(label(node), f"skip input {skip!r} is in float, so convolution, Add and Relu give float", "put a Q/DQ pair on the skip input")


@rule("float-operator", "warning", "norms, softmax and GELU read float tensors", QDQ, operators=_FLOAT_ONLY)
def float_operator(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if view.made_by(node.input[0], "DequantizeLinear") is not None:
        fact = f"{node.op_type} reads a tensor that was rounded to 8 bits, and has no INT8 kernel that would gain from it"
        yield Found(label(node), fact, "take the Q/DQ pair away in front of it")


@rule("batch-norm", "warning", "batch norms are folded into their convolutions before these are quantized", QDQ, operators=("BatchNormalization",))
def batch_norm(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if _convolved(view, node.input[0]):
        fact = f"it follows the INT8 convolution that makes {node.input[0]!r}, whose scales per channel know nothing of it"
        yield Found(label(node), fact, "fold it into the weights, then quantize them")


@rule(
    "orin-dequantize",
    "note",
    "known to fail: DequantizeLinear with a float16 scale on Orin, 10.16",
    "https://github.com/NVIDIA/TensorRT/issues/4832 (open)",
    "graph",
)
def orin_dequantize(view: View, target: Target) -> Iterator[Found]:
    half = [node for node in view.nodes if node.op_type == "DequantizeLinear" and view.type(node.input[1]) == 10]
    if target.version == (10, 16) and half:
        fact = f"{len(half)} DequantizeLinear with float16 scales: 'Could not infer output types for operation: dequantize' was reported on SM 8.7"
        yield Found("graph", fact, "building falls back to the next rung if that happens; on Thor the same file builds")


RULES = (
    constant_weights,
    half_quantized,
    apart,
    conv1d,
    int8_groups,
    int8_grouped,
    residual_both,
    residual_skip,
    float_operator,
    batch_norm,
    orin_dequantize,
)
