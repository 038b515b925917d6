"""ModelOpt as an emitter: the same nodes as ours with the same scales, in a process of its own, and what it must not do is refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from sage_edge.calibration.ranges import collect
from sage_edge.compile import modelopt, quantize_trt
from sage_edge.compile.compare import compare
from sage_edge.compile.groups import FLOAT, weighted
from sage_edge.runtime.errors import CompileError

needs_modelopt = pytest.mark.skipif(importlib.util.find_spec("modelopt") is None, reason="needs the extra [modelopt]")


@pytest.fixture(scope="module")
def path(bundle_path: Path) -> Path:
    return bundle_path / "onnx" / "visual.fp32.onnx"


@pytest.fixture(scope="module")
def feed() -> dict[str, np.ndarray]:
    return {"faces": np.random.default_rng(0).normal(size=(4, 3, 40, 40)).astype(np.float32)}


@pytest.fixture(scope="module")
def ranges(path: Path, feed) -> dict[str, tuple[float, float]]:
    return dict(collect(path, lambda: iter([feed]), quantize_trt.tensors(onnx.load(path)), "minmax"))


@pytest.fixture(scope="module")
def ours(path: Path, ranges) -> onnx.ModelProto:
    return quantize_trt.emit(path, ranges)


def spared(source: onnx.ModelProto) -> set[str]:
    """Convolutions of few channels, as this small model has some: ModelOpt leaves them in float."""
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    return {node.name for node in weighted(source) if min(numpy_helper.to_array(weights[node.input[1]]).shape[:2]) < 16}


@needs_modelopt
def test_it_quantizes_what_we_quantize_with_the_scales_of_our_ranges(path: Path, ranges, ours) -> None:
    theirs = modelopt.emit(path, ranges)
    assert "modelopt" not in sys.modules, "it patches ONNX Runtime's quantizer, elsewhere"
    rows = {row.node: row for row in compare(ours, theirs)}
    assert rows
    assert {name for name, row in rows.items() if not row.same} <= spared(onnx.load(path))
    np.testing.assert_allclose([ratio for row in rows.values() for ratio in row.ratios], 1, rtol=2e-3)
    assert all(ratio == 1 for row in rows.values() for ratio in row.ratios[:1] if row.op == "Conv"), "activations have our scales"
    properties = {prop.key: prop.value for prop in theirs.metadata_props}
    assert (properties["precision"], properties["emitter"], properties["graph"]) == ("int8-trt", "modelopt", "visual")


@needs_modelopt
@pytest.mark.slow
def test_calibrated_by_itself_it_finds_our_scales_too(path: Path, feed, ours) -> None:
    rows = {row.node: row for row in compare(ours, modelopt.emit(path, {}, feeds=[feed]))}
    others = {name for name, row in rows.items() if not row.same}
    assert others - spared(onnx.load(path)) == {"maxpool/max_pool2d"}, "it hands pools int8"
    np.testing.assert_allclose([ratio for row in rows.values() for ratio in row.ratios], 1, rtol=2e-3)


@needs_modelopt
@pytest.mark.slow
def test_what_it_says_of_a_failure_is_one_line(path: Path) -> None:
    with pytest.raises(CompileError, match=r"^ModelOpt cannot quantize graph visual\.fp32 \(.+\)") as error:
        modelopt.emit(path, {}, feeds=[{"samples": np.zeros((1, 3), np.float32)}])
    assert "\n" not in str(error.value)


@needs_modelopt
@pytest.mark.slow
def test_the_benchmark_puts_both_emitters_side_by_side(bundle_path: Path) -> None:
    command = [sys.executable, "benchmarks/emitters.py", str(bundle_path), "--graph", "visual", "--json"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert {"machine", "versions", "command"} <= found.keys()
    assert list(found["graphs"]) == ["visual"]
    assert min(value for noise in found["graphs"]["visual"]["sqnr_db"].values() for value in noise.values()) > 20


def test_without_the_extra_it_says_what_to_install(path: Path, feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(CompileError, match=r"pip install 'sage-edge\[modelopt\]'"):
        modelopt.emit(path, {}, feeds=[feed])


@needs_modelopt
def test_without_feeds_nothing_is_started(path: Path) -> None:
    with pytest.raises(CompileError, match="no calibration feed for graph visual"):
        modelopt.emit(path, {}, feeds=[])


def spoil_zero_point(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("_zero_point"))
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.uint8), tensor.name))


def spoil_scale(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("_scale"))
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float16), tensor.name))


def spoil_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def spoil_types(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Cast").attribute[0].i = TensorProto.INT64


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (spoil_zero_point, "zero point that is not int8 and 0"),
        (spoil_scale, "scale that is not above 0"),
        (spoil_output, "changed inputs or outputs of graph visual"),
        (spoil_types, "do not fit together"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(path: Path, ours, spoil, match: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(ours)
    modelopt._checked(model, onnx.load(path), (), FLOAT)
    spoil(model)
    with pytest.raises(CompileError, match=match):
        modelopt._checked(model, onnx.load(path), (), FLOAT)


def test_a_float_node_that_was_quantized_is_named(path: Path, ours) -> None:
    first = next(node.name for node in weighted(onnx.load(path)) if node.name in quantize_trt.selection(onnx.load(path)))
    with pytest.raises(CompileError, match=f"quantized {first} of graph visual"):
        modelopt._checked(ours, onnx.load(path), {first}, FLOAT)
