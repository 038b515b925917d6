"""Attention that TensorRT fuses into one kernel: which head sizes and lengths, where the scale stands. Notes only: it runs either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rule import Found, rule
from .targets import Target
from .view import MOVES, View, label

if TYPE_CHECKING:
    import onnx

FUSED = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/transformers-fused-attention.html"
LIMITS = "developer guide of 10.x, MHA fusion, quoted in https://github.com/NVIDIA/TensorRT/issues/2981"
HALF_HEAD = range(16, 257, 8)
INT8_HEADS = (16, 32, 64)
INT8_TOKENS = 512
_BETWEEN = ("Add", "Sub", "Mul", "Div", "Where", "Cast", "Clip", "Identity", "Dropout")


@dataclass(frozen=True)
class _Attention:
    scores: onnx.NodeProto
    """The MatMul of queries and keys."""
    head: int | None
    """Size of one head; None when it is not known."""
    tokens: tuple[int, ...]
    """Known lengths of queries and keys."""
    scaled: onnx.NodeProto | None
    """What multiplies the scores by a constant."""
    int8: bool
    """Whether queries and keys are quantized."""
    int8_weights: bool
    """Whether the softmax is quantized on its way to the values."""


def _attention(view: View, softmax: onnx.NodeProto) -> _Attention | None:
    scores, scaled, name = None, None, softmax.input[0]
    for _ in range(8):
        node = view.made_by(name, "MatMul", *_BETWEEN)
        if node is None or node.op_type == "MatMul":
            scores = node
            break
        if node.op_type in ("Mul", "Div") and any(_number(view, each) for each in node.input):
            scaled = node
        # the score comes in by the first input that changes with both queries and keys: the one that a MatMul is behind
        name = next((each for each in node.input if _has_product(view, each)), node.input[0])
    if scores is None or any(view.built(each) for each in scores.input):
        return None
    readers, int8_weights = view.readers.get(softmax.output[0], []), False
    while len(readers) == 1 and readers[0].op_type in (*MOVES, "Dropout", "QuantizeLinear", "DequantizeLinear"):
        int8_weights |= readers[0].op_type == "DequantizeLinear"
        readers = view.readers.get(readers[0].output[0], [])
    if not any(reader.op_type == "MatMul" for reader in readers):
        return None
    left, out = view.shape(scores.input[0]) or (), view.shape(scores.output[0]) or ()
    head = left[-1] if left and isinstance(left[-1], int) else None
    tokens = tuple(size for size in out[-2:] if isinstance(size, int))
    int8 = all(view.quantized(each) is not None for each in scores.input)
    return _Attention(scores, head, tokens, scaled, int8, int8_weights)


def _number(view: View, name: str) -> bool:
    value = view.value(name)
    return value is not None and value.size == 1


def _has_product(view: View, name: str) -> bool:
    for _ in range(8):
        node = view.made_by(name, "MatMul", *_BETWEEN)
        if node is None:
            return False
        if node.op_type == "MatMul":
            return not any(view.built(each) for each in node.input)
        name = next((each for each in node.input if not view.built(each)), node.input[0])
    return False


@rule("attention-head", "note", "heads have a size that fuses: 16 to 256, a multiple of 8", LIMITS, operators=("Softmax",))
def attention_head(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = _attention(view, node)
    if found and found.head is not None and not found.int8 and found.head not in HALF_HEAD:
        fact = f"head size {found.head} of {label(found.scores)!r} is not fused into one kernel"
        yield Found(label(node), fact, "choose a head size of 16 to 256 that is a multiple of 8")


@rule("attention-int8", "note", "INT8 attention has heads of 16, 32 or 64 and at most 512 tokens", LIMITS, operators=("Softmax",))
def attention_int8(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = _attention(view, node)
    if found is None or not found.int8:
        return
    wrong = [f"head size {found.head}"] if found.head is not None and found.head not in INT8_HEADS else []
    wrong += [f"{max(found.tokens)} tokens"] if found.tokens and max(found.tokens) > INT8_TOKENS else []
    wrong += [] if found.int8_weights else ["no Q/DQ behind the softmax"]
    if wrong:
        yield Found(label(node), f"INT8 attention with {' and '.join(wrong)} is not fused", "leave both products of attention in float16")


@rule("attention-scale", "note", "queries or keys are scaled, not their product", FUSED, operators=("Softmax",))
def attention_scale(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    found = _attention(view, node)
    if found and found.scaled is not None:
        fact = f"{label(found.scaled)!r} scales the scores behind {label(found.scores)!r}"
        yield Found(label(node), fact, "scale the queries before the product, which also keeps float16 in range")


RULES = (attention_head, attention_int8, attention_scale)
