"""What spoils faces and sound, piece by piece: sizes, colours, levels, and how bad each says it is."""

import itertools

import numpy as np
import pytest

from sage_edge.training.data import corruption_faces, corruption_sound
from sage_edge.training.data.corruption import faces_corrupted, samples_corrupted


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def faces() -> np.ndarray:
    return rng().integers(0, 256, (64, 48, 48, 3), np.uint8)


@pytest.fixture
def sound() -> np.ndarray:
    t = np.arange(64_000) / 16_000
    return (0.1 * np.sin(2 * np.pi * 220 * t) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


@pytest.mark.parametrize("share", [0.12, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("round_edge", [False, True])
def test_any_share_is_covered_nearly(share, round_edge):
    wanted = min(share, np.pi / 4) if round_edge else share
    for seed in range(8):
        black, white = np.zeros((3, 48, 48, 3), np.uint8), np.full((3, 48, 48, 3), 255, np.uint8)
        for faces in (black, white):
            corruption_faces.occlude(faces, share, rng(seed), round_edge)
        assert (black == white).all(3).mean() == pytest.approx(wanted, abs=0.03)


def test_an_occluder_drifts_and_does_not_jump():
    faces = np.zeros((90, 48, 48, 3), np.uint8)
    corruption_faces.occlude(faces, 0.25, rng(1))
    covered = faces.any(3)
    moved = np.array([(a ^ b).mean() for a, b in itertools.pairwise(covered)])
    assert moved.max() < 0.12
    assert (covered[0] != covered[-1]).any()


def test_worse_is_said_to_be_worse(faces, sound):
    assert np.all(np.diff([corruption_faces.blur(faces.copy(), s) for s in (0.8, 1.5, 3.0)]) > 0)
    assert np.all(np.diff([corruption_faces.darken(faces.copy(), g, 1.0, rng()) for g in (0.4, 0.2, 0.1)]) > 0)
    assert np.all(np.diff([corruption_faces.occlude(faces.copy(), s, rng()) for s in (0.2, 0.4, 0.6)]) > 0)
    noise = corruption_sound.coloured(len(sound), 0.0, rng())
    assert np.all(np.diff([corruption_sound.add(sound.copy(), noise, 0.1, db) for db in (11, 5, -4)]) > 0)


def test_single_faces_are_spoiled_in_the_share_asked_for_and_the_batch_stays(faces):
    before = faces.copy()
    out, bad = faces_corrupted(faces, 0.5, rng())
    assert np.array_equal(faces, before)
    changed = (out != faces).any((1, 2, 3))
    assert 0.25 < changed.mean() < 0.75
    assert not bad[~changed].any()
    assert bad[changed].mean() > 0.3
    again, _ = faces_corrupted(faces, 0.5, rng())
    assert np.array_equal(out, again)
    assert np.array_equal(faces_corrupted(faces, 0.0, rng())[0], faces)


def test_no_faces_and_no_sound_are_no_trouble():
    assert len(faces_corrupted(np.zeros((0, 48, 48, 3), np.uint8), 1.0, rng())[0]) == 0
    assert len(samples_corrupted(np.zeros(0, np.float32), 1.0, rng())[0]) == 0
    assert np.isfinite(samples_corrupted(np.zeros(16_000, np.float32), 1.0, rng())[0]).all()


@pytest.mark.parametrize("slope", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("count", [1000, 65_536, 600_000])
def test_noise_has_the_colour_asked_for_and_unit_power(slope, count):
    noise = corruption_sound.coloured(count, slope, rng())
    assert len(noise) == count
    assert np.square(noise, dtype=np.float64).mean() == pytest.approx(1.0, rel=1e-4)
    if count > 1000:
        power, hz = np.abs(np.fft.rfft(noise[:65_536])) ** 2, np.fft.rfftfreq(65_536, 1 / 16_000)
        low, high = (np.log(power[(hz > f) & (hz < 2 * f)].mean()) for f in (250, 4000))
        assert (low - high) / np.log(16) == pytest.approx(slope, abs=0.15)


def test_sound_is_spoiled_where_it_says_and_the_original_stays(sound):
    before = sound.copy()
    heard = 0
    for seed in range(24):
        out, bad = samples_corrupted(sound, 0.5, rng(seed))
        assert np.array_equal(sound, before)
        assert np.isfinite(out).all()
        heard += bool((out != sound).any())
        assert np.array_equal(out, samples_corrupted(sound, 0.5, rng(seed))[0])
        assert not bad[out == sound].any() or np.count_nonzero(bad[out == sound]) < 0.01 * len(sound)
    assert heard >= 6


def test_reverberation_smears_and_keeps_the_level(sound):
    click = np.zeros(16_000, np.float32)
    click[1000] = 1.0
    corruption_sound.reverberate(click, 0.5, 0.8, rng())
    assert np.square(click).sum() == pytest.approx(1.0, rel=1e-3)
    assert not click[:1000].any() or np.abs(click[:1000]).max() < 1e-6
    assert 0.6 < np.square(click[1010:]).sum() < 0.9
