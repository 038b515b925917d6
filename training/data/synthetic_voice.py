"""Synthesised speech: a voice (identity) speaks syllables whose pitch, level, rate and tilt follow arousal, and whose timbre leans to valence.

Source and filter, additively: harmonics of a gliding f0, weighted by a spectral tilt and four moving formants, plus shaped noise for breath
and consonants. Float32 at 16 kHz; control tracks at 100 Hz, so 160 samples per control point.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.ticks import SAMPLE_RATE_HZ

from .synthetic_latent import CONTROL_HZ, Track

HOP = SAMPLE_RATE_HZ // CONTROL_HZ
_BLOCK = 1000  # control points worked on at once: memory does not grow with a video's length
_ECHO = 2400
_VOWELS = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (390, 1990, 2550),
    (270, 2290, 3010),
    (570, 840, 2410),
    (440, 1020, 2240),
    (300, 870, 2240),
    (640, 1190, 2390),
)


@dataclass(frozen=True)
class Voice:
    """One person's voice."""

    f0_hz: float
    tract: float
    """Formants scale with this (1 = adult male)."""
    tilt_db: float
    """Per octave, at rest."""
    rate_hz: float
    """Syllables a second, at rest."""
    breath_db: float
    lilt: float
    """Semitones of intonation."""
    pause_s: float


def draw_voice(rng: np.random.Generator) -> Voice:
    """A new voice; short tracts go with high pitch."""
    height = rng.uniform(0, 1)
    return Voice(
        f0_hz=float(95 * 2 ** (1.15 * height + rng.normal(0, 0.08))),
        tract=float(0.97 + 0.2 * height + rng.normal(0, 0.02)),
        tilt_db=float(rng.normal(-11.0, 1.0)),
        rate_hz=float(rng.uniform(3.6, 4.8)),
        breath_db=float(rng.uniform(-34, -26)),
        lilt=float(rng.uniform(0.6, 1.6)),
        pause_s=float(rng.uniform(0.25, 0.5)),
    )


@dataclass(frozen=True)
class Speech:
    """Control tracks [n] of one person speaking; `opening` (0..1) is what the mouth shows."""

    f0_hz: Track
    level: Track
    formants: NDArray[np.float32]
    """[n, 4] Hz."""
    tilt_db: Track
    breath: Track
    hiss: Track
    opening: Track


