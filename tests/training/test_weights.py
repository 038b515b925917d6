"""Every published layout, in every container, loads into our encoders and then computes what `transformers` computes; anything else is one line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
from pathlib import Path

import published_layouts as layouts
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sage_edge.cli.main import main
from sage_edge.runtime.errors import CheckpointError, SageError, UsageError
from sage_edge.training import checkpoint, presets
from sage_edge.training.data.store import Store
from sage_edge.training.encoders import published
from sage_edge.training.encoders.recognise import recognise
from sage_edge.training.encoders.resnet import ResNet
from sage_edge.training.encoders.wavlm import WavLM
from sage_edge.training.encoders.weights import convert, load_audio, load_visual
from sage_edge.training.loop import train
from sage_edge.training.model import SAGE

SMALL = presets.get("tiny").replace(
    {
        "resnet_width": 8,
        "resnet_blocks": (2, 1, 2, 1),
        "wavlm_layers": 3,
        "wavlm_conv_dims": (16, 16, 16, 24, 24, 24, 24),
        "wavlm_dim": 32,
        "wavlm_heads": 4,
        "wavlm_ff": 48,
        "wavlm_pos_kernel": 16,
        "wavlm_pos_groups": 4,
    }
)
SMALL_LARGE = SMALL.replace({"wavlm_extractor": "layer", "wavlm_norm_first": True, "wavlm_normalize": True})


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def small_resnet() -> torch.nn.Module:
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[2, 1, 2, 1], layer_type="bottleneck"))
    layouts.randomize(model)
    return model.eval()


def small_wavlm(p: presets.Preset) -> torch.nn.Module:
    from transformers import WavLMModel

    torch.manual_seed(1)
    model = WavLMModel(layouts.wavlm_config(p))
    layouts.randomize(model)
    return model.eval()


def write(state: dict[str, Tensor], path: Path, container: str) -> Path:
    if container == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, {"format": "pt"})
    elif container == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif container == "released":
        torch.save({"cfg": {"normalize": False, "conv_feature_layers": "[(512,10,5)]"}, "model": state}, path)
    elif container == "namespace":
        torch.save({"args": argparse.Namespace(arch="wavlm", lr=[0.1]), "cfg": None, "model": state}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("container", ["safetensors", "torch", "legacy"])
@pytest.mark.parametrize("name", layouts.RESNET)
@torch.no_grad()
def test_a_resnet_in_every_layout_computes_what_transformers_computes(name, container, tmp_path):
    theirs = small_resnet()
    called, made = layouts.RESNET[name]
    path = write(made(theirs.state_dict()), tmp_path / "weights.bin", container)
    ours = ResNet(8, (2, 1, 2, 1)).eval()
    encoder = load_visual(ours, str(path), SMALL)
    assert encoder.layout == called
    assert all(label.startswith(("fc.", "classifier.")) for label in encoder.ignored)
    faces = torch.randn(2, 3, 40, 40)
    reference = theirs(faces, output_hidden_states=True)
    for i, (a, b) in enumerate(zip(ours.stages(faces), reference.hidden_states, strict=True)):
        assert relative(a, b) <= 1e-5, f"stage {i}: {relative(a, b):.2e}"
    assert relative(ours(faces), reference.pooler_output.flatten(1)) <= 1e-5


@pytest.mark.parametrize("preset", [SMALL, SMALL_LARGE], ids=["base-like", "large-like"])
@pytest.mark.parametrize(
    ("name", "container"),
    [(name, "torch") for name in layouts.WAVLM]
    + [("hugging-face", "safetensors"), ("original", "released"), ("original", "namespace"), ("torchaudio", "legacy")],
)
@torch.no_grad()
def test_a_wavlm_in_every_layout_computes_what_transformers_computes(name, container, preset, tmp_path):
    theirs = small_wavlm(preset)
    called, made = layouts.WAVLM[name]
    path = write(made(theirs.state_dict()), tmp_path / "weights.bin", container)
    ours = WavLM(preset.replace({"wavlm_normalize": False})).eval()
    assert load_audio(ours, str(path), preset).layout == called
    samples = torch.randn(2, 8000) * 0.1
    reference = theirs(samples, output_hidden_states=True)
    states = ours.encoder.states(ours.feature_projection(ours.feature_extractor(samples)))
    for i, (a, b) in enumerate(zip(states[:-1], reference.hidden_states, strict=False)):
        assert relative(a, b) <= 1e-5, f"layer {i}: {relative(a, b):.2e}"
    assert relative(ours(samples), reference.last_hidden_state) <= 1e-5


# in float64, where equal means equal: in float32 the sums of a backward pass differ by more than 1e-5 when they are merely taken in another order


def gradients(module: torch.nn.Module, x: Tensor, output: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5), dtype=output.dtype)
    (output * weights).sum().backward()
    return {"input": x.grad, **{name: p.grad for name, p in module.named_parameters() if p.grad is not None}}


def test_gradients_of_the_resnet_equal_those_of_transformers(tmp_path):
    theirs = small_resnet()
    ours = ResNet(8, (2, 1, 2, 1))
    load_visual(ours, str(write(theirs.state_dict(), tmp_path / "weights.bin", "torch")), SMALL)
    names = layouts.resnet_torchvision({name: name for name in theirs.state_dict()}, head=False)
    for training in (False, True):
        ours.double().train(training).zero_grad()
        theirs.double().train(training).zero_grad()
        faces = [torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_() for _ in range(2)]
        mine = gradients(ours, faces[0], ours(faces[0]))
        reference = gradients(theirs, faces[1], theirs(faces[1]).pooler_output.flatten(1))
        assert len(mine) == len(reference) == 1 + len(list(ours.parameters()))
        for name, gradient in mine.items():
            assert relative(gradient, reference[names.get(name, name)]) <= 1e-10, name
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[names[name]], rtol=1e-10), f"{name} after a pass in training mode"


@pytest.mark.parametrize("preset", [SMALL, SMALL_LARGE], ids=["base-like", "large-like"])
def test_gradients_of_wavlm_equal_those_of_transformers(preset, tmp_path):
    theirs = small_wavlm(preset)
    ours = WavLM(preset.replace({"wavlm_normalize": False})).eval()
    load_audio(ours, str(write(layouts.wavlm_torchaudio(theirs.state_dict()), tmp_path / "weights.bin", "torch")), preset)
    ours.double()
    theirs.double()
    samples = [torch.randn(2, 4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64).mul_(0.1).requires_grad_() for _ in range(2)]
    mine = gradients(ours, samples[0], ours(samples[0]))
    reference = gradients(theirs, samples[1], theirs(samples[1]).last_hidden_state)
    assert mine.keys() == reference.keys()
    for name, gradient in mine.items():
        if name.endswith("k_proj.bias"):  # adds the same to all logits of a query: its true gradient is 0
            assert float(gradient.abs().max()) <= 1e-10 * float(mine[name.replace("k_proj", "q_proj")].abs().max())
        else:
            assert relative(gradient, reference[name]) <= 1e-10, f"{name}: {relative(gradient, reference[name]):.2e}"


# what is refused, and how


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, Tensor]:
    return layouts.resnet_torchvision(small_resnet().state_dict(), head=False)


def refused(path: Path, kind: type[SageError] = CheckpointError) -> str:
    """The line that `load_visual` says about `path`; the model stays as it was."""
    model = ResNet(8, (2, 1, 2, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(kind) as caught:
        load_visual(model, str(path), SMALL)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


def test_a_missing_name_is_said(resnet_state, tmp_path):
    state = {name: tensor for name, tensor in resnet_state.items() if name != "layer2.0.conv2.weight"}
    said = refused(write(state, tmp_path / "a.pth", "torch"))
    assert "missing: layer2.0.conv2.weight;" in said
    assert "torchvision ResNet" in said


def test_many_missing_names_are_counted(resnet_state, tmp_path):
    state = {name: tensor for name, tensor in resnet_state.items() if not name.startswith(("layer3.1.bn", "layer3.1.conv3"))}
    assert "and 10 more" in refused(write(state, tmp_path / "a.pth", "torch"))


def test_a_surplus_name_is_said(resnet_state, tmp_path):
    said = refused(write(resnet_state | {"attention.weight": torch.zeros(3)}, tmp_path / "a.pth", "torch"))
    assert "unknown: attention.weight;" in said
    said = refused(write(resnet_state | {"layer1.1.downsample.1.bias": torch.zeros(32)}, tmp_path / "a.pth", "torch"))
    assert "surplus: layer1.1.downsample.1.bias;" in said


def test_a_block_too_many_is_another_architecture(resnet_state, tmp_path):
    more = {name.replace("layer4.0.", "layer4.1."): tensor for name, tensor in resnet_state.items() if name.startswith("layer4.0.")}
    more = {name: tensor for name, tensor in more.items() if "downsample" not in name}
    more["layer4.1.conv1.weight"] = torch.zeros(64, 256, 1, 1)
    assert "ResNet of 2, 1, 2, 2 blocks" in refused(write(resnet_state | more, tmp_path / "a.pth", "torch"), UsageError)


def test_a_wrong_shape_is_said(resnet_state, tmp_path):
    state = resnet_state | {"layer2.0.conv2.weight": torch.zeros(16, 16, 1, 1)}
    assert "of another shape: layer2.0.conv2.weight [16, 16, 1, 1], not [16, 16, 3, 3]" in refused(write(state, tmp_path / "a.pth", "torch"))


def test_integers_and_nan_are_no_weights(resnet_state, tmp_path):
    state = resnet_state | {"bn1.weight": torch.zeros(8, dtype=torch.int8)}
    assert "of another type: bn1.weight int8" in refused(write(state, tmp_path / "a.pth", "torch"))
    state = resnet_state | {"bn1.weight": torch.full((8,), float("nan"))}
    assert "not all finite: bn1.weight" in refused(write(state, tmp_path / "a.pth", "torch"))


def test_one_tensor_under_two_names_is_refused(tmp_path):
    state = small_wavlm(SMALL).state_dict()
    state["encoder.pos_conv_embed.conv.weight_g"] = state["encoder.pos_conv_embed.conv.parametrizations.weight.original0"]
    with pytest.raises(CheckpointError, match=r"twice: encoder\.pos_conv_embed\.conv\.weight_g"):
        recognise(write(state, tmp_path / "a.pth", "torch"))


def test_half_precision_and_missing_counters_are_said_and_taken(resnet_state, tmp_path):
    state = {name: tensor.half() for name, tensor in resnet_state.items() if "num_batches_tracked" not in name}
    encoder = recognise(write(state, tmp_path / "a.pth", "torch"))
    assert "stored as float16, taken as float32" in encoder.notes
    assert any("num_batches_tracked" in note for note in encoder.notes)
    assert {tensor.dtype for tensor in encoder.tensors.values()} == {torch.float32, torch.int64}
    load_visual(ResNet(8, (2, 1, 2, 1)), str(tmp_path / "a.pth"), SMALL)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("container", ["torch", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(container, resnet_state, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "a.pth"
    state = {**resnet_state, "extra": Evil(canary)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        write(state, path, container)
    said = refused(path)
    assert "run code" in said or container == "pickle"
    assert not canary.exists()


def test_every_cut_of_a_file_is_refused(resnet_state, tmp_path):
    for container in ("safetensors", "torch", "legacy"):
        whole = write(resnet_state, tmp_path / f"whole.{container}", container).read_bytes()
        path = tmp_path / f"cut.{container}"
        for size in (0, 1, 9, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert "again" in refused(path), (container, size)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "text").write_text("valence,arousal\n0.1,0.2\n" * 100)
    assert "neither safetensors nor" in refused(tmp_path / "text")
    torch.save(torch.zeros(3), tmp_path / "tensor")
    assert "holds a Tensor" in refused(tmp_path / "tensor")
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7), "epoch": 3}, tmp_path / "run")
    assert "'epoch' is a int" in refused(tmp_path / "run")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg")
    assert "no ResNet and no WavLM but features.0.weight" in refused(tmp_path / "vgg")
    (tmp_path / "folder").mkdir()
    assert "without model.safetensors or pytorch_model.bin" in refused(tmp_path / "folder", UsageError)
    assert "does not exist" in refused(tmp_path / "nothing", UsageError)


def test_a_file_of_the_other_modality_is_refused(tmp_path):
    path = write(small_wavlm(SMALL).state_dict(), tmp_path / "a.bin", "torch")
    assert "where a ResNet is wanted" in refused(path, UsageError)


def test_a_preset_of_other_sizes_is_refused(resnet_state, tmp_path):
    path = write(resnet_state, tmp_path / "a.pth", "torch")
    tiny = presets.get("tiny")
    with pytest.raises(UsageError, match=r"does not fit preset 'tiny' \(resnet_width=8, not 16; resnet_blocks="):
        load_visual(ResNet(tiny.resnet_width, tiny.resnet_blocks), str(path), tiny)


# places


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SAGE_EDGE_WEIGHTS", str(tmp_path / "place"))
    return tmp_path / "place"


@pytest.mark.parametrize(
    ("preset", "names"), [("base", ("resnet50", "wavlm-base")), ("paper", ("resnet50", "wavlm-base")), ("large", ("resnet50", "wavlm-large"))]
)
def test_auto_says_what_is_missing_where_from_and_what_to_run(preset, names, place):
    p = presets.get(preset)
    for load, name in zip((load_visual, load_audio), names, strict=True):
        with pytest.raises(UsageError) as caught:
            load(torch.nn.Identity(), "auto", p)
        said = str(caught.value)
        assert str(place / f"{name}.safetensors") in said
        assert "https://" in said
        assert "sage-edge weights import FILE" in said
        assert "\n" not in said


def test_another_encoder_in_the_place_is_refused(place, resnet_state):
    place.mkdir()
    write(resnet_state, place / "resnet50.safetensors", "safetensors")
    with pytest.raises(UsageError, match=r"does not fit preset 'base' \(resnet_width=8, not 64"):
        load_visual(ResNet(), "auto", presets.get("base"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_from_hugging_face_will_do(name, resnet_state, tmp_path):
    write(resnet_state, tmp_path / name, "safetensors" if name.endswith("safetensors") else "torch")
    assert load_visual(ResNet(8, (2, 1, 2, 1)), str(tmp_path), SMALL).layout == "torchvision ResNet"


def test_auto_without_published_weights_is_wrong_use(place):
    with pytest.raises(UsageError, match=r"visual_weights=auto: no weights are published for ResNet of 1, 1, 1, 1 blocks, width 16"):
        load_visual(torch.nn.Identity(), "auto", presets.get("tiny"))
    with pytest.raises(UsageError, match=r"audio_weights=auto: no weights are published for WavLM of 2 layers"):
        load_audio(torch.nn.Identity(), "auto", presets.get("tiny"))


def test_the_place_is_in_the_cache_by_default(monkeypatch):
    monkeypatch.delenv("SAGE_EDGE_WEIGHTS", raising=False)
    assert published.folder() == Path.home() / ".cache/sage-edge/weights"


def test_an_encoder_that_is_not_published_is_not_imported(resnet_state, place, tmp_path, capsys):
    path = write(resnet_state, tmp_path / "a.pth", "torch")
    assert main(["weights", "import", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {path} holds a ResNet of 2, 1, 2, 1 blocks, width 8 (torchvision ResNet); one of resnet50,")
    assert not place.exists()


def test_the_encoders_of_a_checkpoint_can_be_taken(tmp_path):
    p = SMALL.replace({"tcn_visual": (4,), "tcn_audio": (4,), "fusion_dim": 8, "fusion_heads": 2, "fusion_ff": 8, "fusion_layers": 1, "head_dim": 4})
    torch.manual_seed(3)
    source, target = SAGE(p), SAGE(p.replace({"fusion": "concat"}))
    checkpoint.save(tmp_path / "checkpoint", source, trained_on={})
    assert load_visual(target.visual, str(tmp_path / "checkpoint"), p).layout == "sage-edge checkpoint"
    load_audio(target.audio.wavlm, str(tmp_path / "checkpoint"), p)
    for name, tensor in target.state_dict().items():
        if not name.startswith("fusion."):
            assert torch.equal(tensor, source.state_dict()[name]), name
    with pytest.raises(UsageError, match="wavlm_normalize=False, not True"):
        load_audio(target.audio.wavlm, str(tmp_path / "checkpoint"), p.replace({"wavlm_normalize": True}))
    (tmp_path / "checkpoint/model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model\.safetensors does not exist"):
        load_visual(target.visual, str(tmp_path / "checkpoint"), p)
    with pytest.raises(UsageError, match="is a checkpoint, with two encoders; it needs no import"):
        convert(tmp_path / "checkpoint")


def test_the_list_says_what_is_missing(place, capsys):
    assert main(["weights", "list", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["folder"] == str(place)
    assert [row["name"] for row in facts["weights"]] == ["resnet50", "wavlm-base", "wavlm-large"]
    assert all(row["state"] == "missing" and row["urls"] and row["licence"] for row in facts["weights"])
    place.mkdir()
    (place / "resnet50.safetensors").write_bytes(b"nothing")
    assert main(["weights", "list"]) == 0
    said = capsys.readouterr().out
    assert said.count("missing") == 2
    assert "damaged: import it again" in said


def test_torchaudio_is_wrong_use_where_it_is_not_installed(place, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchaudio", None)  # as if it were not there, wherever this runs
    assert main(["weights", "import", "torchaudio:WAVLM_BASE"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: torchaudio:WAVLM_BASE needs torchaudio")
    assert "sage-edge[torchaudio]" in said
    assert said.count("\n") == 1
    assert main(["weights", "import", "torchaudio:HUBERT_BASE"]) == 2
    assert "one of torchaudio:WAVLM_BASE" in capsys.readouterr().err


def test_training_begins_with_the_weights_it_is_given_and_keeps_frozen_ones(toy_path, toy_preset, quick, tmp_path):
    """Published layouts for toy sizes in, no epochs of encoders: out come those encoders, under a fusion that was trained."""
    from transformers import ResNetConfig, ResNetModel, WavLMModel

    torch.manual_seed(8)
    face = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="bottleneck"))
    sound = WavLMModel(layouts.wavlm_config(toy_preset))
    faces = write(layouts.resnet_torchvision(face.state_dict()), tmp_path / "face.pth", "legacy")
    sounds = write(layouts.wavlm_torchaudio(sound.state_dict()), tmp_path / "sound.pth", "torch")
    config = dataclasses.replace(quick, visual_epochs=0, audio_epochs=0, fusion_epochs=1, visual_weights=str(faces), audio_weights=str(sounds))
    train(Store.open(toy_path), toy_preset, tmp_path / "checkpoint", config)
    state = checkpoint.load(tmp_path / "checkpoint")[0].state_dict()
    for prefix, encoder in (("visual.", recognise(faces)), ("audio.wavlm.", recognise(sounds))):
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        assert own.keys() == encoder.tensors.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in encoder.tensors.items())
    with pytest.raises(UsageError, match="where a ResNet is wanted"):
        train(Store.open(toy_path), toy_preset, tmp_path / "other", dataclasses.replace(config, visual_weights=str(sounds)))
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "other.run").exists()
