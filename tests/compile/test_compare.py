"""Two quantized files beside each other: what is equal is equal, and each difference is found where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sage_edge.compile import quantize_trt
from sage_edge.compile.compare import compare, summary
from sage_edge.compile.groups import FLOAT


@pytest.fixture(scope="module")
def emitted(bundle_path: Path) -> onnx.ModelProto:
    path = bundle_path / "onnx" / "visual.fp32.onnx"
    return quantize_trt.emit(path, dict.fromkeys(quantize_trt.tensors(onnx.load(path)), (-1.0, 3.0)))


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    return other


def test_a_file_is_like_itself_whatever_its_names(emitted) -> None:
    other = copy(emitted)
    for node in other.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = f"other/{node.name}"
    rows = compare(emitted, other)
    assert {row.node: list(row.inputs[0]) for row in rows} == quantize_trt.selection(emitted_source(emitted))
    assert all(row.same and set(row.ratios) == {1.0} for row in rows)
    assert all(row.group.startswith("visual.layer") for row in rows)


def emitted_source(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantize_trt.strip(model, None)


def test_what_one_of_them_leaves_in_float_is_listed(emitted) -> None:
    other = quantize_trt.strip(emitted, {"visual.layer2"})
    missing = [row for row in compare(emitted, other) if not row.same]
    assert {row.group for row in missing} == {"visual.layer2"}
    assert all(row.inputs[1] == () and row.ratios == () for row in missing)
    found = summary(emitted, other)
    assert found["nodes"]["Conv: first only"] == sum(row.op == "Conv" for row in missing)
    assert found["nodes"]["Add: first only"] == sum(row.op == "Add" for row in missing)
    assert found["quantizers"][0] > found["quantizers"][1]
    assert summary(other, emitted)["nodes"]["Conv: second only"] == found["nodes"]["Conv: first only"]


def test_a_scale_that_differs_is_found_at_its_node_and_channel(emitted) -> None:
    other = copy(emitted)
    node = next(node for node in other.graph.node if node.name in quantize_trt.selection(emitted_source(emitted), FLOAT) and node.op_type == "Conv")
    tensor = next(t for t in other.graph.initializer if t.name == next(n for n in other.graph.node if n.output[0] == node.input[1]).input[1])
    scale = numpy_helper.to_array(tensor).copy()
    scale[3] *= 2
    tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    spoilt = [row for row in compare(emitted, other) if any(abs(np.log(ratio)) > 0.01 for ratio in row.ratios)]
    assert [(row.node, row.ratios) for row in spoilt] == [(node.name, (1.0, 0.5))]
    assert summary(emitted, other)["scale_ratio"] == {"min": 0.5, "median": 1.0, "max": 1.0}


def test_files_that_share_nothing_are_told_apart(emitted) -> None:
    plain = emitted_source(emitted)
    assert compare(plain, plain) == []
    assert summary(plain, plain)["nodes"] == {}
