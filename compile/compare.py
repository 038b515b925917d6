"""Two quantized files of one graph, node by node: which inputs each of them quantizes, with which scales.

Made for our `int8-trt` beside ModelOpt's. Nodes are matched by name, so both files come from one float graph.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from .groups import graph_name, group_of

_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Row:
    """One node that reads int8 in at least one of the two files."""

    node: str
    op: str
    group: str
    inputs: tuple[tuple[int, ...], tuple[int, ...]]
    """Numbers of the quantized inputs, in the first file and in the second."""
    ratios: tuple[float, ...]
    """First scale over second, for each input that both quantize; of a weight the channel that differs most."""

    @property
    def same(self) -> bool:
        """Both quantize the same inputs."""
        return self.inputs[0] == self.inputs[1]


def compare(first: onnx.ModelProto, second: onnx.ModelProto) -> list[Row]:
    """A row for each node that either of the two quantizes, in the first one's order; what it lacks comes last."""
    graph, both = graph_name(first) or graph_name(second), [_scales(model) for model in (first, second)]
    ops = {node.name: node.op_type for model in (second, first) for node in model.graph.node}
    rows = []
    for name in dict.fromkeys(name for scales in both for name in scales):
        one, other = (scales.get(name, {}) for scales in both)
        ratios = tuple(_ratio(one[i], other[i]) for i in sorted(one.keys() & other.keys()))
        rows.append(Row(name, ops[name], group_of(graph, name), (tuple(sorted(one)), tuple(sorted(other))), ratios))
    return rows


def summary(first: onnx.ModelProto, second: onnx.ModelProto) -> dict[str, Any]:
    """The rows in figures: nodes by operator and by who quantizes them, spread of the scales, pairs of Q and DQ and casts in each file."""
    rows = compare(first, second)
    ratios = np.array([ratio for row in rows for ratio in row.ratios] or [np.nan])
    where = {True: "same", False: "different"}
    return {
        "nodes": dict(
            Counter(f"{row.op}: {where[row.same] if all(row.inputs) else ('second only', 'first only')[bool(row.inputs[0])]}" for row in rows)
        ),
        "scale_ratio": {"min": float(ratios.min()), "median": float(np.median(ratios)), "max": float(ratios.max())},
        "quantizers": [sum(node.op_type == _QDQ[0] for node in model.graph.node) for model in (first, second)],
        "casts": [sum(node.op_type == "Cast" for node in model.graph.node) for model in (first, second)],
    }


def _scales(model: onnx.ModelProto) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Node -> number of each input that comes out of a DequantizeLinear -> its scale."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    behind = {node.output[0]: numpy_helper.to_array(values[node.input[1]]).astype(np.float64) for node in model.graph.node if node.op_type == _QDQ[1]}
    found = {}
    for node in model.graph.node:
        if node.op_type not in _QDQ and (mine := {i: behind[name] for i, name in enumerate(node.input) if name in behind}):
            found[node.name] = mine
    return found


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if one.size != other.size and 1 not in (one.size, other.size):
        return float("nan")
    ratios = np.atleast_1d(one / other).ravel()
    return float(ratios[np.argmax(np.abs(np.log(ratios)))])
