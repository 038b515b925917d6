"""The int8-trt emitter: TensorRT's rules for Q/DQ hold in every graph, types fit together, and what it computes is close to float."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sage_edge.calibration.ranges import collect
from sage_edge.compile import quantize_trt
from sage_edge.compile.groups import FLOAT, group_of, groups, weighted
from sage_edge.compile.half import SMALLEST
from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

GRAPHS = ("visual", "audio", "fusion")
Q, DQ = "QuantizeLinear", "DequantizeLinear"


@pytest.fixture(scope="module")
def paths(bundle_path: Path) -> dict[str, Path]:
    return {name: bundle_path / "onnx" / f"{name}.fp32.onnx" for name in GRAPHS}


@pytest.fixture(scope="module")
def floats(paths) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def ranges(model, paths, floats) -> dict[str, dict[str, tuple[float, float]]]:
    def feeds(name: str):
        return lambda: iter([feed_of(model, name, seed) for seed in range(3)])

    return {name: dict(collect(path, feeds(name), quantize_trt.tensors(floats[name]), "minmax")) for name, path in paths.items()}


@pytest.fixture(scope="module")
def emitted(paths, ranges) -> dict[str, onnx.ModelProto]:
    return {name: quantize_trt.emit(path, ranges[name]) for name, path in paths.items()}


def feed_of(model, graph: str, seed: int) -> dict[str, np.ndarray]:
    rng, p = np.random.default_rng(seed), model.preset
    if graph == "visual":
        return {"faces": rng.normal(size=(8, 3, 40, 40)).astype(np.float32)}
    if graph == "audio":
        return {"samples": (0.1 * rng.normal(size=(1, p.samples))).astype(np.float32)}
    visual, audio = np.abs(rng.normal(size=(1, p.window, p.visual_dim))), rng.normal(size=(1, p.window, p.audio_dim))
    masks = (rng.random((2, 1, p.window)) < 0.8).astype(np.float32)
    return {"visual": visual.astype(np.float32), "audio": audio.astype(np.float32), "visual_mask": masks[0], "audio_mask": masks[1]}


def session(model: onnx.ModelProto):
    """ONNX Runtime gives biases behind FP16 scales an int32 with a scale that underflows, unless it is told not to."""
    options = ort.load().SessionOptions()
    options.log_severity_level = 3
    return ort.load().InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )


def decibels(want: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(want).sum() / max(np.square(want - got).sum(), 1e-30)))


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    return values | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("graph", GRAPHS)
def test_scales_are_normal_fp16_and_zero_points_int8_zero(emitted, graph: str) -> None:
    values, pairs = arrays(emitted[graph]), [node for node in emitted[graph].graph.node if node.op_type in (Q, DQ)]
    assert pairs
    for node in pairs:
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert scale.dtype == np.float16
        assert ((scale >= SMALLEST) & np.isfinite(scale)).all()
        assert (zero.dtype, zero.shape) == (np.int8, scale.shape)
        assert not zero.any()


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_type_is_written_down_and_fits(emitted, graph: str) -> None:
    model = emitted[graph]
    onnx.checker.check_model(model, full_check=True)
    kinds = types(model)
    for node in model.graph.node:
        assert all(name in kinds for name in [*node.input, *node.output] if name), node.name
        if node.op_type == Q:
            assert kinds[node.input[0]] == kinds[node.input[1]]
        elif node.op_type == DQ:
            assert kinds[node.output[0]] == kinds[node.input[1]]
        elif node.op_type != "Cast":
            assert len({kinds[name] for name in [*node.input, *node.output] if kinds.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)}) == 1
    assert {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]} == {TensorProto.FLOAT}
    assert model.opset_import[0].version == 20


@pytest.mark.parametrize("graph", GRAPHS)
def test_inputs_of_chosen_nodes_are_quantized_once_and_nothing_else_is(emitted, floats, graph: str) -> None:
    model, chosen = emitted[graph], quantize_trt.selection(floats[graph])
    source = {node.output[0]: node for node in model.graph.node}
    quantized = [node.input[0] for node in model.graph.node if node.op_type == Q]
    assert len(quantized) == len(set(quantized)), "one Q for each tensor"
    for node in model.graph.node:
        behind = [i for i, name in enumerate(node.input) if name in source and source[name].op_type == DQ]
        assert behind == sorted(chosen.get(node.name, [])), node.name
        if node.op_type in (Q, DQ, "Cast"):
            continue
        in_float = node in weighted(floats[graph]) and group_of(graph, node.name) in FLOAT
        assert not (in_float and behind)


@pytest.mark.parametrize("graph", GRAPHS)
def test_weights_stay_floating_point_in_front_of_their_q(emitted, floats, graph: str) -> None:
    model, before = emitted[graph], {node.name: node for node in floats[graph].graph.node}
    source, values, floating = {n.output[0]: n for n in model.graph.node}, arrays(model), arrays(floats[graph])
    seen = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or node.name not in quantize_trt.selection(floats[graph]):
            continue
        dequantize = source[node.input[1]]
        quantize = source[dequantize.input[0]]
        assert quantize.input[0] == before[node.name].input[1], "the weight keeps its name"
        weight, scale = values[quantize.input[0]], values[quantize.input[1]].astype(np.float32)
        axis = 0 if node.op_type == "Conv" else 1
        assert {attribute.i for end in (quantize, dequantize) for attribute in end.attribute if attribute.name == "axis"} == {axis}
        assert (weight.dtype, scale.shape) == (np.float16, (weight.shape[axis],))
        limit = np.abs(floating[quantize.input[0]]).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
        np.testing.assert_allclose(scale, np.maximum(limit / 127, SMALLEST), rtol=2**-10)
        assert all(name in values for name in node.input[2:]), "a bias is not quantized"
        seen += 1
    assert seen


def test_of_a_residual_add_the_skip_alone_is_quantized(emitted, floats) -> None:
    model = emitted["visual"]
    source = {node.output[0]: node for node in model.graph.node}
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(adds) == 4
    for add in adds:
        (main,) = [name for name in add.input if source[name].op_type == "Conv"]
        (skip,) = [name for name in add.input if name != main]
        assert source[skip].op_type == DQ
        maker = source[source[source[skip].input[0]].input[0]]
        assert maker.op_type == "Relu" or "downsample" in maker.name, maker.name
        assert "downsample" not in source[main].name
    others = [node.name for name in ("audio", "fusion") for node in floats[name].graph.node if node.op_type == "Add"]
    assert not any(name in quantize_trt.selection(floats[graph]) for graph in ("audio", "fusion") for name in others)


@pytest.mark.parametrize(("graph", "bound"), [("visual", 25), ("audio", 25), ("fusion", 20)])
def test_8_bits_keep_the_signal(model, paths, ranges, emitted, floats, graph: str, bound: float) -> None:
    feed = feed_of(model, graph, 9)
    want = session(floats[graph]).run(None, feed)
    twin = quantize_trt.emit(paths[graph], ranges[graph], half=False)
    assert TensorProto.FLOAT16 not in types(twin).values()
    for a, b, c in zip(want, session(emitted[graph]).run(None, feed), session(twin).run(None, feed), strict=True):
        assert min(decibels(a, b), decibels(a, c)) > bound
        assert abs(decibels(a, b) - decibels(a, c)) < 3 or min(decibels(a, b), decibels(a, c)) > 50, "FP16 costs next to nothing beside 8 bits"


@pytest.mark.parametrize("graph", GRAPHS)
def test_stripped_of_everything_the_graph_is_fp16(model, emitted, floats, graph: str) -> None:
    plain = quantize_trt.strip(emitted[graph], None)
    assert not {Q, DQ} & {node.op_type for node in plain.graph.node}
    assert not any(name.endswith(("_scale", "_zero_point")) for name in arrays(plain))
    feed = feed_of(model, graph, 9)
    for a, b in zip(session(floats[graph]).run(None, feed), session(plain).run(None, feed), strict=True):
        assert decibels(a, b) > 45
    assert {prop.key: prop.value for prop in plain.metadata_props}["float_groups"] == ",".join(sorted({*FLOAT, *groups(floats[graph])}))


def test_stripping_a_group_is_emitting_without_it(paths, ranges, emitted) -> None:
    some = {"audio.attention.0"}
    stripped = quantize_trt.strip(emitted["audio"], some)
    assert stripped == quantize_trt.emit(paths["audio"], ranges["audio"], (*FLOAT, *some))
    assert emitted["audio"] != stripped, "what was given is not changed"


@pytest.mark.parametrize(("graph", "bound"), [("visual", 25), ("audio", 25), ("fusion", 20)])
def test_in_float32_the_same_scales_quantize(model, paths, ranges, floats, emitted, graph: str, bound: float) -> None:
    wide = quantize_trt.single(emitted[graph])
    assert TensorProto.FLOAT16 not in types(wide).values()
    twin = quantize_trt.emit(paths[graph], ranges[graph], half=False)
    assert [node.op_type for node in wide.graph.node] == [node.op_type for node in twin.graph.node]
    both = arrays(wide), arrays(twin)
    assert all((both[0][name] == value).all() for name, value in both[1].items() if name.endswith(("_scale", "_zero_point")))
    feed = feed_of(model, graph, 9)
    for a, b in zip(session(floats[graph]).run(None, feed), session(wide).run(None, feed), strict=True):
        assert decibels(a, b) > bound


def test_stripping_needs_neither_onnx_runtime_nor_torch(emitted, tmp_path: Path) -> None:
    onnx.save(emitted["visual"], tmp_path / "visual.onnx")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnxruntime', 'cv2')))\n"
        "import onnx; from sage_edge.compile.quantize_trt import strip\n"
        "print(*{n.op_type for n in strip(onnx.load(sys.argv[1]), None).graph.node})"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "visual.onnx"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == {"Cast", "Conv", "Relu", "MaxPool", "Add", "ReduceMean"}


def product(op: str, weight: np.ndarray, path: Path, **attributes: int) -> onnx.ModelProto:
    """A graph with one node that multiplies x by `weight`."""
    shape = {"Conv": [1, weight.shape[1] * attributes.get("group", 1), 6], "MatMul": [5, weight.shape[0]]}.get(op, [5, 8])
    node = helper.make_node(op, ["x", "w"], ["y"], "conv1/node", **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", None))]
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weight.astype(np.float32), "w")]),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    model.ir_version = 10
    model.metadata_props.add(key="graph", value="visual")
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "axis"),
    [
        ("Conv", (4, 8, 3), {}, 0),
        ("Conv", (8, 4, 3), {"group": 2}, 0),
        ("MatMul", (8, 4), {}, 1),
        ("Gemm", (8, 4), {}, 1),
        ("Gemm", (4, 8), {"transB": 1}, 0),
    ],
)
def test_each_output_channel_has_its_scale(tmp_path: Path, op: str, shape: tuple[int, ...], attributes: dict[str, int], axis: int) -> None:
    rng = np.random.default_rng(0)
    size = [1] * len(shape)
    size[axis] = -1
    weight = rng.normal(size=shape) * 4.0 ** -np.arange(shape[axis]).reshape(size)
    model = product(op, weight, tmp_path / "g.onnx", **attributes)
    result = quantize_trt.emit(tmp_path / "g.onnx", {"x": (-3, 3)}, ())
    assert arrays(result)["w_scale"].shape == (shape[axis],)
    x = rng.uniform(-3, 3, [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]).astype(np.float32)
    want, reference = (ReferenceEvaluator(each).run(None, {"x": x})[0] for each in (model, result))
    assert decibels(want, reference) > 35
    assert decibels(want, session(result).run(None, {"x": x})[0]) > 35


@pytest.mark.parametrize(("channels", "group"), [((12, 3, 3), 2), ((6, 4, 3), 2), ((8, 1, 3), 8)])
def test_a_grouped_convolution_that_int8_kernels_lack_stays_float(tmp_path: Path, channels: tuple[int, ...], group: int) -> None:
    model = product("Conv", np.ones(channels), tmp_path / "g.onnx", group=group)
    assert quantize_trt.tensors(model, ()) == []
    assert Q not in {node.op_type for node in quantize_trt.emit(tmp_path / "g.onnx", {}, ()).graph.node}


@pytest.mark.parametrize("limit", [0.0, 1e-30, 1e-6, 60.0, 4e4, 1e30])
@pytest.mark.parametrize("magnitude", [0.0, 1e-12, 1e-3, 1.0, 1e6])
def test_no_range_and_no_weight_makes_a_scale_that_breaks(tmp_path: Path, limit: float, magnitude: float) -> None:
    product("MatMul", np.full((8, 4), magnitude), tmp_path / "g.onnx")
    result = quantize_trt.emit(tmp_path / "g.onnx", {"x": (-limit, limit)}, ())
    for name, value in arrays(result).items():
        if name.endswith("_scale"):
            smallest = SMALLEST if value.dtype == np.float16 else np.finfo(np.float32).tiny
            assert ((value >= smallest) & np.isfinite(value)).all()
            assert (value.dtype == np.float32) == (limit >= 4e4 or magnitude >= 1e6), "float32 where FP16 cannot reach"
    for x in (0.0, limit):
        got = session(result).run(None, {"x": np.full((5, 8), x, np.float32)})[0]
        assert np.isfinite(got).all() or x * magnitude * 8 > np.finfo(np.float32).max


@pytest.mark.parametrize("spoilt", [None, (-1.0, float("nan")), (-np.inf, 1.0), (1.0, -1.0)])
def test_a_range_that_cannot_be_used_is_named(paths, floats, spoilt) -> None:
    first, *rest = quantize_trt.tensors(floats["visual"])
    some = dict.fromkeys(rest, (-1.0, 1.0)) | ({first: spoilt} if spoilt else {})
    with pytest.raises(CompileError, match=f"{first!r} of graph visual"):
        quantize_trt.emit(paths["visual"], some)
