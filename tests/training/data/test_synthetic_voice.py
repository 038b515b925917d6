from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_edge.training.data.synthetic_voice import Room, Speech, draw_voice, record, render, speak

QUIET = Room(gain=1.0, noise=0.0, hum=0.0, wet=0.0)


def constant(n: int, f0_hz: float) -> Speech:
    ones = np.ones(n, np.float32)
    formants = np.tile(np.array([600, 1400, 2500, 3600], np.float32), (n, 1))
    return Speech(f0_hz * ones, ones, formants, -9 * ones, 0 * ones, 0 * ones, ones)


def spoken(arousal: float, seed: int) -> tuple[Speech, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    voice = draw_voice(rng)
    n = 1001
    speech = speak(voice, np.full(n, arousal, np.float32), np.zeros(n, np.float32), np.ones(n, np.bool_), rng)
    return speech, render(speech, rng)


def pitch_hz(sound: NDArray[np.float32]) -> float:
    """Median over loud frames of the highest peak of the autocorrelation, 60 to 400 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), 1024)[::512]
    loud = frames[np.square(frames).mean(axis=1) > np.square(frames).mean()]
    echo = np.fft.irfft(np.abs(np.fft.rfft(loud * np.hanning(1024), 4096)) ** 2)
    return float(np.median(16_000 / (echo[:, 40:267].argmax(axis=1) + 40)))


@pytest.mark.parametrize("seed", range(4))
def test_arousal_raises_pitch_level_rate_and_brightness(seed: int) -> None:
    (slowly, calm), (quickly, excited) = spoken(-0.8, seed), spoken(0.8, seed)
    assert pitch_hz(excited) / pitch_hz(calm) == pytest.approx(2 ** (8 / 12), rel=0.15)  # 5 semitones for each unit
    assert np.square(excited).mean() > 4 * np.square(calm).mean()

    def brightness(sound: NDArray[np.float32]) -> float:
        power = np.abs(np.fft.rfft(sound.astype(np.float64))) ** 2
        f = np.fft.rfftfreq(len(sound), 1 / 16_000)
        return float((power * f).sum() / power.sum())

    assert brightness(excited) > brightness(calm)

    def syllables(speech: Speech) -> int:
        mouth = speech.opening
        return int(((mouth[1:-1] > mouth[:-2]) & (mouth[1:-1] >= mouth[2:])).sum())

    assert syllables(quickly) > 1.3 * syllables(slowly)


def test_a_long_sound_has_no_seams() -> None:
    sound = render(constant(2501, 123.4), np.random.default_rng(0))
    assert len(sound) == 2500 * 160
    step = np.abs(np.diff(sound.astype(np.float64), 2))
    seams = np.concatenate([step[k * 160_000 - 4 : k * 160_000 + 4] for k in (1, 2)])
    assert seams.max() < 1.2 * np.quantile(step, 0.999)
    assert np.abs(sound).max() < 1


def test_recording_adds_what_a_room_and_a_broken_microphone_add() -> None:
    rng = np.random.default_rng(0)
    sound = render(constant(2001, 110.0), rng)
    off, stretch = np.zeros(2001, np.float32), np.zeros(2001, np.float32)
    stretch[500:700] = 1
    clean = record(sound, QUIET, off, off, rng)
    np.testing.assert_allclose(clean, sound, atol=1e-4)
    muted = record(sound, QUIET, off, stretch, rng)
    assert not muted[505 * 160 : 695 * 160].any()
    np.testing.assert_allclose(muted[: 490 * 160], clean[: 490 * 160], atol=1e-6)
    noisy = record(sound, QUIET, stretch, off, rng)
    inside, outside = slice(505 * 160, 695 * 160), slice(0, 490 * 160)
    assert np.square(noisy[inside] - sound[inside]).mean() > 2 * np.square(sound[inside]).mean()
    np.testing.assert_allclose(noisy[outside], clean[outside], atol=1e-4)
    wet = record(sound, Room(1.0, 0.0, 0.0, 0.3), off, off, rng)
    assert 0.05 < np.sqrt(np.square(wet - clean).mean() / np.square(clean).mean()) < 0.6
