"""Operators, opset, inputs that have to be constant, attributes and outputs that the parser takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .rule import Found, rule, values
from .targets import (
    ATTRIBUTES,
    CHANGELOG_MD,
    CONSTANT_INPUTS,
    CONSTANT_UNTIL,
    INTEGER_OPERATORS,
    MIN_OPSET,
    ONE_OUTPUT,
    ONES,
    OPERATORS_MD,
    SINCE,
    Target,
)
from .view import DEFAULT, View, attribute, label

if TYPE_CHECKING:
    import onnx


@rule("opset", "error", "the opset is one that the parser reads", f"{OPERATORS_MD}, first lines; {CHANGELOG_MD}", "graph")
def opset(view: View, target: Target) -> Iterator[Found]:
    if not MIN_OPSET <= view.opset <= target.max_opset:
        yield Found(
            "graph",
            f"opset {view.opset}, and {target.name} reads {MIN_OPSET} to {target.max_opset} ({target.opset_source})",
            "export with opset 20, which every target reads",
        )


@rule("domain", "error", "every operator is of ONNX itself", OPERATORS_MD)
def domain(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    functions = {(function.domain, function.name) for function in view.model.functions}
    if node.domain not in DEFAULT and (node.domain, node.op_type) not in functions:
        yield Found(label(node), f"{node.domain}::{node.op_type} is no ONNX operator", "export without it, or build with a plugin of that name")


@rule("integer-operator", "error", "8 bits are written as QuantizeLinear and DequantizeLinear around float operators", OPERATORS_MD)
def integer_operator(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if node.domain in DEFAULT and node.op_type in INTEGER_OPERATORS:
        yield Found(label(node), f"{node.op_type} is in no release of TensorRT", "write Q/DQ pairs with constant scales (int8-trt)")


@rule("operator", "error", "the parser of this release has every operator", f"{OPERATORS_MD}; {CHANGELOG_MD}")
def operator(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    if node.domain in DEFAULT and node.op_type not in INTEGER_OPERATORS and not target.has(node.op_type):
        since = SINCE.get(node.op_type)
        fix = f"write it with other operators, or build with {since[0]}.{since[1]} or newer" if since else "write it with other operators"
        yield Found(label(node), f"{node.op_type} is not supported by TensorRT {values(*target.version)}".replace(", ", "."), fix)


@rule(
    "constant-input",
    "error",
    "axes and the like are known when the engine is built",
    f"{OPERATORS_MD}, Restrictions; {CHANGELOG_MD}",
    operators=tuple(CONSTANT_INPUTS),
)
def constant_input(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    index, name = CONSTANT_INPUTS[node.op_type]
    tensor = view.reads(node, index)
    if tensor and not view.built(tensor) and target.version < CONSTANT_UNTIL.get(node.op_type, (99, 0)):
        yield Found(label(node), f"{name} of {node.op_type} is {tensor!r}, computed at run time", "make it a constant")


@rule("first-output", "error", "operators with several outputs give only the first", f"{OPERATORS_MD}, Restrictions", operators=tuple(ONE_OUTPUT))
def first_output(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    more = [name for name in node.output[1:] if name]
    if more:
        yield Found(label(node), f"{node.op_type} gives {values(*more)} too; supported is {ONE_OUTPUT[node.op_type]}", "drop the other outputs")


@rule(
    "attribute",
    "error",
    "attributes have values that the parser takes",
    f"{OPERATORS_MD}, Restrictions",
    operators=tuple({operator for operator, _ in ATTRIBUTES}),
)
def attribute_value(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    for (op_type, name), allowed in ATTRIBUTES.items():
        value = attribute(node, name) if op_type == node.op_type else None
        if value is None or (set(value) == {1} if allowed is ONES else value in allowed):
            continue
        yield Found(label(node), f"{name} of {op_type} is {value}", f"only {values(*allowed)} {'is' if len(allowed) == 1 else 'are'} supported")


@rule("pool-rank", "warning", "pooling has two or three spatial dimensions", f"{OPERATORS_MD}, Restrictions", operators=("AveragePool", "MaxPool"))
def pool_rank(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    kernel = attribute(node, "kernel_shape", ())
    if len(kernel) not in (2, 3):
        yield Found(
            label(node), f"{node.op_type} over {len(kernel)} dimension(s); documented are 2 and 3", "pool over [1, K] of an unsqueezed tensor"
        )


@rule("subgraph", "warning", "there is no control flow", f"{OPERATORS_MD}, If, Loop, Scan", operators=("If", "Loop", "Scan"))
def subgraph(view: View, target: Target, node: onnx.NodeProto) -> Iterator[Found]:
    yield Found(label(node), f"{node.op_type} holds a graph that is not looked into, and stops fusion at its border", "export without control flow")


RULES = (opset, domain, integer_operator, operator, constant_input, first_output, attribute_value, pool_rank, subgraph)