def speak(voice: Voice, arousal: Track, timbre: Track, talking: NDArray[np.bool_], rng: np.random.Generator) -> Speech:
    """Say syllables where `talking` is on. `arousal` drives pitch, level, rate and tilt; `timbre` (weakly valence) formants, breath and melody."""
    n = len(arousal)
    level, hiss, opening = np.zeros(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    pitch = np.zeros(n, np.float32)
    targets = np.tile(np.array(_VOWELS[rng.integers(len(_VOWELS))], np.float32), (n, 1))
    at, phrase, place = int(rng.integers(0, 60)), int(rng.integers(4, 11)), 0
    while at < n:
        if not talking[at]:
            at, place = at + 5, 0
            continue
        a = float(arousal[at])
        length = max(8, int(CONTROL_HZ / (voice.rate_hz * (1 + 0.42 * a) * rng.uniform(0.85, 1.18))))
        onset = max(2, int(length * rng.uniform(0.15, 0.3)))
        end = min(at + length, n)
        shape = np.sin(np.pi * np.clip((np.arange(end - at) - onset * 0.6 + 1) / (length - onset * 0.6 + 1), 0, 1)) ** 0.6
        stress = rng.uniform(0.6, 1.0)
        level[at:end] = shape * stress
        opening[at:end] = shape * stress
        targets[at:end] = _VOWELS[rng.integers(len(_VOWELS))]
        pitch[at:end] = voice.lilt * (1 + 0.5 * float(timbre[at])) * rng.normal(0, 1) + 1.5 * (0.5 - place / phrase) + rng.normal(0, 0.4)
        if rng.random() < 0.45:
            hiss[at : min(at + onset, n)] = rng.uniform(0.3, 1.0)
        at, place = end, place + 1
        if place >= phrase:
            at += int(CONTROL_HZ * voice.pause_s * rng.uniform(0.6, 1.6) * (1.15 - 0.55 * a))
            phrase, place = int(rng.integers(4, 11)), 0
    semitones = 5.0 * arousal + _smooth(pitch, 9)
    formants = _smooth(targets, 7) * voice.tract * (1 + 0.08 * timbre)[:, None]
    return Speech(
        f0_hz=(voice.f0_hz * 2 ** (semitones / 12)).astype(np.float32),
        level=_smooth(level, 3) * (10 ** (6.5 * arousal / 20)).astype(np.float32),
        formants=np.concatenate([formants, np.full((n, 1), 3600 * voice.tract, np.float32)], axis=1).astype(np.float32),
        tilt_db=(voice.tilt_db + 3.8 * arousal).astype(np.float32),
        breath=_smooth(level, 5) * 10 ** ((voice.breath_db - 8 * timbre) / 20).astype(np.float32),
        hiss=_smooth(hiss, 3) * 10 ** ((-15 + 3 * arousal) / 20).astype(np.float32),
        opening=_smooth(opening, 7),
    )


def render(speech: Speech, rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a Speech, float32 [(n - 1) * 160], about -26 dB below full scale on average."""
    n = len(speech.level) - 1
    f0_hz = speech.f0_hz * (1 + 0.006 * _smooth(rng.standard_normal(n + 1, dtype=np.float32), 3))
    out = np.zeros((n + 1) * HOP, np.float32)
    turns = 0.0
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        part = Speech(*(getattr(speech, field.name)[start : end + 1] for field in fields(Speech)))
        voiced, turns = _harmonics(part, f0_hz[start : end + 1], turns)
        out[start * HOP : end * HOP] += voiced
        out[start * HOP : (end + 1) * HOP] += _shaped_noise(part, rng)
    return np.asarray(0.05 * out[: n * HOP], np.float32)


def _harmonics(speech: Speech, f0_hz: Track, turns: float) -> tuple[NDArray[np.float32], float]:
    """The voiced part, float32 [(n - 1) * 160], and the phase (in turns) that the next block begins with."""
    n = len(speech.level) - 1
    ramp = (np.arange(HOP, dtype=np.float32) / HOP)[None]

    def to_audio(track: NDArray[np.floating]) -> NDArray[np.float32]:
        track = track.astype(np.float32)
        return np.asarray((track[:-1, None] + (track[1:] - track[:-1])[:, None] * ramp).reshape(-1), np.float32)

    angle = turns + np.cumsum(to_audio(f0_hz).astype(np.float64) / SAMPLE_RATE_HZ)
    phase = (2 * np.pi * (angle % 1.0)).astype(np.float32)
    out = np.zeros(n * HOP, np.float32)
    voiced = speech.level > 1e-4
    for h in range(1, int(7400 / max(60.0, float(speech.f0_hz.min()))) + 1):
        f = h * speech.f0_hz
        gain = np.where((f < 7400) & voiced, _response(f, speech.formants) * h ** (speech.tilt_db / 6.02) * speech.level, 0)
        if gain.max() > 1e-5:
            out += to_audio(gain) * np.sin(h * phase)
    return out, float(angle[-1] % 1.0)


def _response(f: NDArray[np.floating], formants: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of four resonances at frequencies f [n], formants [n, 4]; about 1 at low frequencies."""
    out = np.ones_like(f)
    for i, width in enumerate((80.0, 100.0, 140.0, 200.0)):
        ratio = f / formants[:, i]
        out = out / np.sqrt((1 - ratio**2) ** 2 + (ratio * width / formants[:, i]) ** 2 + 1e-3)
        # higher poles are left out of the source's tilt: flatten what each resonance removes above itself
        out = out * np.where(ratio > 1, ratio**1.2, 1.0)
    return out.astype(np.float32)


def _shaped_noise(speech: Speech, rng: np.random.Generator) -> NDArray[np.float32]:
    """White noise through breath (formant-shaped) and hiss (high-passed), float32 [n * 160]: 320-sample Hann windows, half overlapped."""
    n = len(speech.level) - 1
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    noise = rng.standard_normal((n + 1) * HOP, dtype=np.float32)
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(noise, 2 * HOP)[::HOP] * window, axis=1)
    f = np.fft.rfftfreq(2 * HOP, 1 / SAMPLE_RATE_HZ).astype(np.float32)
    high = 1 / (1 + np.exp(-(f - 3800) / 500))
    shape = (speech.hiss[:n, None] * high[None]).astype(np.float32)
    for j in range(len(f)):
        shape[:, j] += speech.breath[:n] * _response(np.full(n, f[j], np.float32), speech.formants[:n]) * (f[j] / 1000 if f[j] < 1000 else 1.0)
    frames = np.fft.irfft(spectrum * shape, axis=1).astype(np.float32)
    out = np.zeros((n + 1) * HOP, np.float32)
    out[:-HOP] += frames[:, :HOP].reshape(-1)
    out[HOP:] += frames[:, HOP:].reshape(-1)
    return out


@dataclass(frozen=True)
class Room:
    """Where a microphone stands."""

    gain: float
    noise: float
    hum: float
    wet: float


def draw_room(rng: np.random.Generator) -> Room:
    return Room(
        gain=10 ** (rng.uniform(-6, 6) / 20),
        noise=10 ** (rng.uniform(-72, -54) / 20),
        hum=10 ** (rng.uniform(-76, -58) / 20),
        wet=rng.uniform(0.02, 0.25),
    )


def record(sound: NDArray[np.float32], room: Room, noise: Track, mute: Track, rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound as recorded: echo, hum and noise of the room; `noise` and `mute` (0..1 at 100 Hz) are corrupted stretches."""
    echo = rng.standard_normal(_ECHO).astype(np.float32) * np.exp(-np.arange(_ECHO) / 500).astype(np.float32)
    echo *= room.wet / np.sqrt(np.sum(echo**2))
    echo[0] += 1
    block = _BLOCK * HOP
    size = 1 << (block + _ECHO).bit_length()
    spectrum = np.fft.rfft(echo, size)
    out = np.zeros(len(sound) + _ECHO, np.float32)
    beat = rng.uniform(0, 6)
    for start in range(0, len(sound), block):
        dry = sound[start : start + block]
        end = start + len(dry)
        out[start : end + _ECHO] += room.gain * np.fft.irfft(np.fft.rfft(dry, size) * spectrum, size)[: len(dry) + _ECHO].astype(np.float32)
        at = np.arange(start, end)
        t = at / SAMPLE_RATE_HZ
        soft = rng.standard_normal(len(dry) + 1, dtype=np.float32)
        soft = soft[1:] + np.float32(0.9) * soft[:-1]
        loud = np.interp(at / HOP, np.arange(len(noise)), noise)
        out[start:end] += ((room.noise + loud * 0.13 * (1 + 0.5 * np.sin(2 * np.pi * 3.1 * t + beat))) * soft).astype(np.float32)
        out[start:end] += (room.hum * np.sin(2 * np.pi * 50 * t)).astype(np.float32)
        out[start:end] *= (1 - np.interp(at / HOP, np.arange(len(mute)), mute)).astype(np.float32)
    return np.clip(out[: len(sound)], np.float32(-0.99), np.float32(0.99))


def _smooth(track: NDArray[np.floating], width: int) -> NDArray[np.float32]:
    """Moving average along the first axis, edges repeated."""
    pad = [(width // 2, width - 1 - width // 2)] + [(0, 0)] * (track.ndim - 1)
    total = np.cumsum(np.concatenate([np.zeros((1, *track.shape[1:])), np.pad(track, pad, mode="edge").astype(np.float64)]), axis=0)
    smoothed: NDArray[np.float32] = ((total[width:] - total[:-width]) / width).astype(np.float32)
    return smoothed
