"""The fusion stage on features from disk: the views a window takes, what dropout leaves, clean validation, and nothing that depends on who reads."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_toy import QUICK, TINY_SETTINGS

from sage_edge.training import SAGE, presets
from sage_edge.training.loading import ahead
from sage_edge.training.settings import replace
from sage_edge.training.stages.fusion import FusionStage, kept, objective

CPU = torch.device("cpu")
VIEWS = replace(QUICK, {"views": 3, "corrupt": 0.7, "fusion_windows": 48})


def stage_of(toy, folder: Path, config=VIEWS, **changes) -> FusionStage:
    torch.manual_seed(0)
    stage = FusionStage(SAGE(presets.get("tiny", {**TINY_SETTINGS, **changes})), toy.trials("train"), toy.trials("val"), config)
    stage.start(folder)
    return stage


def test_views_of_face_and_sound_are_drawn_apart(toy, tmp_path):
    stage = stage_of(toy, tmp_path)
    draws = [stage._draw(np.random.default_rng(seed)) for seed in range(20)]
    pairs = {pair for draw in draws for pair in zip(draw.visual_view.tolist(), draw.audio_view.tolist(), strict=True)}
    assert pairs == set(itertools.product(range(3), repeat=2))


def test_with_one_view_everything_is_clean(toy, tmp_path):
    stage = stage_of(toy, tmp_path, replace(VIEWS, {"views": 1}))
    for batch in ahead(stage._read, [stage._draw(np.random.default_rng(0)) for _ in range(4)], 0, CPU):
        assert not batch.visual_bad.any()
        assert not batch.audio_bad.any()


def test_validation_sees_the_clean_view_only(toy, tmp_path):
    stage = stage_of(toy, tmp_path)
    assert stage.val_cache.views == 1
    stage.modules.eval()
    with torch.no_grad():
        score = stage.validate()
    alone = stage_of(toy, tmp_path / "again", replace(VIEWS, {"views": 1, "corrupt": 0.0}))
    alone.modules.eval()
    with torch.no_grad():
        assert alone.validate() == score


def test_dropout_only_takes_away(toy, tmp_path):
    stage = stage_of(toy, tmp_path)
    draw = stage._draw(np.random.default_rng(1))
    whole, read = stage.cache.batch(draw.picked, draw.visual_view, draw.audio_view), stage._read(draw)
    assert torch.equal(read.visual_mask, whole.visual_mask * torch.from_numpy(draw.keep_visual))
    assert torch.equal(read.audio_mask, whole.audio_mask * torch.from_numpy(draw.keep_audio))
    assert torch.equal(read.visual, whole.visual)
    visual, audio = kept(300, 40, VIEWS, np.random.default_rng(0))
    assert ((visual + audio) > 0).all()
    assert set(np.unique(visual)) == set(np.unique(audio)) == {0.0, 1.0}


def test_an_epoch_is_the_same_whoever_reads_the_features(toy, tmp_path):
    curves = []
    for workers in (0, 2):
        stage, losses = stage_of(toy, tmp_path, replace(VIEWS, {"workers": workers})), []
        torch.manual_seed(1)
        for epoch in range(2):
            stage.epoch(epoch, np.random.default_rng(epoch), losses.append)
        curves.append((losses, {name: tensor.clone() for name, tensor in stage.modules.state_dict().items()}))
    assert curves[0][0] == curves[1][0]
    assert len(curves[0][0]) == 12
    assert all(torch.equal(tensor, curves[1][1][name]) for name, tensor in curves[0][1].items())


@pytest.mark.parametrize("reliability", ["modality", "temporal"])
def test_the_gate_loss_counts_where_there_is_a_gate(toy, tmp_path, reliability):
    stage = stage_of(toy, tmp_path, reliability=reliability)
    batch = stage._read(stage._draw(np.random.default_rng(2)))
    with torch.no_grad():
        output = stage.model.eval().fusion(batch.visual, batch.audio, batch.visual_mask, batch.audio_mask)
        without, some, more = (float(objective(output, batch, replace(VIEWS, {"gate": gate}))) for gate in (0.0, 0.5, 1.0))
    if reliability == "temporal":
        assert without == some == more
    else:
        assert more - without == pytest.approx(2 * (some - without), rel=1e-4)
        assert more > without
