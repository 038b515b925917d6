"""Numbers that float16 cannot hold: norms that overflow, constants beyond its range, epsilons and scales that vanish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .rule import Found, rule
from .targets import Target
from .view import BFLOAT16, DOUBLE, FLOAT, FLOAT16, View, attribute, label, parts

if TYPE_CHECKING:
    import onnx

IEEE = "IEEE 754 binary16: largest 65504, smallest normal 6.1e-5, smallest 6e-8"
COARSE = 2.0**-17
"""A float16 scale below this is off by more than 1 in 256: it is a multiple of 2^-24, so off by up to 2^-25."""
LARGEST = 65504.0
_NORMS = "https://github.com/NVIDIA/TensorRT/issues/2564, 3101, 4355"
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_SUMS = ("ReduceMean", "ReduceSum")
_STASHING = ("LayerNormalization", "RMSNormalization", "GroupNormalization")
_SQUARES = (*_SUMS, *_STASHING, "ReduceSumSquare", "ReduceL2", "LpNormalization")


@rule("nan", "error", "no constant holds NaN", "IEEE 754", "constant")
def nan(view: View, target: Target, name: str, tensor: onnx.TensorProto) -> Iterator[Found]:
    if _scale(view, name):
        return
    if count := _count(tensor, "nan"):
        yield Found(name, f"{count} NaN in a constant of shape {list(tensor.dims)}", "train or export the model again")


@rule("infinity", "warning", "no float32 constant is infinite", "IEEE 754", "constant")
def infinity(view: View, target: Target, name: str, tensor: onnx.TensorProto) -> Iterator[Found]:
    readers = view.readers.get(name, ())
    if tensor.data_type == FLOAT16 or _scale(view, name) or (readers and all(reader.op_type == "Clip" for reader in readers)):
        return
    if count := _count(tensor, "inf"):
        yield Found(name, f"{count} infinite value(s): a softmax over nothing but masked values gives NaN", "mask with -1e4, which float16 holds too")


@rule("half-range", "error", "constants fit into float16 where the graph computes in it", IEEE, "graph")
def half_range(view: View, target: Target) -> Iterator[Found]:
    fix = f"keep it within {LARGEST:g}, or keep what reads it in float32"
    for name, tensor in view.constants.items():
        readers = view.readers.get(name, ())
        if tensor.data_type == FLOAT16 and not _scale(view, name):
            if count := _count(tensor, "inf"):
                yield Found(name, f"{count} infinite value(s) in float16", fix)
        elif tensor.data_type in (FLOAT, DOUBLE):
            for reader in readers:
                value = view.value(name) if reader.op_type == "Cast" and attribute(reader, "to") == FLOAT16 else None
                if value is not None and (np.abs(value[np.isfinite(value)]) > LARGEST).any():
                    yield Found(label(reader), f"{name!r} holds {float(np.abs(value).max()):g}, cast to float16", fix)


@rule("half-norm", "error", "sums of squares are not computed in float16", _NORMS, operators=_SQUARES)
def half_norm(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    name = node.input[0]
    cast = view.made_by(name, "Cast")
    if cast is not None and node.op_type in _SUMS:
        name = cast.input[0]  # the squares themselves may be too large already
    if view.type(name) != FLOAT16 or view.built(name):
        return
    if node.op_type in _STASHING:
        stash = attribute(node, "stash_type", FLOAT)
        if stash not in (FLOAT, BFLOAT16):
            yield Found(label(node), f"stash_type {stash} computes mean and variance in float16", "set stash_type to 1")
    elif node.op_type not in _SUMS or _squares(view, name):
        fix = "cast to float32 before the squares and back behind the norm, or export the norm as one node"
        yield Found(label(node), f"{node.op_type} of squares in float16 overflows once a value is above 256", fix)


def _squares(view: View, name: str) -> bool:
    maker = view.made_by(name, "Mul", "Pow")
    if maker is None or maker.op_type == "Mul":
        return maker is not None and maker.input[0] == maker.input[1]
    power = view.value(maker.input[1])
    return power is not None and bool((power == 2).all())


@rule("half-instance-norm", "warning", "InstanceNormalization is computed in float32", _NORMS, operators=("InstanceNormalization",))
def half_instance_norm(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if view.type(node.input[0]) == FLOAT16:
        count = np.prod([size for size in (view.shape(node.input[0]) or ())[2:] if isinstance(size, int)], dtype=np.int64)
        fact = f"in float16 over {count} values per channel; a release may sum them in float16"
        yield Found(label(node), fact, "cast to float32 before it and back behind it")


@rule("half-epsilon", "error", "what keeps a division from 0 is not 0 in float16", IEEE, operators=("Add", "Max", "Clip"))
def half_epsilon(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    limits = [name for name in (node.input[1:2] if node.op_type == "Clip" else node.input) if name and view.type(name) == FLOAT16]
    zero = next((name for name in limits if (value := view.value(name)) is not None and value.size == 1 and not value.any()), None)
    if zero is None:
        return
    for reader in view.readers.get(node.output[0], ()):
        roots = ("Sqrt", "Pow", "Reciprocal", "Log") if node.op_type == "Add" else ("Reciprocal", "Log")
        if reader.op_type in roots or (reader.op_type == "Div" and reader.input[1] == node.output[0]):
            fact = f"{zero!r} is 0 in float16 and keeps nothing from 0 before {reader.op_type} {label(reader)!r}"
            yield Found(label(node), fact, "use an epsilon of at least 1e-6, or keep this part in float32")
            return


@rule("half-scale", "warning", "float16 scales are large enough to be exact", IEEE, operators=_QDQ)
def half_scale(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    scale = view.value(node.input[1]) if view.type(node.input[1]) == FLOAT16 else None
    if scale is None:
        return
    small = scale[(scale > 0) & (scale < COARSE)].ravel()
    if small.size:
        off = 2.0**-25 / float(small.min())
        fact = f"{small.size} of {scale.size} scale(s) down to {float(small.min()):.2g}, rounded by up to {off:.1%}"
        yield Found(label(node), fact, "keep this pair and its data in float32, or scale its weights up where a norm follows")


def _scale(view: View, name: str) -> bool:
    """Whether a constant is nothing but a scale, which has rules of its own."""
    readers = view.readers.get(name, ())
    return bool(readers) and all(reader.op_type in _QDQ and reader.input[0] != name for reader in readers)


_BITS = {FLOAT16: (np.uint16, 0x7C00), FLOAT: (np.uint32, 0x7F800000)}


def _count(tensor: onnx.TensorProto, what: str) -> int:
    """Number of NaN or infinities in a float constant."""
    if tensor.data_type not in _BITS:
        return 0
    kind, exponent = _BITS[tensor.data_type]
    count = 0
    for part in parts(tensor):
        if ((part.view(kind) & exponent) == exponent).any():
            count += int((np.isnan(part) if what == "nan" else np.isinf(part)).sum())
    return count


RULES = (nan, infinity, half_range, half_norm, half_instance_norm, half_epsilon, half_scale)
