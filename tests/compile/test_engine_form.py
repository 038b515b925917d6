"""The form that engines take best: no 1-D convolution, no reshaping between convolutions, norms folded; the function stays the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from sage_edge.compile import export
from sage_edge.compile.engine_form import engine_form
from sage_edge.compile.facts import CONSTANT, operators
from sage_edge.runtime import ort
from sage_edge.training import SAGE, presets

MICRO = {
    "window": 30,
    "resnet_width": 8,
    "wavlm_conv_dims": (8, 8, 8, 8, 8, 8, 16),
    "wavlm_dim": 16,
    "wavlm_layers": 1,
    "wavlm_heads": 2,
    "wavlm_ff": 32,
    "wavlm_pos_kernel": 8,
    "wavlm_pos_groups": 4,
    "tcn_visual": (16, 8),
    "tcn_audio": (8, 8),
    "fusion_dim": 16,
    "fusion_layers": 1,
    "fusion_heads": 2,
    "fusion_ff": 32,
    "head_dim": 8,
}
LARGE = {**MICRO, "wavlm_extractor": "layer", "wavlm_norm_first": True, "wavlm_normalize": True, "wavlm_pos_kernel": 7, "reliability": "temporal"}
"""The parts that only `large` has, a positional kernel that is odd, and the paper's reliability."""
SHAPE_ONLY = {"Squeeze", "Unsqueeze", "Reshape", "Transpose", "Cast", "Identity", "Flatten"}


def untrained(settings: dict[str, object]) -> SAGE:
    """A new model, many of whose weights are equal (zeros and ones), with statistics as if it had seen data."""
    torch.manual_seed(0)
    model = SAGE(presets.get("tiny", settings)).eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
    return model


@pytest.fixture(scope="module", params=["base", pytest.param("large", marks=[pytest.mark.slow, pytest.mark.nightly])])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SAGE, dict[str, onnx.ModelProto]]:
    """A model and its graphs; of `large` the audio graph, which is what differs."""
    folder = tmp_path_factory.mktemp("export")
    if request.param == "base":
        model = untrained(MICRO)
        return model, {name: onnx.load(path) for name, path in export.export(model, {"trained_on": {}}, folder).items()}
    model = untrained(LARGE)
    samples = {n: torch.randn((n, model.preset.samples)) for n in (1, 2, 3)}
    form = engine_form(model.folded()).audio
    export.export_graph(form, lambda n: {"samples": samples[n]}, ("audio",), folder / "audio.onnx", {"graph": "audio"}, model.audio)
    return model, {"audio": onnx.load(folder / "audio.onnx")}


def weights_of(graph: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.graph.initializer}


def test_every_convolution_is_two_dimensional_on_a_constant_weight(exported) -> None:
    _, graphs = exported
    for name, graph in graphs.items():
        weights = weights_of(graph)
        convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
        assert convolutions
        for node in convolutions:
            assert len(weights[node.input[1]].dims) == 4, node.name
            assert node.input[1].endswith(".weight"), node.name
            if name != "visual":
                assert weights[node.input[1]].dims[2] == 1, node.name


def test_nothing_changes_shape_between_two_convolutions(exported) -> None:
    model, graphs = exported
    made_by = {output: node for graph in graphs.values() for node in graph.graph.node for output in node.output}
    for graph in graphs.values():
        for node in graph.graph.node:
            if node.op_type != "Conv" or "pos_conv" in node.name:
                continue
            step, seen = made_by.get(node.input[0]), []
            while step is not None and step.op_type != "Conv" and step.op_type in {*SHAPE_ONLY, "Gelu", "LeakyRelu", "LayerNormalization"}:
                seen.append(step.op_type)
                step = made_by.get(step.input[0])
            # a layer norm works on the last axis: one transposition before it and one behind it
            allowed = {"Transpose"} if model.preset.wavlm_extractor == "layer" and "LayerNormalization" in seen else set()
            if step is not None and step.op_type == "Conv":
                assert not (set(seen) & SHAPE_ONLY) - allowed, f"{node.name}: {seen}"
    # into the positional convolution and a position bias; out of the extractor and of the positional convolution
    counts = operators(graphs["audio"])
    assert (counts["Unsqueeze"], counts["Squeeze"]) == (2, 2)


