"""Training: it learns a toy problem, repeats itself, and goes on after a kill as if nothing had happened."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_toy import QUICK, TINY_SETTINGS, write_store
from safetensors.torch import load_file

from sage_edge.runtime.errors import CheckpointError, DataError, UsageError
from sage_edge.training import checkpoint, presets, train
from sage_edge.training.data.folds import split_folds
from sage_edge.training.data.store import Store
from sage_edge.training.evaluation import evaluate
from sage_edge.training.run import Run
from sage_edge.training.settings import replace
from sage_edge.training.stages import fusion, learning_rate
from sage_edge.training.stages.audio import AudioStage
from sage_edge.training.stages.visual import VisualStage, labelled_faces


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, no clean-up of ours may matter."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, toy_path) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("run") / "ckpt"
    return out, train(Store.open(toy_path), presets.get("tiny", TINY_SETTINGS), out, QUICK)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_one_whole_checkpoint(undisturbed, toy):
    out, meta = undisturbed
    assert [file.name for file in out.parent.iterdir()] == ["ckpt"]
    assert sorted(file.name for file in out.iterdir()) == ["checkpoint.json", "metrics.jsonl", "model.safetensors", "tensorboard"]
    records = lines(out / "metrics.jsonl")
    assert [(record["stage"], record["epoch"]) for record in records] == [
        (s, e) for s, n in (("visual", 2), ("audio", 2), ("fusion", 3)) for e in range(n)
    ]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert meta["trained_on"] == {**toy.meta, "digest": toy.digest}
    best = max(records[-3:], key=lambda record: record["val_mean"])
    assert meta["epoch"] == best["epoch"] + 1
    assert meta["metrics"]["val_mean"] == best["val_mean"]
    model, again = checkpoint.load(out, "tiny")
    assert again == meta
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(undisturbed, toy, toy_preset, quick, tmp_path):
    before = torch.random.get_rng_state()
    train(toy, toy_preset, tmp_path / "again", quick)
    assert torch.equal(before, torch.random.get_rng_state()), "training moved the caller's random state"
    first, again = (load_file(path / "model.safetensors") for path in (undisturbed[0], tmp_path / "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    train(toy, toy_preset, tmp_path / "other", replace(quick, {"seed": 1}))
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert not torch.equal(first["fusion.out.weight"], other["fusion.out.weight"])


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7], ids=["in-visual", "visual-done", "in-audio", "in-fusion", "all-done"])
def test_a_killed_run_resumes_to_the_same_weights(undisturbed, toy, toy_preset, quick, tmp_path, monkeypatch, epochs):
    out = tmp_path / "ckpt"
    save, count = Run.save, []

    def save_and_die(self, state):
        save(self, state)
        count.append(1)
        if len(count) == epochs:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_die)
        with pytest.raises(Killed):
            train(toy, toy_preset, out, quick)
    assert not out.exists()
    # what a kill in the middle of the next epoch would leave
    with open(tmp_path / "ckpt.run" / "metrics.jsonl", "a") as file:
        file.write('{"stage": "half-way')
    meta = train(toy, toy_preset, out, quick, resume=True)
    first, again = (load_file(path / "model.safetensors") for path in (undisturbed[0], out))
    different = [name for name in first if not torch.equal(first[name], again[name])]
    assert not different
    assert meta["epoch"] == undisturbed[1]["epoch"]
    untimed = [[{**record, "seconds": 0} for record in lines(path / "metrics.jsonl")] for path in (undisturbed[0], out)]
    assert untimed[0] == untimed[1]
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt"]


def test_an_interruption_before_the_first_epoch_leaves_nothing(toy, toy_preset, quick, tmp_path, monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(VisualStage, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(toy, toy_preset, tmp_path / "ckpt", quick)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_or_does_not_fit_is_refused(undisturbed, toy, toy_preset, quick, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="exists already"):
        train(toy, toy_preset, undisturbed[0], quick)
    with pytest.raises(UsageError, match="holds no unfinished run"):
        train(toy, toy_preset, tmp_path / "ckpt", quick, resume=True)

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AudioStage, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(toy, toy_preset, tmp_path / "ckpt", quick)
    with pytest.raises(UsageError, match="unfinished run; continue it with --resume"):
        train(toy, toy_preset, tmp_path / "ckpt", quick)
    with pytest.raises(CheckpointError, match="another corpus, preset or settings"):
        train(toy, toy_preset, tmp_path / "ckpt", replace(quick, {"mse": 0.2}), resume=True)
    (tmp_path / "ckpt.run" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        train(toy, toy_preset, tmp_path / "ckpt", quick, resume=True)
    slower = write_store(tmp_path / "slower", rate=25)
    with pytest.raises(UsageError, match="prepared at rate 25"):
        train(Store.open(slower), toy_preset, tmp_path / "other", quick)
    only_val = write_store(tmp_path / "only-val", splits=("val",))
    with pytest.raises(DataError, match="no 'train' trials"):
        train(Store.open(only_val), toy_preset, tmp_path / "other", quick)
    assert not (tmp_path / "other.run").exists()


def test_without_a_validation_split_the_last_epoch_is_kept(toy_preset, quick, tmp_path):
    store = Store.open(write_store(tmp_path / "store", splits=("train", "train")))
    meta = train(store, toy_preset, tmp_path / "ckpt", quick)
    assert meta["epoch"] == quick.fusion_epochs
    assert "val_mean" not in meta["metrics"]


@pytest.mark.slow
@pytest.mark.nightly
def test_training_learns_the_toy_problem(tmp_path):
    """Faces say valence, loudness says arousal; the last two trials are nobody that was trained on."""
    from sage_edge.training.evaluation import full_report

    toy = Store.open(write_store(tmp_path / "store", ("train",) * 8 + ("val",) * 2))
    preset = presets.get("tiny", {**TINY_SETTINGS, "resnet_width": 8, "wavlm_dim": 32, "wavlm_ff": 64, "wavlm_conv_dims": (16,) * 7})
    config = replace(
        QUICK,
        {
            "visual_epochs": 6,
            "visual_faces": 256,
            "visual_light": 0.02,
            "visual_warp": 0.0,
            "audio_epochs": 8,
            "audio_windows": 64,
            "audio_batch": 8,
            "fusion_epochs": 30,
            "fusion_windows": 128,
            "fusion_lr": 4e-3,
            "drop_window": 0.15,
            "drop_stretch": 0.15,
            "weight_decay": 0.02,
            "drop_features": 0.0,
        },
    )
    train(toy, preset, tmp_path / "ckpt", config)
    report = full_report(checkpoint.load(tmp_path / "ckpt")[0], toy)
    assert report["overlap"]["mean"] > 0.6
    assert report["live"]["mean"] > 0.5
    assert report["without"]["visual"]["valence"] < report["overlap"]["valence"] - 0.2
    assert report["without"]["audio"]["arousal"] < report["overlap"]["arousal"] - 0.2


def test_every_labelled_face_is_used_and_no_other(toy):
    trials = toy.trials("train")
    rows = labelled_faces(trials)
    for i, trial in enumerate(trials):
        own = rows[rows[:, 0] == i]
        wanted = [frame for frame in range(len(trial.frame_t_ns)) if trial.labels_valid[frame] and trial.frame_face[frame] >= 0]
        assert own[:, 2].tolist() == wanted
        assert (trial.frame_face[own[:, 2]] == own[:, 1]).all()


def test_training_windows_begin_before_the_clip_and_in_the_middle(toy):
    trials = toy.trials("train")
    ends = fusion.training_ends(trials, 40, 20, 0.5, np.random.default_rng(0))
    assert all(0 <= newest < trials[i].n_ticks for i, newest, _ in ends)
    assert any(newest < 39 for _, newest, _ in ends)
    cuts = [prefix for *_, prefix in ends if prefix]
    assert len(cuts) == pytest.approx(len(ends) / 3, abs=3)
    assert all(0 < prefix < 40 for prefix in cuts)


def test_a_cut_window_is_that_of_a_session_which_began_there(toy):
    from sage_edge.training.cache import cut
    from sage_edge.training.data.windows import window_at

    trial = toy.trials("train")[0]
    window = cut(window_at(trial, 80, 40), 13)
    whole = window_at(trial, 80, 40)
    first = round(13 * 16_000 / 30)
    assert not window.samples[:first].any()
    assert np.array_equal(window.samples[first:], whole.samples[first:])
    for name in ("visual_mask", "audio_mask", "labels_valid"):
        assert not getattr(window, name)[:13].any()
        assert np.array_equal(getattr(window, name)[13:], getattr(whole, name)[13:])
    assert (window.tick_face[:13] == -1).all()


def test_modality_dropout_never_takes_both(quick):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        visual, audio = np.ones(40, np.float32), np.ones(40, np.float32)
        fusion.drop(visual, audio, quick, rng)
        assert ((visual + audio) > 0).all()
        seen.add((visual.any(), audio.any(), visual.all(), audio.all()))
    assert {(False, True, False, True), (True, False, True, False), (True, True, False, True), (True, True, True, False), (True,) * 4} <= seen


def test_the_learning_rate_rises_then_falls():
    rates = [learning_rate(1.0, step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert 0.01 <= rates[-1] < 0.02


def test_training_ends_early_and_keeps_the_best_epoch(toy, toy_preset, quick, tmp_path):
    # with next to no learning rate nothing gets better after a while; a resumed run knows how long it has waited
    config = replace(quick, {"visual_epochs": 0, "audio_epochs": 0, "fusion_epochs": 30, "fusion_lr": 1e-12, "patience": 2, "ema": 0.5})
    meta = train(toy, toy_preset, tmp_path / "ckpt", config)
    records = lines(tmp_path / "ckpt" / "metrics.jsonl")
    assert len(records) < 30
    assert meta["epoch"] == len(records) - config.patience
    assert meta["metrics"]["val_mean"] == max(record["val_mean"] for record in records)


def test_an_averaged_run_that_was_killed_resumes_to_the_same_weights(toy, toy_preset, quick, tmp_path, monkeypatch):
    config = replace(quick, {"ema": 0.9, "visual_epochs": 1, "audio_epochs": 1, "fusion_epochs": 2, "corrupt": 0.5})
    train(toy, toy_preset, tmp_path / "whole", config)
    save, count = Run.save, []

    def save_and_die(self, state):
        save(self, state)
        count.append(1)
        if len(count) in (1, 3):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_die)
        for resume in (False, True):
            with pytest.raises(Killed):
                train(toy, toy_preset, tmp_path / "again", config, resume=resume)
    train(toy, toy_preset, tmp_path / "again", config, resume=True)
    first, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_fold_validates_on_its_part_of_the_train_split(toy, toy_preset, quick, tmp_path):
    config = replace(quick, {"visual_epochs": 0, "audio_epochs": 0, "fusion_epochs": 1, "folds": 3, "fold": 1})
    meta = train(toy, toy_preset, tmp_path / "ckpt", config)
    assert meta["training"]["config"]["fold"] == 1
    held = split_folds(toy.trials("train"), 3, 1, "source", 0)[1]
    own = evaluate(
        checkpoint.load(tmp_path / "ckpt")[0],
        Store(toy.path, toy.digest, toy.meta, tuple(e for e in toy.entries if e["name"] == held[0].name)),
        "train",
    )
    assert meta["metrics"]["val_mean"] == pytest.approx(own["overlap"]["mean"], abs=1e-5)


def test_bf16_autocast_trains_and_keeps_float32_weights(toy, toy_preset, quick, tmp_path):
    meta = train(toy, toy_preset, tmp_path / "ckpt", replace(quick, {"precision": "bf16", "fusion_epochs": 1}))
    assert meta["training"]["config"]["precision"] == "bf16"
    tensors = load_file(tmp_path / "ckpt" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}
    assert all(np.isfinite(record["loss"]) for record in lines(tmp_path / "ckpt" / "metrics.jsonl"))


def test_joint_training_that_makes_nothing_better_leaves_the_fusion_stages_model(toy, toy_preset, quick, tmp_path):
    config = replace(quick, {"joint_epochs": 1, "joint_windows": 2, "joint_batch": 2, "joint_stride": 40, "joint_lr": 1.0, "joint_encoder_lr": 1.0})
    alone = train(toy, toy_preset, tmp_path / "alone", replace(config, {"joint_epochs": 0}))
    joint = train(toy, toy_preset, tmp_path / "joint", config)
    assert joint["metrics"] | {"seconds": 0} == alone["metrics"] | {"seconds": 0}
    assert joint["metrics"]["stage"] == "fusion"
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "joint"))
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_a_run_killed_right_after_its_checkpoint_appeared_is_over(undisturbed, toy, toy_preset, quick, tmp_path, monkeypatch):
    def die(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "end", die)
        patch.setattr(Run, "abandon", lambda self: True)
        with pytest.raises(Killed):
            train(toy, toy_preset, tmp_path / "ckpt", quick)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "ckpt.run"]
    meta = train(toy, toy_preset, tmp_path / "ckpt", quick, resume=True)
    assert meta["epoch"] == undisturbed[1]["epoch"]
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


def test_a_run_killed_while_it_writes_its_checkpoint_leaves_nothing_beside_it(undisturbed, toy, toy_preset, quick, tmp_path, monkeypatch):
    write = checkpoint.write_model

    def write_and_die(folder, *args, **kwargs):
        write(folder, *args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_model", write_and_die)
        with pytest.raises(Killed):
            train(toy, toy_preset, tmp_path / "ckpt", quick)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.run"]
    train(toy, toy_preset, tmp_path / "ckpt", quick, resume=True)
    first, again = (load_file(path / "model.safetensors") for path in (undisturbed[0], tmp_path / "ckpt"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


def test_a_run_that_another_process_is_at_is_refused(toy, toy_preset, quick, tmp_path):
    first = Run(tmp_path / "ckpt")
    first.begin(resume=False)
    with pytest.raises(UsageError, match="being written by another process"):
        train(toy, toy_preset, tmp_path / "ckpt", quick)
    first.close()
    train(toy, toy_preset, tmp_path / "ckpt", quick)


def test_a_resumed_run_may_read_with_more_processes(toy, toy_preset, quick, tmp_path, monkeypatch):
    config = replace(quick, {"visual_epochs": 1, "audio_epochs": 0, "fusion_epochs": 1})

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fusion.FusionStage, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(toy, toy_preset, tmp_path / "ckpt", config)
    meta = train(toy, toy_preset, tmp_path / "ckpt", replace(config, {"workers": 1}), resume=True)
    assert meta["training"]["config"]["workers"] == 1
