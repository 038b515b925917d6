"""The published sizes, random weights: made by `transformers`, imported by the command, loaded as training does, compared layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import published_layouts as layouts
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sage_edge.cli.main import main
from sage_edge.runtime.files import sha256_file
from sage_edge.training import presets
from sage_edge.training.encoders.resnet import ResNet
from sage_edge.training.encoders.wavlm import WavLM
from sage_edge.training.encoders.weights import load_audio, load_visual

BASE, LARGE = presets.get("base"), presets.get("large")


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("place")
        patch.setenv("SAGE_EDGE_WEIGHTS", str(folder))
        yield folder
    for file in folder.glob("*"):  # hundreds of megabytes each
        file.unlink()


def imported(state: dict[str, Tensor], path: Path, capsys) -> dict[str, object]:
    """What the command says about `state`, once it is written to `path` and gone again."""
    torch.save(state, path)
    capsys.readouterr()
    assert main(["weights", "import", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["source_sha256"] == sha256_file(path)
    path.unlink()
    return facts


def wavlm(p: presets.Preset) -> nn.Module:
    from transformers import WavLMModel

    torch.manual_seed(1)
    model = WavLMModel(layouts.wavlm_config(p))
    layouts.randomize(model, std=0.02)
    return model.eval()


def clip(seconds: int) -> Tensor:
    """A tone that swells, under noise, at about -25 dBFS: [1, S]."""
    t = torch.arange(seconds * 16_000) / 16_000
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(4))
    return (0.08 * torch.sin(2 * torch.pi * 180 * t) * torch.sin(0.5 * t) ** 2 + 0.03 * noise)[None]


@torch.no_grad()
def compare_clip(ours: WavLM, theirs: nn.Module) -> None:
    """Every layer within 1e-5 relative, the tokens within 1e-4, for 10 s; theirs fed as its published feature extractor does."""
    from transformers import Wav2Vec2FeatureExtractor

    samples = clip(10)
    prepare = Wav2Vec2FeatureExtractor(do_normalize=ours.normalize)
    fed = prepare(samples[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    reference = theirs(fed, output_hidden_states=True)
    features = ours.feature_extractor(fed)
    assert relative(features, theirs.feature_extractor(fed).transpose(1, 2)) <= 1e-5
    states = ours.encoder.states(ours.feature_projection(features))
    assert len(states) == len(reference.hidden_states)
    for i, (a, b) in enumerate(zip(states[:-1], reference.hidden_states, strict=False)):
        assert relative(a, b) <= 1e-5, f"layer {i}: {relative(a, b):.2e}"
    assert relative(states[-1], reference.last_hidden_state) <= 1e-5
    difference = float((ours(samples) - reference.last_hidden_state).abs().max())
    assert difference <= 1e-4, f"{difference:.2e}"


def compare_gradients(ours: WavLM, theirs: nn.Module) -> None:
    """Of the input and of every parameter, for a second of sound; in float64, as in float32 the order of a sum alone makes more than 1e-5."""
    inputs = [clip(1).double().requires_grad_() for _ in range(2)]
    outputs = [ours.double()(inputs[0]), theirs.double()(inputs[1]).last_hidden_state]
    weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for output in outputs:
        (output * weights).sum().backward()
    assert relative(inputs[0].grad, inputs[1].grad) <= 1e-10
    reference = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        if not name.endswith("k_proj.bias"):  # adds the same to all logits of a query: its true gradient is 0
            assert relative(p.grad, reference[name]) <= 1e-10, f"{name}: {relative(p.grad, reference[name]):.2e}"


def test_resnet50_from_torchvision(place, tmp_path, capsys):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    theirs = ResNetModel(ResNetConfig()).eval()
    layouts.randomize(theirs, std=0.02)
    facts = imported(layouts.resnet_torchvision(theirs.state_dict()), tmp_path / "resnet50.pth", capsys)
    assert facts["architecture"] == "resnet50"
    assert facts["layout"] == "torchvision ResNet"
    assert facts["parameters"] == 25_557_032 - 2048 * 1000 - 1000
    assert facts["ignored"] == ["fc.weight", "fc.bias"]
    assert facts["out"] == str(place / "resnet50.safetensors")
    assert not facts["replaced"]
    with safe_open(facts["out"], framework="pt") as file:
        assert file.metadata()["source_sha256"] == facts["source_sha256"]
    again = tmp_path / "again.safetensors"
    assert main(["weights", "import", facts["out"], "--out", str(again)]) == 0
    said = capsys.readouterr().out
    assert "resnet50, converted from torchvision ResNet" in said
    assert "23,508,032 in 318 tensors" in said
    assert f"written     {again}" in said
    again.unlink()
    ours = ResNet().eval()
    assert load_visual(ours, "auto", BASE).layout == "converted from torchvision ResNet"
    faces = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        reference = theirs(faces, output_hidden_states=True)
        for i, (a, b) in enumerate(zip(ours.stages(faces), reference.hidden_states, strict=True)):
            assert relative(a, b) <= 1e-5, f"stage {i}: {relative(a, b):.2e}"
    inputs = [faces.clone().double().requires_grad_() for _ in range(2)]
    for output in (ours.double()(inputs[0]), theirs.double()(inputs[1]).pooler_output.flatten(1)):
        output.square().sum().backward()
    assert relative(inputs[0].grad, inputs[1].grad) <= 1e-10
    reference = layouts.resnet_torchvision({name: p.grad for name, p in theirs.named_parameters()}, head=False)
    for name, p in ours.named_parameters():
        assert relative(p.grad, reference[name]) <= 1e-10, name


@pytest.mark.slow
@pytest.mark.nightly
def test_wavlm_base_from_torchaudio(tmp_path, capsys):
    theirs = wavlm(BASE)
    facts = imported(layouts.wavlm_torchaudio(theirs.state_dict()), tmp_path / "wavlm_base.pth", capsys)
    assert facts["architecture"] == "wavlm-base"
    assert facts["layout"] == "torchaudio WavLM"
    assert facts["parameters"] == 94_381_168
    assert facts["ignored"] == []
    assert any("wavlm-base-plus" in note for note in facts["notes"])
    ours = WavLM(BASE).eval()
    load_audio(ours, "auto", BASE)
    compare_clip(ours, theirs)
    compare_gradients(ours, theirs)
    assert main(["weights", "list"]) == 0
    assert "from " + facts["source"] in capsys.readouterr().out


def test_wavlm_large_with_two_of_its_layers(tmp_path):
    p = LARGE.replace({"wavlm_layers": 2})
    theirs = wavlm(p)
    torch.save({"cfg": {"normalize": True}, "model": layouts.wavlm_original(theirs.state_dict())}, tmp_path / "WavLM-Large.pt")
    ours = WavLM(p).eval()
    load_audio(ours, str(tmp_path / "WavLM-Large.pt"), p)
    assert ours.normalize
    compare_clip(ours, theirs)
    ours.normalize = False  # theirs normalises outside of the model
    compare_gradients(ours, theirs)


@pytest.mark.slow
@pytest.mark.nightly
def test_wavlm_large_from_hugging_face(tmp_path, capsys):
    theirs = wavlm(LARGE)
    facts = imported(theirs.state_dict(), tmp_path / "pytorch_model.bin", capsys)
    assert facts["architecture"] == "wavlm-large"
    assert facts["layout"] == "Hugging Face WavLM"
    assert facts["parameters"] == 315_452_096
    assert facts["ignored"] == ["masked_spec_embed"]
    ours = WavLM(LARGE).eval()
    load_audio(ours, "auto", LARGE)
    compare_clip(ours, theirs)