def test_norms_are_folded_and_weight_norms_are_gone(exported) -> None:
    model, graphs = exported
    for graph in graphs.values():
        assert not operators(graph).keys() & {"BatchNormalization", "ReduceL2"}
        assert not [name for name in weights_of(graph) if "parametrizations" in name or "running_" in name]
    group_norms = sum(isinstance(module, nn.GroupNorm) for module in model.audio.modules())
    assert operators(graphs["audio"])["InstanceNormalization"] == group_norms
    if group_norms:
        (node,) = (node for node in graphs["audio"].graph.node if node.op_type == "InstanceNormalization")
        assert [name.rpartition(".")[2] for name in node.input[1:]] == ["weight", "bias"], "scale and shift are in the node"


def test_the_positional_kernel_is_odd_and_its_padding_symmetric(exported) -> None:
    model, graphs = exported
    (node,) = (node for node in graphs["audio"].graph.node if node.op_type == "Conv" and "pos_conv" in node.name)
    weight = numpy_helper.to_array(weights_of(graphs["audio"])[node.input[1]])
    taps = model.preset.wavlm_pos_kernel
    assert weight.shape[-1] == taps + (taps % 2 == 0)
    assert not weight[..., taps:].any()
    assert next(list(item.ints) for item in node.attribute if item.name == "pads") == [0, taps // 2, 0, taps // 2]


def test_equal_weights_of_two_modules_stay_two_tensors(exported) -> None:
    model, graphs = exported
    for graph in graphs.values():
        weights = weights_of(graph)
        users: dict[str, set[str]] = {}
        for node in graph.graph.node:
            for value in node.input:
                if value in weights and not value.startswith(CONSTANT):
                    users.setdefault(value, set()).add(node.name.rpartition("/")[0])
        assert all(len(places) == 1 for places in users.values()), {key: places for key, places in users.items() if len(places) > 1}
    norm = weights_of(graphs["audio"])["wavlm.feature_projection.layer_norm.weight"]
    assert np.array_equal(numpy_helper.to_array(norm), model.audio.wavlm.feature_projection.layer_norm.weight.detach().numpy())


def test_the_form_computes_what_the_model_computes(exported) -> None:
    model, _ = exported
    form = engine_form(model.folded())
    g = torch.Generator().manual_seed(1)
    p = model.preset
    samples, visual = torch.randn((2, p.samples), generator=g), torch.randn((2, p.window, p.visual_dim), generator=g)
    masks = (torch.rand((2, 2, p.window), generator=g) < 0.7).float()
    with torch.no_grad():
        audio = model.audio(samples)
        assert float((form.audio(samples) - audio).abs().max() / audio.abs().max()) <= 1e-5
        for a, b in zip(form.fusion(visual, audio, *masks), model.fusion(visual, audio, *masks), strict=True):
            assert (a is None) == (b is None)
            assert a is None or float((a - b).abs().max() / b.abs().max()) <= 1e-5


def test_making_the_form_leaves_the_model(exported) -> None:
    model, _ = exported
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine_form(model.folded())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(isinstance(module, nn.Conv1d) for module in model.modules())


@pytest.mark.parametrize("n", [1, 4])
def test_batches_of_any_size_run(exported, tmp_path: Path, n: int) -> None:
    _, graphs = exported
    for name, graph in graphs.items():
        session = ort.load().InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        feed = {arg.name: np.zeros((n, *arg.shape[1:]), np.float32) for arg in session.get_inputs()}
        for value in session.run(None, feed):
            assert value.shape[0] == n
            assert np.isfinite(value).all(), name
