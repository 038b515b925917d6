"""The joint stage: releases what it says and nothing else, sees what the encoders see, learns, and goes on after a kill as if there was none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_toy import QUICK, TINY_SETTINGS, write_store
from safetensors.torch import load_file

from sage_edge.training import SAGE, features, presets, train
from sage_edge.training.data.store import Store
from sage_edge.training.data.windows import window_at
from sage_edge.training.loading import ahead
from sage_edge.training.run import Run
from sage_edge.training.settings import replace
from sage_edge.training.stages.joint import Draw, JointStage, encoder_groups, read_clip

JOINT = replace(
    QUICK,
    {
        "visual_epochs": 0,
        "audio_epochs": 0,
        "fusion_epochs": 0,
        "joint_epochs": 4,
        "joint_windows": 4,
        "joint_batch": 2,
        "joint_stride": 20,
        "joint_release": 1,
        "joint_lr": 1e-3,
        "joint_encoder_lr": 1e-3,
        "drop_features": 0.0,
    },
)
CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for SIGKILL."""


def preset(**changes) -> presets.Preset:
    return presets.get("tiny", {**TINY_SETTINGS, **changes})


def stage_of(toy, config=JOINT, **changes) -> JointStage:
    torch.manual_seed(0)
    return JointStage(SAGE(preset(**changes)), toy.trials("train"), toy.trials("val"), config)


def draw(end: tuple[int, int, int], seed: int = 0) -> Draw:
    return Draw(end, seed, np.ones(40, np.float32), np.ones(40, np.float32))


def without_faces(stage: JointStage) -> None:
    stage.train = [dataclasses.replace(trial, frame_face=np.full_like(trial.frame_face, -1), faces=trial.faces[:0]) for trial in stage.train]


