"""What a stage feeds its encoder: warps stay affine and inside the crop, augmentation grows in, a trial without faces or sound is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sage_edge.training import SAGE, presets
from sage_edge.training.averaging import Average
from sage_edge.training.settings import replace
from sage_edge.training.stages import better
from sage_edge.training.stages.audio import AudioStage
from sage_edge.training.stages.visual import VisualStage, warped

TINY = presets.get("tiny")
NAN = float("nan")


def coordinates(n: int) -> torch.Tensor:
    """Faces whose channels are their own pixel coordinates (x, y) and a constant."""
    x = torch.arange(48.0).expand(48, 48)
    return torch.stack([x, x.t(), torch.full((48, 48), 7.0)])[None].repeat(n, 1, 1, 1)


def fit(seen: torch.Tensor) -> tuple[np.ndarray, float]:
    """Least-squares affine map from output pixel to source pixel, and its largest error inside the picture."""
    rows, columns = np.mgrid[0:40, 0:40]
    inside = ((seen[:2] > 0.5) & (seen[:2] < 46.5)).all(0).numpy()
    design = np.stack([columns[inside], rows[inside], np.ones(inside.sum())], axis=1)
    target = seen[:2].numpy()[:, inside].T
    matrix, *_ = np.linalg.lstsq(design, target, rcond=None)
    return matrix, float(np.abs(design @ matrix - target).max())


def test_without_an_amount_a_warp_is_a_shift_and_a_flip():
    shifts, flips = [], 0
    for seen in warped(coordinates(60), TINY, np.random.default_rng(0), 0.0):
        matrix, error = fit(seen)
        assert error < 1e-3
        np.testing.assert_allclose(np.abs(matrix[:2]), np.eye(2), atol=1e-4)
        assert matrix[1, 1] > 0
        flips += matrix[0, 0] < 0
        corners = np.array([[0, 0, 1], [39, 39, 1]]) @ matrix
        assert corners.min() > -0.51
        assert corners.max() < 47.51
        shifts.append(corners.min(0))
    assert 15 < flips < 45
    assert np.ptp(shifts, axis=0).min() > 6


def test_a_warp_is_affine_and_of_the_amount_asked_for():
    scales, angles = [], []
    for seen in warped(coordinates(200), TINY, np.random.default_rng(1), 0.1):
        matrix, error = fit(seen)
        assert error < 1e-3
        torch.testing.assert_close(seen[2], torch.full((40, 40), 7.0))
        linear = matrix[:2].T * np.array([np.sign(matrix[0, 0]), 1.0])
        scales.append(np.log(np.linalg.det(linear)) / 2)
        angles.append(np.arctan2(linear[1, 0], linear[0, 0]))
    assert 0.07 < np.std(scales) < 0.13
    assert 0.07 < np.std(angles) < 0.13


def test_augmentation_grows_in(toy, toy_preset, quick):
    stage = VisualStage(SAGE(toy_preset), toy.trials("train"), [], replace(quick, {"visual_light": 0.5, "visual_ramp": 0.5}))
    faces = np.ascontiguousarray(np.broadcast_to(np.arange(0, 192, 4, dtype=np.uint8)[None, :, None, None], (16, 48, 48, 3)))
    spread = [float(stage._augment(faces, np.random.default_rng(0), step).amax((1, 2, 3)).std()) for step in (0, 2, 4, 8)]
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] == spread[3]


def test_a_stage_that_has_nothing_to_learn_from_has_no_epochs(toy, toy_preset, quick):
    silent = [trial for trial in toy.trials("train") if not len(trial.audio)]
    assert len(silent) == 1
    assert AudioStage(SAGE(toy_preset), silent, [], quick).epochs == 0
    assert VisualStage(SAGE(toy_preset), [], [], quick).epochs == 0


def test_a_corrupted_stage_sees_spoiled_faces_and_sound_and_an_undisturbed_one_does_not(toy, toy_preset, quick):
    trials = toy.trials("train")
    for kind in (VisualStage, AudioStage):
        plain, spoiled = (kind(SAGE(toy_preset), trials, [], replace(quick, {"corrupt": share, "visual_warp": 0.0})) for share in (0.0, 1.0))
        for stage in (plain, spoiled):
            stage.start(Path())
        # the last step: faces are spoiled bit by bit, as all of their augmentation grows in
        first, again, other = (stage.batch(stage.steps * stage.epochs - 1, np.random.default_rng(4)) for stage in (plain, plain, spoiled))
        seen = [batch[0] if kind is VisualStage else torch.from_numpy(np.stack([w.samples for w, _ in batch])) for batch in (first, again, other)]
        assert torch.equal(seen[0], seen[1])
        assert seen[2].shape == seen[0].shape
        assert not torch.equal(seen[0], seen[2])


def test_an_encoder_that_sees_spoiled_input_learns_how_bad_it_is_and_another_has_nothing_to_judge_with(toy, toy_preset, quick):
    for kind in (VisualStage, AudioStage):
        plain, spoiled = (kind(SAGE(toy_preset), toy.trials("train"), [], replace(quick, {"corrupt": share})) for share in (0.0, 0.7))
        assert plain.head.bad is None
        spoiled.start(Path())
        spoiled.loss(spoiled.batch(spoiled.steps * spoiled.epochs - 1, np.random.default_rng(1))).backward()
        assert spoiled.head.bad.weight.grad.abs().max() > 0
        x = torch.randn(64, spoiled.head.out.in_features)
        bad = (x[:, 0] > 0).float()
        assert plain.head.judged(x, bad) == 0
        with torch.no_grad():
            spoiled.head.bad.weight.zero_()
            spoiled.head.bad.bias.zero_()
            unsure = spoiled.head.judged(x, bad)
            spoiled.head.bad.weight[0, 0] = 5.0
        assert spoiled.head.judged(x, bad) < 0.5 * unsure


def test_frozen_norms_keep_their_statistics_and_others_do_not(toy, toy_preset, quick):
    for freeze in (True, False):
        stage = VisualStage(SAGE(toy_preset), toy.trials("train"), [], replace(quick, {"freeze_norms": freeze}))
        stage.start(Path())
        before = stage.model.visual.bn1.running_mean.clone()
        stage.epoch(0, np.random.default_rng(0), lambda loss: None)
        assert torch.equal(before, stage.model.visual.bn1.running_mean) is freeze


def test_averaged_weights_follow_the_closed_form_and_are_lent_for_validation(toy_preset):
    layer = torch.nn.Linear(2, 1, bias=False)
    average, wanted = Average(layer, 0.5), layer.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            layer.weight += 1.0
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(average.values["weight"], wanted)
    own = layer.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(layer.weight.detach(), wanted)
    assert torch.equal(layer.weight.detach(), own)


@pytest.mark.parametrize(
    ("score", "best", "replaces"),
    [(0.5, None, True), (None, 0.5, True), (0.6, 0.5, True), (0.5, 0.5, False), (NAN, 0.5, False), (0.1, NAN, True), (NAN, NAN, True)],
)
def test_an_undefined_ccc_never_beats_a_defined_one(score, best, replaces):
    assert better(*({} if value is None else {"val_mean": value} for value in (score, best))) is replaces
