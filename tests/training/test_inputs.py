"""Faces as the model takes them: crop, flip, normalise."""

import numpy as np

from sage_edge.training import inputs, presets

TINY = presets.get("tiny")


def faces(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 48, 48, 3), dtype=np.uint8)


def test_central_is_the_formula():
    crops = faces()
    x = inputs.central(crops, TINY)
    assert x.shape == (5, 3, 40, 40)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    wanted = (crops[:, 4:44, 4:44].astype(np.float64) / 255 - np.array(TINY.mean)) / np.array(TINY.std)
    np.testing.assert_allclose(x, wanted.transpose(0, 3, 1, 2), atol=2e-6)


def test_augmented_is_some_crop_flipped_or_not():
    crops = faces(40)
    x = inputs.augmented(crops, TINY, np.random.default_rng(1))
    shifts, flipped = set(), 0
    for face, got in zip(crops, x, strict=True):
        whole = inputs.normalise(face[None], TINY)[0]
        found = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (1, -1)
            if np.array_equal(whole[:, top : top + 40, left : left + 40][:, :, ::flip], got)
        ]
        assert len(found) == 1
        shifts.add(found[0][:2])
        flipped += found[0][2] == -1
    assert len(shifts) > 20
    assert 8 < flipped < 32


def test_light_changes_gain_and_offset_of_each_colour_only():
    crops = faces(4)
    plain = inputs.augmented(crops, TINY, np.random.default_rng(1))
    lit = inputs.augmented(crops, TINY, np.random.default_rng(1), light=0.3)
    for i in range(4):
        for c in range(3):
            gain, offset = np.polyfit(plain[i, c].ravel(), lit[i, c].ravel(), 1)
            np.testing.assert_allclose(lit[i, c], plain[i, c] * gain + offset, atol=1e-4)
            assert abs(gain - 1) + abs(offset) > 1e-3
