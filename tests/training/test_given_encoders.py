"""Training on encoders that are there already: frozen they stay as they are, and published ones that are missing are asked for in one line."""

import pytest
from conftest_toy import QUICK, TINY_SETTINGS
from safetensors.torch import load_file

from sage_edge.cli.main import main
from sage_edge.training import train
from sage_edge.training.settings import replace

FUSION_ALONE = {"visual_epochs": 0, "audio_epochs": 0, "fusion_epochs": 1}


def test_encoders_of_another_checkpoint_stay_as_they_are_while_the_fusion_learns(toy, toy_preset, tmp_path):
    train(toy, toy_preset, tmp_path / "first", replace(QUICK, {"fusion_epochs": 0}))
    given = {"visual_weights": str(tmp_path / "first"), "audio_weights": str(tmp_path / "first")}
    train(toy, toy_preset, tmp_path / "second", replace(QUICK, {**FUSION_ALONE, **given, "seed": 7}))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    for name in first:
        assert bool((first[name] == second[name]).all()) is name.startswith(("visual.", "audio.")) or "num_batches" in name, name


def test_base_asks_for_the_published_weights_in_one_line_and_leaves_nothing(toy_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAGE_EDGE_WEIGHTS", str(tmp_path / "weights"))
    assert main(["train", str(toy_path), "--preset", "base", "--out", str(tmp_path / "ckpt"), "--threads", "1"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    for part in ("https://", "resnet50", "sage-edge weights import", str(tmp_path / "weights")):
        assert part in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["visual_weights", "audio_weights"])
def test_encoders_that_do_not_fit_are_refused(toy, toy_path, toy_preset, tmp_path, setting, capsys):
    train(toy, toy_preset.replace({"resnet_width": 8, "wavlm_dim": 32}), tmp_path / "other", replace(QUICK, FUSION_ALONE))
    settings = [part for key, value in TINY_SETTINGS.items() for part in ("--set", f"{key}={str(value).strip('()')}")]
    code = main(["train", str(toy_path), "--out", str(tmp_path / "ckpt"), "--threads", "1", *settings, "--set", f"{setting}={tmp_path / 'other'}"])
    assert code in (1, 2)
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
