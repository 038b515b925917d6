"""Settings, stores and folders that training must not take: refused in one line, with nothing removed and nothing trained."""

from __future__ import annotations

import subprocess

import pytest
from conftest_toy import write_store

from sage_edge.runtime.errors import UsageError
from sage_edge.training import checkpoint, presets
from sage_edge.training.config import TrainConfig, recipe, split_settings
from sage_edge.training.data.store import Store
from sage_edge.training.data.synthetic import synthesise
from sage_edge.training.loop import train
from sage_edge.training.run import Run

TINY = presets.get("tiny")


def refused(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=key) as caught:
        split_settings(TINY, TrainConfig(), {key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["visual_lr", "audio_lr", "fusion_lr", "clip"])
@pytest.mark.parametrize("value", ["-0.001", "0", "nan", "inf"])
def test_a_rate_or_clip_that_cannot_train_is_refused(key, value):
    refused(key, value)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "-1"), ("mse", "nan"), ("mse", "-1"), ("weight_decay", "inf"), ("visual_warp", "-0.1"), ("audio_epochs", "-1")]
)
def test_a_number_out_of_range_is_refused(key, value):
    refused(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wavlm_heads", "0"),
        ("window", "0"),
        ("window", "3"),
        ("resnet_width", "-1"),
        ("fusion_layers", "0"),
        ("rate_hz", "0"),
        ("tcn_visual", "8,0"),
        ("tcn_audio", ""),
        ("wavlm_conv_strides", "5,2,2,2,2,2,0"),
        ("tcn_dropout", "1"),
        ("fusion_dropout", "nan"),
        ("mean", "0.5"),
        ("std", "0.2,0,0.2"),
    ],
)
def test_a_size_that_makes_no_model_is_refused(key, value):
    refused(key, value)


def test_every_preset_and_its_recipe_pass_their_own_checks():
    for name in presets.PRESETS:
        assert split_settings(presets.get(name), recipe(name), {"seed": "3"})[1].seed == 3


@pytest.mark.parametrize("values", [{}, {"corrupt": "0.5"}, {"views": "4"}])
def test_a_gate_that_would_be_taught_nothing_is_refused(values):
    with pytest.raises(UsageError, match=r"gate=0\.3 has nothing to teach"):
        split_settings(TINY, TrainConfig(), {"gate": "0.3", **values})


def test_the_paper_is_trained_without_what_is_ours():
    paper, base = recipe("paper"), recipe("base")
    assert paper.visual_epochs == paper.audio_epochs == base.visual_epochs == 0
    assert paper.fusion_stride == 200
    assert paper.drop_window == paper.drop_stretch == paper.corrupt == paper.gate == paper.mse == 0.0
    assert base.gate > 0
    assert base.corrupt > 0


def test_a_preset_cannot_be_renamed():
    with pytest.raises(UsageError, match="unknown setting 'name'"):
        split_settings(TINY, TrainConfig(), {"name": "base"})


def test_a_negative_seed_makes_no_corpus(tmp_path):
    with pytest.raises(UsageError, match="seed -1"):
        synthesise(tmp_path / "corpus", seed=-1, train=1, val=1, seconds=2, workers=1, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"), [({"face_size": 64}, "faces of 48 pixels.*wants 64"), ({"sample_rate_hz": 8000}, "sample_rate_hz=8000")]
)
def test_a_preset_that_does_not_fit_the_store_is_refused(toy, toy_preset, quick, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        train(toy, toy_preset.replace(change), tmp_path / "out", quick)
    assert not list(tmp_path.iterdir())


def test_a_store_with_other_faces_is_refused(toy_preset, quick, tmp_path):
    store = Store.open(write_store(tmp_path / "store", splits=("train",), face_size=64))
    with pytest.raises(UsageError, match="faces of 64 pixels"):
        train(store, toy_preset, tmp_path / "out", quick)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("also", ["state.pt", "metrics.jsonl", None])
def test_a_folder_of_somebody_else_is_refused_and_kept(toy, toy_preset, quick, tmp_path, also, resume):
    folder = tmp_path / "out.run"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "thesis.txt").write_text("years of work")
    if also:
        (folder / also).write_text("x")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match="holds 'notes', which no training wrote"):
        train(toy, toy_preset, tmp_path / "out", quick, resume=resume)
    assert sorted(folder.rglob("*")) == before


def test_a_file_in_place_of_the_folder_is_refused(toy, toy_preset, quick, tmp_path):
    (tmp_path / "out.run").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.run is in the way"):
        train(toy, toy_preset, tmp_path / "out", quick)
    assert (tmp_path / "out.run").read_text() == "mine"


def test_what_a_killed_run_left_is_ours(tmp_path):
    folder = tmp_path / "out.run"
    (folder / "tensorboard").mkdir(parents=True)
    for name in (".state.x1_y2.pt", ".metrics.ab12.jsonl", "metrics.jsonl"):
        (folder / name).write_text("")
    run = Run(tmp_path / "out")
    assert run.begin(resume=False) is None
    run.end()
    assert not folder.exists()


def test_what_came_meanwhile_outlives_the_run(tmp_path):
    run = Run(tmp_path / "out")
    run.begin(resume=False)
    run.save({"epoch": 1})
    (run.folder / "notes.txt").write_text("mine")
    run.end()
    assert [path.name for path in run.folder.iterdir()] == ["notes.txt"]


def test_the_revision_is_that_of_this_project_only(tmp_path):
    def git(*args):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *args], cwd=tmp_path, check=True, capture_output=True)

    own, vendored = tmp_path / "training" / "checkpoint.py", tmp_path / "lib" / "training" / "checkpoint.py"
    for file in (own, vendored):
        file.parent.mkdir(parents=True)
        file.write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    assert len(checkpoint.revision(own)) >= 7
    assert checkpoint.revision(own) != "unknown"
    assert checkpoint.revision(vendored) == "unknown"
