"""The int8-cpu emitter: what it quantizes and how, what it leaves alone, and that ONNX Runtime runs it in 8 bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sage_edge.calibration.ranges import collect
from sage_edge.compile import quantize_cpu
from sage_edge.compile.facts import quantized_share, weights_bytes
from sage_edge.compile.groups import FLOAT, check_groups, groups, weighted
from sage_edge.runtime import ort, ov
from sage_edge.runtime.errors import CompileError, UsageError

GRAPHS = ("visual", "audio", "fusion")
onnxruntime = ort.load()


@pytest.fixture(scope="module")
def floats(bundle_path: Path) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load(bundle_path / "onnx" / f"{name}.fp32.onnx") for name in GRAPHS}


@pytest.fixture(scope="module")
def quantized(bundle_path: Path) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load(bundle_path / "onnx" / f"{name}.int8-cpu.onnx") for name in GRAPHS}


def arrays(model: onnx.ModelProto) -> dict[str, NDArray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("graph", GRAPHS)
def test_activations_are_uint8_per_tensor(quantized, graph: str) -> None:
    values = arrays(quantized[graph])
    quantizers = [node for node in quantized[graph].graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    for node in quantizers:
        assert values[node.input[1]].shape == ()
        assert values[node.input[1]] > 0
        assert values[node.input[2]].dtype == np.uint8


@pytest.mark.parametrize("graph", GRAPHS)
def test_weights_are_int8_per_channel_and_no_float_copy_stays(quantized, floats, graph: str) -> None:
    values, before = arrays(quantized[graph]), arrays(floats[graph])
    makers = {node.output[0]: node for node in quantized[graph].graph.node}
    seen = 0
    for node in weighted(floats[graph]):
        if node.name not in quantize_cpu.selection(floats[graph]):
            continue
        dequantize = makers[next(n for n in quantized[graph].graph.node if n.name == node.name).input[1]]
        weight, scale, zero = (values[name] for name in dequantize.input)
        axis = next(attribute.i for attribute in dequantize.attribute if attribute.name == "axis")
        assert axis == (0 if node.op_type == "Conv" else 1)
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[axis],)
        assert not zero.any()
        assert node.input[1] not in values
        wide = [1] * weight.ndim
        wide[axis] = -1
        error = np.abs(weight * scale.reshape(wide) - before[node.input[1]])
        assert (error <= scale.reshape(wide) * 0.5001).all()
        seen += 1
    assert seen


def test_the_delicate_groups_stay_in_float(quantized, floats) -> None:
    found = {group: nodes for model in floats.values() for group, nodes in groups(model).items()}
    assert set(FLOAT) <= set(found), "every default group exists in the model"
    assert not [group for group in found if group.endswith(".other")], "every weighted node has a named group"
    for graph in GRAPHS:
        before, after = arrays(floats[graph]), arrays(quantized[graph])
        nodes = {node.name: node for node in quantized[graph].graph.node}
        for group, names in groups(floats[graph]).items():
            for name in names:
                weight = nodes[name].input[1]
                assert (weight in after and after[weight].dtype == np.float32) == (group in FLOAT), name
        norms = [node for node in quantized[graph].graph.node if "Normalization" in node.op_type or node.op_type == "Softmax"]
        assert all(name in before for node in norms for name in node.input[1:])


@pytest.mark.parametrize("graph", GRAPHS)
def test_float_nodes_read_float_tensors(quantized, floats, graph: str) -> None:
    model, chosen = quantized[graph], quantize_cpu.selection(floats[graph])
    source = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.name in chosen or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for name in node.input:
            if name in source and source[name].op_type == "DequantizeLinear":
                maker = source[source[source[name].input[0]].input[0]]
                assert maker.name in chosen, f"{node.name} reads a rounded copy of a float tensor"


@pytest.mark.parametrize("graph", GRAPHS)
def test_onnx_runtime_computes_in_8_bits_what_was_quantized(quantized, graph: str) -> None:
    ran = quantize_cpu.kernels(quantized[graph])
    assert quantize_cpu.unfused(quantized[graph], ran) == []
    assert ran["QLinearConv"] + ran["MatMulIntegerToFloat"] > 0
    if graph == "visual":
        assert ran["Conv"] == 1, "the stem"
        assert ran["Relu"] == ran["Add"] == 0
        assert ran["QuantizeLinear"] == ran["DequantizeLinear"] == 1, "behind the stem and in front of the average, nowhere else"


def test_unfused_work_is_named(floats, quantized) -> None:
    ran = quantize_cpu.kernels(quantized["visual"])
    ran["QLinearConv"] -= 2
    assert quantize_cpu.unfused(quantized["visual"], ran) == [f"2 of {len(weighted(floats['visual'])) - 1} Conv"]


def feed_of(model, graph: str, seed: int) -> dict[str, NDArray]:
    rng, p = np.random.default_rng(seed), model.preset
    if graph == "visual":
        return {"faces": rng.normal(size=(8, 3, 40, 40)).astype(np.float32)}
    if graph == "audio":
        return {"samples": (0.1 * rng.normal(size=(1, p.samples))).astype(np.float32)}
    visual, audio = np.abs(rng.normal(size=(1, p.window, p.visual_dim))), rng.normal(size=(1, p.window, p.audio_dim))
    masks = (rng.random((2, 1, p.window)) < 0.8).astype(np.float32)
    return {"visual": visual.astype(np.float32), "audio": audio.astype(np.float32), "visual_mask": masks[0], "audio_mask": masks[1]}


def run(model: onnx.ModelProto, feed: dict[str, NDArray]) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


@pytest.mark.parametrize(("graph", "decibels"), [("visual", 25), ("audio", 25), ("fusion", 20)])
def test_8_bits_keep_the_signal(model, bundle_path: Path, floats, tmp_path: Path, graph: str, decibels: float) -> None:
    path = bundle_path / "onnx" / f"{graph}.fp32.onnx"
    ranges = collect(path, lambda: iter([feed_of(model, graph, seed) for seed in range(3)]), quantize_cpu.tensors(floats[graph]), "minmax")
    emitted = quantize_cpu.emit(path, ranges)
    feed = feed_of(model, graph, 9)
    for a, b in zip(run(floats[graph], feed), run(emitted, feed), strict=True):
        sqnr = 10 * np.log10(np.square(a).sum() / np.square(a - b).sum())
        assert sqnr > decibels, f"{sqnr:.1f} dB"


@pytest.mark.parametrize("graph", GRAPHS)
def test_openvino_computes_in_8_bits_what_was_quantized(model, bundle_path: Path, floats, graph: str) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    chosen = {node.name for node in weighted(floats[graph])} & quantize_cpu.selection(floats[graph])
    path, feed = bundle_path / "onnx" / f"{graph}.fp32.onnx", feed_of(model, graph, 9)
    ranges = collect(path, lambda: iter([feed_of(model, graph, seed) for seed in range(3)]), quantize_cpu.tensors(floats[graph]), "minmax")
    network = ov.core().read_model(quantize_cpu.emit(path, ranges).SerializeToString())
    network.reshape({name: value.shape for name, value in feed.items()})
    compiled = ov.core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    ran = {}
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        for name in info["originalLayersNames"].astype(str).split(","):
            ran[name.removesuffix("/WithoutBiases")] = info["runtimePrecision"].astype(str)
    assert chosen
    assert {name: ran.get(name) for name in chosen} == dict.fromkeys(chosen, "u8")
    found = compiled(feed)
    for name, a in zip((output.name for output in floats[graph].graph.output), run(floats[graph], feed), strict=True):
        assert np.square(a).sum() > 10 ** (20 / 10) * np.square(a - found[name]).sum()


@pytest.mark.parametrize("graph", GRAPHS)
def test_weights_of_7_bits_leave_room_in_sums_of_16_bits(bundle_path: Path, floats, graph: str) -> None:
    ranges = dict.fromkeys(quantize_cpu.tensors(floats[graph]), (-1.0, 2.0))
    reduced, full = (quantize_cpu.emit(bundle_path / "onnx" / f"{graph}.fp32.onnx", ranges, reduce_range=flag) for flag in (True, False))
    small, large = arrays(reduced), arrays(full)
    weights = [name for name, value in large.items() if value.dtype == np.int8 and name.endswith("_quantized")]
    assert weights
    for name in weights:
        assert np.abs(large[name].astype(int)).max() == 127
        assert np.abs(small[name].astype(int)).max() <= 64  # 2 * 255 * 64 < 2**15
    activations = [name for name in large if name.endswith("_scale") and large[name].ndim == 0]
    assert all(large[name] == small[name] for name in activations), "activations keep 8 bits"
    assert quantize_cpu.unfused(reduced, quantize_cpu.kernels(reduced)) == []


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("value", [0.0, 1e-30, -3.0])
def test_constant_activations_give_finite_numbers(model, bundle_path: Path, floats, graph: str, value: float) -> None:
    constant = dict.fromkeys(quantize_cpu.tensors(floats[graph]), (value, value))
    emitted = quantize_cpu.emit(bundle_path / "onnx" / f"{graph}.fp32.onnx", constant)
    assert all((scale > 0).all() for name, scale in arrays(emitted).items() if name.endswith("_scale"))
    assert all(np.isfinite(output).all() for output in run(emitted, feed_of(model, graph, 1)))


def test_nothing_is_quantized_when_every_group_stays_in_float(model, bundle_path: Path, floats) -> None:
    emitted = quantize_cpu.emit(bundle_path / "onnx" / "fusion.fp32.onnx", {}, tuple(groups(floats["fusion"])))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in emitted.graph.node}
    feed = feed_of(model, "fusion", 1)
    for a, b in zip(run(floats["fusion"], feed), run(emitted, feed), strict=True):
        assert (a == b).all()


def test_a_group_more_in_float_is_exactly_that(bundle_path: Path, floats) -> None:
    default, more = (quantize_cpu.selection(floats["audio"], names) for names in (FLOAT, (*FLOAT, "audio.feed_forward.0")))
    assert default - more == set(groups(floats["audio"])["audio.feed_forward.0"])


@pytest.mark.parametrize("spoilt", [None, (-1.0, float("nan")), (1.0, -1.0)])
def test_a_range_that_cannot_be_used_is_named(bundle_path: Path, floats, spoilt) -> None:
    first, *rest = quantize_cpu.tensors(floats["visual"])
    ranges = dict.fromkeys(rest, (-1.0, 1.0)) | ({first: spoilt} if spoilt else {})
    with pytest.raises(CompileError, match=f"{first!r} of graph visual"):
        quantize_cpu.emit(bundle_path / "onnx" / "visual.fp32.onnx", ranges)


def test_unknown_groups_are_named() -> None:
    with pytest.raises(UsageError, match=r"no group 'audio\.ear'.*audio\.conv_stack"):
        check_groups(["audio.ear"], FLOAT)


def test_weights_are_counted_as_stored(quantized, floats) -> None:
    for graph in GRAPHS:
        assert quantized_share(floats[graph]) == 0
        assert 0.4 < quantized_share(quantized[graph]) <= 1
        types = {tensor.data_type for tensor in quantized[graph].graph.initializer if tensor.name.endswith("_quantized")}
        assert types <= {TensorProto.INT8, TensorProto.INT32}
    both = [sum(weights_bytes(models[graph]) for graph in GRAPHS) for models in (quantized, floats)]
    assert both[0] < 0.45 * both[1]
