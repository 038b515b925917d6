"""What spoils sound: noise of any colour, other voices, reverberation, silence. float32 mono 16 kHz, changed in place.

An SNR is that of the speech while there is speech: its level is the RMS over the 20 ms blocks within 30 dB of the loud ones (the 95th percentile),
so that pauses do not count as speech. `bad` is 0 for clean sound to 1 for useless.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.ticks import SAMPLE_RATE_HZ

Sound = NDArray[np.float32]

KINDS = ("noise", "babble", "reverb", "silence")
BLOCK = SAMPLE_RATE_HZ // 50
_PERIOD = 1 << 19
"""Noise repeats after so many samples (33 s), without a seam."""
_LOWEST_HZ = 50.0


def speech_level(samples: Sound) -> float:
    """RMS over the blocks with speech, see above; 0 for silence and for nothing."""
    whole = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK) if len(samples) >= BLOCK else samples.reshape(1, -1)
    if not whole.size:
        return 0.0
    power = np.square(whole, dtype=np.float64).mean(1)
    return float(np.sqrt(power[power >= 1e-3 * np.percentile(power, 95)].mean()))


def coloured(count: int, slope: float, rng: np.random.Generator) -> Sound:
    """`count` samples of noise whose power falls with frequency to the power `slope` (0 white, 1 pink, 2 brown); RMS 1, nothing below 50 Hz."""
    period = min(_PERIOD, 1 << max(8, (count - 1).bit_length()))
    hz = np.fft.rfftfreq(period, 1 / SAMPLE_RATE_HZ)
    shape = np.where(hz >= _LOWEST_HZ, np.maximum(hz, _LOWEST_HZ) ** (-slope / 2), 0.0)
    tile = np.fft.irfft(np.fft.rfft(rng.standard_normal(period)) * shape, period)
    noise = np.tile(tile, -(-count // period))[:count]
    return (noise / max(1e-12, float(np.sqrt(np.square(noise).mean())))).astype(np.float32) if count else noise.astype(np.float32)


def add(samples: Sound, noise: Sound, level: float, snr_db: float) -> float:
    """Add `noise` (RMS 1) `snr_db` below speech of `level`. Does not clip: see `fitted`."""
    samples += noise * np.float32(level * 10.0 ** (-snr_db / 20.0))
    return float(np.clip((12.0 - snr_db) / 20.0, 0.0, 1.0))


def babble(samples: Sound, count: int, rng: np.random.Generator) -> Sound:
    """`count` samples of several voices at once, made of `samples` at random places, backwards; RMS 1."""
    if not len(samples) or not count:
        return np.zeros(count, np.float32)
    backwards = np.tile(samples[::-1], -(-count // len(samples)) + 1)
    voices = np.sum([backwards[start : start + count] for start in rng.integers(0, len(samples), int(rng.integers(3, 8)))], axis=0)
    return np.asarray(voices / max(1e-12, float(np.sqrt(np.square(voices, dtype=np.float64).mean()))), np.float32)


def reverberate(samples: Sound, rt60_s: float, wet: float, rng: np.random.Generator) -> float:
    """A room whose echo falls by 60 dB in `rt60_s`; `wet` of the energy is echo. The level stays as it is."""
    length = max(2, min(len(samples), round(rt60_s * SAMPLE_RATE_HZ)))
    echo = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / max(1, round(rt60_s * SAMPLE_RATE_HZ)))
    echo *= np.sqrt(wet) / np.sqrt(np.square(echo).sum())
    echo[0] += np.sqrt(1.0 - wet)
    if len(samples):
        size = 1 << (len(samples) + length).bit_length()
        after = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echo, size), size)[: len(samples)]
        samples[:] = after * np.sqrt(np.square(samples, dtype=np.float64).sum() / max(1e-20, float(np.square(after).sum())))
    return float(0.4 * wet * min(1.0, rt60_s))


def spoil(samples: Sound, level: float, voices: Sound, rng: np.random.Generator) -> float:
    """One kind of a severity drawn at random, in place: what training hears. `level` is that of the speech, `voices` what babble is made of."""
    kind = KINDS[rng.choice(len(KINDS), p=(0.5, 0.15, 0.15, 0.2))]
    if kind == "silence":
        samples[:] = 0.0
        return 1.0
    if kind == "reverb":
        return reverberate(samples, float(rng.uniform(0.2, 1.2)), float(rng.uniform(0.3, 0.95)), rng)
    noise = coloured(len(samples), float(rng.uniform(-0.5, 2.0)), rng) if kind == "noise" else babble(voices, len(samples), rng)
    return add(samples, noise, level, float(rng.uniform(-10.0, 25.0)))


def fitted(samples: Sound) -> NDArray[np.int16]:
    """int16 of a recorder that turns itself down rather than clip, so that an SNR stays what it is."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    gain = np.float32(min(32768.0, 32767.0 / max(peak, 1e-12)))
    return np.asarray(np.rint(samples * gain), np.int16)


def stretches(seconds: float, chance: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """[start, end) in seconds of what is spoiled: time is cut into stretches of 1 to 40 s (log-uniform), each taken with `chance`."""
    taken, at = [], -float(rng.uniform(0.0, 10.0))
    while at < seconds:
        length = float(np.exp(rng.uniform(np.log(1.0), np.log(40.0))))
        if rng.random() < chance and at + length > 0:
            taken.append((max(0.0, at), min(seconds, at + length)))
        at += length
    return taken


def samples_corrupted(samples: Sound, chance: float, rng: np.random.Generator) -> tuple[Sound, NDArray[np.float32]]:
    """(a copy of float32 [S] with spoiled stretches, bad float32 [S]), each stretch with `chance`: what the encoder is trained on."""
    out, bad = samples.copy(), np.zeros(len(samples), np.float32)
    level = speech_level(samples)
    for start_s, end_s in stretches(len(samples) / SAMPLE_RATE_HZ, chance, rng):
        part = slice(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ))
        bad[part] = spoil(out[part], level, samples, rng)
    return out, bad
