"""Channel equalisation: where it may be done, that it changes no bit of the float graph, that it is done where it pays and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sage_edge.calibration import equalise
from sage_edge.calibration.ranges import collect
from sage_edge.compile import quantize_cpu
from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

WIDTH = 16
onnxruntime = ort.load()
Weights = dict[str, NDArray]


def build(path: Path, nodes: list, shape: list, weights: Weights, outputs: list[str]) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [x], outs, [numpy_helper.from_array(value, name) for name, value in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def norm_graph(path: Path, wide: float = 1.0, extra: list | None = None, outputs: list[str] | None = None) -> Path:
    """x [n, 8, WIDTH] -> LayerNormalization whose channel 3 is `wide` times as wide -> two matrices."""
    rng = np.random.default_rng(0)
    scale = np.ones(WIDTH, np.float32)
    scale[3] = wide
    weights = {"g": scale, "b": rng.normal(size=WIDTH).astype(np.float32) * 0.1 * scale}
    weights |= {name: (rng.normal(size=(WIDTH, 12)) / scale[:, None] ** 0.5).astype(np.float32) for name in ("q", "k")}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], name="norm"),
        helper.make_node("MatMul", ["y", "q"], ["yq"], name="q_proj"),
        helper.make_node("MatMul", ["y", "k"], ["yk"], name="k_proj"),
        *(extra or []),
    ]
    return build(path, nodes, ["n", 8, WIDTH], weights, outputs or ["yq", "yk"])


def conv_graph(path: Path, act: str = "Relu", wide: float = 1.0, group: int = 1, extra: list | None = None, outputs: list[str] | None = None) -> Path:
    """x [n, 4, 9, 9] -> Conv to WIDTH channels, of which channel 5 is `wide` times as wide -> `act` -> Conv -> z."""
    rng = np.random.default_rng(1)
    scale = np.ones(WIDTH, np.float32)
    scale[5] = wide
    weights = {
        "w1": (rng.normal(size=(WIDTH, 4, 3, 3)) * scale[:, None, None, None]).astype(np.float32),
        "b1": (rng.normal(size=WIDTH) * scale).astype(np.float32),
        "w2": (rng.normal(size=(8, WIDTH // group, 3, 3)) / scale[None, : WIDTH // group, None, None] ** 0.5).astype(np.float32),
        "b2": rng.normal(size=8).astype(np.float32),
    }
    attributes = {"alpha": 0.1} if act == "LeakyRelu" else {}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv1"),
        helper.make_node(act, ["c"], ["a"], name="act", **attributes),
        helper.make_node("Conv", ["a", "w2", "b2"], ["z"], name="conv2", group=group),
        *(extra or []),
    ]
    return build(path, nodes, ["n", 4, 9, 9], weights, outputs or ["z"])


def feeds(shape: tuple[int, ...], count: int = 6, seed: int = 0) -> Callable[[], list[dict[str, NDArray]]]:
    rng = np.random.default_rng(seed)
    kept = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]
    return lambda: kept


def emit(path: Path, ranges: dict[str, tuple[float, float]]) -> onnx.ModelProto:
    return quantize_cpu.emit(path, ranges, ())


def run(model: Path | onnx.ModelProto, feed: dict[str, NDArray]) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feed)


def sqnr(graph: Path, folded: Path, given: Callable[[], list[dict[str, NDArray]]], seed_feed: dict[str, NDArray]) -> float:
    tensors = quantize_cpu.tensors(onnx.load(folded), ())
    rounded, exact = run(emit(folded, collect(folded, given, tensors, "minmax")), seed_feed), run(graph, seed_feed)
    return float(min(10 * np.log10(np.square(a).sum() / np.square(a - b).sum()) for a, b in zip(exact, rounded, strict=True)))


CASES = {
    "norm": (lambda path, wide: norm_graph(path, wide), (4, 8, WIDTH), "y"),
    "relu": (lambda path, wide: conv_graph(path, "Relu", wide), (4, 4, 9, 9), "a"),
    "leaky": (lambda path, wide: conv_graph(path, "LeakyRelu", wide), (4, 4, 9, 9), "a"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wide_channel_is_evened_out_and_no_float_bit_changes(case: str, tmp_path: Path) -> None:
    make, shape, tensor = CASES[case]
    graph, given = make(tmp_path / "graph.onnx", 64.0), feeds(shape)
    out = tmp_path / "out.onnx"
    quantized = quantize_cpu.tensors(onnx.load(graph), ())
    (gain,) = equalise.equalise(graph, given, out, quantized, emit)
    assert gain.place.tensor == tensor
    assert gain.alpha > 0
    assert gain.after_db > gain.before_db + 3
    wide = gain.exponents[5 if case != "norm" else 3]
    assert wide == gain.exponents.max() > 2
    fresh = feeds(shape, 1, seed=9)()[0]
    for before, after in zip(run(graph, fresh), run(out, fresh), strict=True):
        assert np.array_equal(before, after), "powers of two change exponents, no mantissa"
    assert sqnr(graph, out, given, fresh) > sqnr(graph, graph, given, fresh) + 3
    onnx.checker.check_model(onnx.load(out))


@pytest.mark.parametrize("case", CASES)
def test_even_channels_are_left_alone(case: str, tmp_path: Path) -> None:
    make, shape, _ = CASES[case]
    graph, out = make(tmp_path / "graph.onnx", 1.0), tmp_path / "out.onnx"
    gains = equalise.equalise(graph, feeds(shape), out, quantize_cpu.tensors(onnx.load(graph), ()), emit)
    assert [gain.alpha for gain in gains] == [0]
    assert [gain.exponents.any() for gain in gains] == [False]
    assert onnx.load(out) == onnx.load(graph)


def test_nothing_is_done_that_the_whole_graph_loses_by(tmp_path: Path) -> None:
    """An emitter that spoils what was equalised stands for a place whose gain another tensor pays for."""
    graph, out = norm_graph(tmp_path / "graph.onnx", 64.0), tmp_path / "out.onnx"

    def spoil(path: Path, ranges: dict[str, tuple[float, float]]) -> onnx.ModelProto:
        return emit(path, ranges if path == graph else {name: (low / 50, high / 50) for name, (low, high) in ranges.items()})

    gains = equalise.equalise(graph, feeds((4, 8, WIDTH)), out, ["y"], spoil)
    assert [gain.alpha for gain in gains] == [0]
    assert onnx.load(out) == onnx.load(graph)


def test_a_channel_that_is_narrow_by_chance_is_not_widened(tmp_path: Path) -> None:
    """Channel 5 is next to silent in every other feed: evened out by those, it would be cut off in the rest."""
    graph, out = conv_graph(tmp_path / "graph.onnx"), tmp_path / "out.onnx"
    model = onnx.load(graph)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = numpy_helper.to_array(values["w1"]).copy()
    weight[5] = 0
    weight[5, 0, 1, 1] = 1
    values["w1"].CopyFrom(numpy_helper.from_array(weight, "w1"))
    values["b1"].CopyFrom(numpy_helper.from_array(np.zeros(WIDTH, np.float32), "b1"))
    onnx.save(model, graph)
    kept = feeds((4, 4, 9, 9))()
    for feed in kept[::2]:
        feed["x"][:, 0] *= 1e-3
    (gain,) = equalise.equalise(graph, lambda: kept, out, ["a"], emit)
    assert gain.exponents[5] == 0


@pytest.mark.parametrize("count", [1, 5])
def test_few_feeds_are_too_few_to_tell(count: int, tmp_path: Path) -> None:
    graph, out = norm_graph(tmp_path / "graph.onnx", 64.0), tmp_path / "out.onnx"
    gains = equalise.equalise(graph, feeds((4, 8, WIDTH), count), out, ["y"], emit)
    assert not any(gain.alpha for gain in gains)
    assert onnx.load(out) == onnx.load(graph)


def test_a_gain_that_may_be_chance_is_none() -> None:
    assert equalise._pays(np.array([1, 1.2, 0.9, 1.1], np.float32))
    assert not equalise._pays(np.array([6, -4, 5, -3], np.float32))
    assert not equalise._pays(np.array([0.2, 0.2, 0.2, 0.2], np.float32))
    assert not equalise._pays(np.array([9, 9], np.float32))


def test_only_tensors_that_nothing_else_reads_are_places(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"

    def found(graph: Path) -> list[str]:
        return [place.tensor for place in equalise.candidates(onnx.load(graph))]

    assert found(norm_graph(path)) == ["y"]
    assert found(conv_graph(path)) == found(conv_graph(path, "LeakyRelu")) == ["a"]
    assert found(norm_graph(path, extra=[helper.make_node("Add", ["y", "x"], ["r"])], outputs=["yq", "yk", "r"])) == [], "a residual"
    assert found(norm_graph(path, outputs=["yq", "yk", "y"])) == [], "an output"
    assert found(norm_graph(path, extra=[helper.make_node("MatMul", ["x", "q"], ["r"])], outputs=["yq", "yk", "r"])) == [], "a shared weight"
    assert found(norm_graph(path, extra=[helper.make_node("MatMul", ["y", "x"], ["r"])], outputs=["yq", "yk", "r"])) == [], "no weight"
    assert found(norm_graph(path, extra=[helper.make_node("Mul", ["x", "g"], ["r"])], outputs=["yq", "yk", "r"])) == [], "a shared scale"
    assert found(conv_graph(path, "Gelu")) == found(conv_graph(path, "Tanh")) == [], "not homogeneous"
    assert found(conv_graph(path, group=2)) == [], "grouped"
    assert found(conv_graph(path, outputs=["z", "c"])) == found(conv_graph(path, outputs=["z", "a"])) == [], "an output"
    assert found(conv_graph(path, extra=[helper.make_node("Sigmoid", ["c"], ["r"])], outputs=["z", "r"])) == [], "read in front of the activation"


def test_factors_are_powers_of_two_about_zero_and_dead_channels_keep_theirs(tmp_path: Path) -> None:
    model = onnx.load(norm_graph(tmp_path / "graph.onnx", 64.0))
    (place,) = equalise.candidates(model)
    maxima = np.ones(WIDTH, np.float32)
    maxima[0], maxima[1], maxima[2] = 0, 1e30, 1e-30
    for alpha in equalise.ALPHAS:
        exponents = equalise.factors(model, place, maxima, alpha)
        assert exponents.dtype == np.int32
        assert exponents[0] == 0
        assert abs(np.median(exponents)) <= 1
        assert exponents.max() <= 8
        assert exponents.min() >= -8
    assert not equalise.factors(model, place, maxima, 0.0).any()
    assert not equalise.factors(model, place, np.zeros(WIDTH, np.float32), 1.0).any()


def test_kept_factors_give_the_same_graph_again(tmp_path: Path) -> None:
    graph, out = norm_graph(tmp_path / "graph.onnx", 64.0), tmp_path / "out.onnx"
    gains = equalise.equalise(graph, feeds((4, 8, WIDTH)), out, ["y"], emit)
    model = onnx.load(graph)
    assert equalise.apply(model, {gain.place.tensor: gain.exponents.tolist() for gain in gains}) == ["y"]
    assert model == onnx.load(out)
    for wrong in ({"nowhere": [1] * WIDTH}, {"y": [1] * (WIDTH - 1)}):
        with pytest.raises(CompileError, match="belong to another export"):
            equalise.apply(onnx.load(graph), wrong)


def test_a_graph_without_places_is_copied(tmp_path: Path) -> None:
    graph, out = conv_graph(tmp_path / "graph.onnx", "Tanh"), tmp_path / "out.onnx"
    assert equalise.equalise(graph, feeds((4, 4, 9, 9)), out, ["a"], emit) == []
    assert onnx.load(out) == onnx.load(graph)