@pytest.mark.parametrize("changes", [{}, {"wavlm_layers": 4}, {"wavlm_layers": 7, "wavlm_norm_first": True, "wavlm_extractor": "layer"}])
def test_every_weight_of_the_encoders_is_in_one_group(changes):
    model = SAGE(preset(**changes))
    for encoder, order in zip((model.visual, model.audio), encoder_groups(model), strict=True):
        names = [name for group in order for module in group for name, p in encoder.named_parameters() if any(p is q for q in module.parameters())]
        assert sorted(names) == sorted(name for name, _ in encoder.named_parameters())
    visual, audio = encoder_groups(model)
    assert visual[0] == [model.visual.layer4]
    layers = model.audio.wavlm.encoder.layers
    assert audio[0][: -(-len(layers) // 3)][-1] is layers[-1] or layers[-1] in audio[0]
    assert model.audio.wavlm.feature_extractor in audio[-1]
    assert (model.audio.wavlm.encoder.layer_norm in audio[0]) == model.preset.wavlm_norm_first


def trained(stage: JointStage) -> set[str]:
    return {name for name, p in stage.modules.named_parameters() if p.requires_grad}


def test_groups_are_released_one_after_the_other_last_layers_first(toy):
    stage = stage_of(toy, replace(JOINT, {"joint_release": 2}), wavlm_layers=3)
    seen = []
    for epoch in range(9):
        stage.begin_epoch(epoch)
        seen.append(trained(stage))
    fusion = {name for name in seen[0] if name.startswith("fusion.")}
    assert fusion == {f"fusion.{name}" for name, _ in stage.model.fusion.named_parameters()}
    assert {name.split(".")[1] for name in seen[0] if name.startswith("visual.")} == {"layer4"}
    assert {name.split("layers.")[1][0] for name in seen[0] if name.startswith("audio.")} == {"2"}
    assert [len(names) for names in seen] == sorted(len(names) for names in seen)
    assert seen[0] == seen[1] < seen[2] == seen[3] < seen[4] == seen[5] < seen[6] == seen[8]
    assert seen[8] == {name for name, _ in stage.modules.named_parameters()}
    assert all(module.training for module in stage.modules.modules() if not list(module.children()))


def test_without_a_schedule_everything_is_trained_from_the_start(toy):
    stage = stage_of(toy, replace(JOINT, {"joint_release": 0}))
    before = {name: tensor.clone() for name, tensor in stage.modules.state_dict().items()}
    stage.epoch(0, np.random.default_rng(0), lambda _: None)
    assert trained(stage) == {name for name, _ in stage.modules.named_parameters()}
    assert all(p.grad is not None for p in stage.modules.parameters())
    after = stage.modules.state_dict()
    assert not [name for name, tensor in after.items() if tensor.ndim > 1 and torch.equal(tensor, before[name])]


def test_what_is_not_released_stays_equal_to_the_bit(toy):
    stage = stage_of(toy, wavlm_layers=3)
    for epoch in range(3):
        before = {name: tensor.clone() for name, tensor in stage.modules.state_dict().items()}
        stage.epoch(epoch, np.random.default_rng(epoch), lambda _: None)
        changed = {name for name, tensor in stage.modules.state_dict().items() if not torch.equal(tensor, before[name])}
        visual = {name.split(".")[1] for name in changed if name.startswith("visual.")}
        assert visual == {"layer4", "layer3", "layer2"} - {f"layer{i}" for i in range(2, 4 - epoch)}
        layers = {int(name.split("layers.")[1][0]) for name in changed if name.startswith("audio.")}
        assert layers == set(range(2 - epoch, 3))
        assert not any("feature_extractor" in name or "feature_projection" in name for name in changed)
    stage.finish()
    assert all(p.requires_grad for p in stage.modules.parameters())


@pytest.mark.parametrize("native", [False, True])
def test_a_clip_gives_the_features_of_its_window(toy, native):
    stage = stage_of(toy, window=40)
    stage.modules.eval()
    trials = [dataclasses.replace(trial, native=native) for trial in stage.train]
    ends = [(0, 60, 0), (1, 10, 0), (1, 70, 13), (2, 100, 0)]
    clips = [read_clip(trials[end[0]], draw(end, seed), 40, 40, 0.0) for seed, end in enumerate(ends)]
    with torch.no_grad():
        visual, audio = stage._visual(clips), stage._audio(clips)
    for k, (clip, (i, newest, masked)) in enumerate(zip(clips, ends, strict=True)):
        window = window_at(trials[i], newest, 40)
        rows = torch.cat(list(features.face_batches(stage.model, trials[i].faces, clip.top, clip.left, clip.flip)))
        wanted = features.face_rows(rows, window.tick_face)
        wanted[:masked] = 0.0
        torch.testing.assert_close(visual[k], wanted, rtol=1e-5, atol=1e-5)
        if masked == 0 and window.audio_mask.any():
            torch.testing.assert_close(audio[k], features.encode_windows(stage.model, [window])[0], rtol=1e-5, atol=1e-5)
        assert np.array_equal(clip.ticks[masked:, 0].numpy(), window.visual_mask[masked:])
        assert not clip.ticks[:masked, [0, 1, 4]].any()
        assert np.array_equal(clip.ticks[:, 2:4].numpy(), window.labels)


def test_flips_crops_and_corruption_vary_with_the_seed_and_only_with_it(toy):
    trial = toy.trials("train")[0]
    clips = [read_clip(trial, draw((0, 80, 0), seed), 40, 40, 0.8) for seed in range(12)]
    assert {clip.flip for clip in clips} == {False, True}
    assert len({(clip.top, clip.left) for clip in clips}) > 4
    assert len({clip.faces.numpy().tobytes() for clip in clips}) > 2
    assert len({clip.samples.numpy().tobytes() for clip in clips}) > 2
    again = read_clip(trial, draw((0, 80, 0), 3), 40, 40, 0.8)
    assert torch.equal(again.faces, clips[3].faces)
    assert torch.equal(again.samples, clips[3].samples)
    assert torch.equal(again.ticks, clips[3].ticks)


def test_where_a_mask_is_off_there_is_no_sound_however_corrupted(toy):
    trial = toy.trials("train")[0]
    for seed in range(8):
        clip = read_clip(trial, draw((0, 60, 17), seed), 40, 40, 1.0)
        assert not clip.samples[: int(clip.tick_sample[17])].any()


def test_batches_do_not_depend_on_who_reads_them(toy):
    stage = stage_of(toy, replace(JOINT, {"corrupt": 0.5, "joint_windows": 10}))
    random = torch.random.get_rng_state()
    read = {workers: list(ahead(stage._read, stage._draws(np.random.default_rng(5)), workers, CPU)) for workers in (0, 2)}
    assert torch.equal(random, torch.random.get_rng_state())
    assert len(read[0]) == len(read[2]) == 5
    for alone, by_others in zip(read[0], read[2], strict=True):
        for one, other in zip(alone, by_others, strict=True):
            assert (one.top, one.left, one.flip) == (other.top, other.left, other.flip)
            assert all(torch.equal(tensor, other._tensors()[name]) for name, tensor in one._tensors().items())


def test_windows_without_any_face_or_crop_can_be_trained_on(toy):
    stage = stage_of(toy, input_size=48)
    without_faces(stage)
    metrics = stage.epoch(0, np.random.default_rng(0), lambda _: None)
    assert np.isfinite(metrics["loss"])
    assert all(torch.isfinite(p).all() for p in stage.modules.parameters())


def test_norms_learn_nothing_from_a_batch_without_faces(toy):
    stage = stage_of(toy, replace(JOINT, {"joint_release": 0}))
    without_faces(stage)
    stage.begin_epoch(0)
    before = {name: tensor.clone() for name, tensor in stage.model.visual.named_buffers()}
    training = [module.training for module in stage.modules.modules()]
    stage.loss(stage.batch(0, np.random.default_rng(0))).backward()
    assert before
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.model.visual.named_buffers())
    assert training == [module.training for module in stage.modules.modules()]
    assert all(p.grad is not None for p in stage.model.visual.parameters())


@pytest.mark.slow
@pytest.mark.nightly
def test_the_loss_falls_on_the_toy_problem(toy, tmp_path):
    config = replace(
        JOINT, {"joint_release": 0, "joint_epochs": 5, "joint_windows": 32, "joint_batch": 4, "joint_lr": 4e-3, "joint_encoder_lr": 4e-3}
    )
    meta = train(toy, preset(resnet_width=8), tmp_path / "ckpt", replace(config, {"drop_window": 0.0, "drop_stretch": 0.0}))
    records = [json.loads(line) for line in (tmp_path / "ckpt" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert np.mean(losses[-2:]) < losses[0] - 0.2
    assert meta["metrics"]["val_mean"] == max(record["val_mean"] for record in records)
    assert meta["metrics"]["val_mean"] > 0.2


def test_what_the_stage_began_with_is_kept_where_nothing_is_better(toy, monkeypatch):
    stage = stage_of(toy)
    scores = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(JointStage, "validate", lambda self: {"val_mean": next(scores)})
    before = {name: tensor.clone() for name, tensor in stage.modules.state_dict().items()}
    stage.start(Path())
    for epoch in range(2):
        stage.epoch(epoch, np.random.default_rng(epoch), lambda _: None)
    stage.finish()
    assert stage.best["epoch"] == -1
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.modules.state_dict().items())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_killed_in_the_joint_stage_resumes_to_the_same_weights(toy, tmp_path, monkeypatch, workers):
    config = replace(JOINT, {"joint_epochs": 3, "corrupt": 0.4, "ema": 0.9, "fusion_epochs": 1, "views": 2, "workers": workers, "joint_windows": 4})
    train(toy, preset(), tmp_path / "whole", replace(config, {"workers": 0}) if workers else config)
    save, count = Run.save, []

    def save_and_die(self, state):
        save(self, state)
        count.append(1)
        if len(count) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_and_die)
        with pytest.raises(Killed):
            train(toy, preset(), tmp_path / "killed", config)
    train(toy, preset(), tmp_path / "killed", config, resume=True)
    first, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert not [name for name in first if not torch.equal(first[name], again[name])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_a_native_store_trains_fusion_and_everything(tmp_path):
    store = Store.open(write_store(tmp_path / "store", rate="native"))
    config = replace(JOINT, {"fusion_epochs": 1, "joint_epochs": 1, "views": 2, "corrupt": 0.5})
    meta = train(store, preset(), tmp_path / "ckpt", config)
    assert np.isfinite(meta["metrics"]["val_mean"])
