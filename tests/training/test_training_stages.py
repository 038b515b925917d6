"""What a stage feeds its encoder: warps stay affine and inside the crop, augmentation grows in, a trial without faces or sound is left out."""

import numpy as np
import torch

from sage_edge.training import SAGE, presets
from sage_edge.training.settings import replace
from sage_edge.training.stages.audio import AudioStage
from sage_edge.training.stages.visual import VisualStage, warped

TINY = presets.get("tiny")


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
