"""Checkpoints: the same model comes back; what is damaged or of another make is refused by name, and nothing half-written stays."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.training import SAGE, checkpoint


@pytest.fixture
def saved(tmp_path, toy_preset):
    torch.manual_seed(3)
    model = SAGE(toy_preset).eval()
    checkpoint.save(tmp_path / "ckpt", model, trained_on={"name": "toy", "synthetic": True}, epoch=4, metrics={"val_mean": 0.5})
    return tmp_path / "ckpt", model


def test_it_comes_back_bit_by_bit(saved):
    path, model = saved
    again, meta = checkpoint.load(path, "tiny")
    assert again.preset == model.preset
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert meta["trained_on"] == {"name": "toy", "synthetic": True}
    assert (meta["epoch"], meta["metrics"]) == (4, {"val_mean": 0.5})
    assert sorted(file.name for file in path.iterdir()) == ["checkpoint.json", "model.safetensors"]


def test_it_is_not_overwritten_unless_asked(saved):
    path, model = saved
    before = (path / "checkpoint.json").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        checkpoint.save(path, model, trained_on={})
    assert (path / "checkpoint.json").read_bytes() == before
    checkpoint.save(path, model, trained_on={"name": "other"}, replace=True)
    assert checkpoint.read_meta(path)["trained_on"] == {"name": "other"}
    assert [file.name for file in path.parent.iterdir()] == ["ckpt"]


def test_a_failure_while_writing_leaves_the_old_one(saved, monkeypatch):
    path, model = saved
    before = (path / "model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, model, trained_on={}, replace=True)
    assert (path / "model.safetensors").read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["ckpt"]


def test_another_preset_is_refused(saved):
    with pytest.raises(CheckpointError, match="of preset 'tiny', not 'base'; give --preset tiny"):
        checkpoint.load(saved[0], "base")


def edit(path, change):
    file = path / "checkpoint.json"
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("trained_on"), "'trained_on' is missing"),
        (lambda m: m.update(epoch="4"), "'epoch' is not of type int"),
        (lambda m: m.update(schema=99), "schema 99.*update sage-edge"),
        (lambda m: m["preset"].pop("rgf_scale"), "rgf_scale"),
        (lambda m: m["preset"].update(rgf_scale="squared"), "rgf_scale='squared'"),
        (lambda m: m["preset"].update(bogus=1), "'bogus'"),
        (lambda m: m["preset"].update(head_dim=8), r"tensor fusion.hidden.weight has shape \[16, 16\], not \[8, 16\]"),
        (lambda m: m["preset"].update(reliability="modality-only"), "no tensor fusion.core.temporal"),
        (lambda m: m["preset"].update(fusion_layers=2), "tensor fusion.core.refine.layers.1.* is missing"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved, change, message):
    edit(saved[0], change)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(saved[0])
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_named(saved):
    path, _ = saved
    tensors = load_file(path / "model.safetensors")
    del tensors["visual.conv1.weight"]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor visual\.conv1\.weight is missing"):
        checkpoint.load(path)


@pytest.mark.parametrize("damage", ["{not json", "[]", ""])
def test_damaged_json_is_refused(saved, damage):
    (saved[0] / "checkpoint.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json"):
        checkpoint.load(saved[0])


def test_truncated_or_missing_weights_are_refused(saved, tmp_path):
    path, _ = saved
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
