"""Corrupted trials: the fixed cells that reliability is evaluated on, and the random views of a trial that training sees. No torch.

    worse = corrupted(trial, CELLS["snr0"], seed=0)          # the same trial, other sound; deterministic
    view = training_view(trial, 40, seed=0, number=3, corrupt=0.5)

Masks stay as they are: nothing tells a model that a sense is spoiled, but in `noface`, where the finder finds no face. Noise of the cells is pink,
against the level of the speech (`corruption_sound.speech_level`); occluders cover a share of the stored crop; a positive shift has the sound late.
Training draws kinds and severities at random, other realisations than the cells' always. It sees noise of all colours and babble from -10 to 25 dB,
reverberation, silence, rectangles and ellipses in front of 12 to 90 % of the crop, blur, darkness and shifts of up to 0.6 s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.ticks import NS_PER_S, SAMPLE_RATE_HZ

from . import corruption_faces as on_faces
from . import corruption_sound as on_sound
from .corruption_faces import faces_corrupted
from .corruption_sound import samples_corrupted, stretches
from .store import Trial

__all__ = ["CELLS", "Cell", "View", "corrupted", "faces_corrupted", "samples_corrupted", "training_view"]

Sample = TypeVar("Sample", bound=np.generic)

SUITE_SLOPE = 1.0
"""Pink."""
BLUR_PX, DARK_GAIN, DARK_NOISE = 3.0, 0.06, 2.0
MISALIGNED_S = 0.6
"""Greatest shift of a training view, either way."""


@dataclass(frozen=True)
class Cell:
    """One column of the evaluation suite."""

    name: str
    modality: str
    """What is spoiled: "audio", "visual", "shift" (one against the other) or "none"."""
    severity: float = 0.0
    """SNR in dB, occluded share, blur in pixels, gain, or milliseconds."""
    masked: bool = False
    """Whether a mask says so."""


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("clean", "none"),
        *(Cell(f"snr{db}", "audio", float(db)) for db in (20, 10, 0, -5)),
        Cell("silence", "audio"),
        *(Cell(f"occlusion{percent}", "visual", percent / 100) for percent in (25, 50, 75)),
        Cell("blur", "visual", BLUR_PX),
        Cell("dark", "visual", DARK_GAIN),
        Cell("noface", "visual", masked=True),
        *(Cell(f"shift{ms:+d}", "shift", float(ms)) for ms in (100, -100, 250, -250, 500, -500)),
    )
}


@dataclass(frozen=True, eq=False)
class View:
    """A trial as training sees it once."""

    trial: Trial
    """With other faces and sound; the crops are as large as they are stored."""
    flip: bool
    """Whether the clip is mirrored, after cropping."""
    top: int
    left: int
    """Where the model's crop begins in each stored one."""
    visual_bad: NDArray[np.float32]
    """[n_ticks] 0 clean .. 1 useless."""
    audio_bad: NDArray[np.float32]


def _rng(*key: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def corrupted(trial: Trial, cell: Cell, seed: int) -> Trial:
    """`trial` under `cell`, the same one for the same (seed, trial.name, cell.name). What it does not change is the original's own array."""
    rng = _rng(seed, trial.name, cell.name)
    if cell.name == "noface":
        return replace(trial, faces=np.zeros((0, *trial.faces.shape[1:]), np.uint8), frame_face=np.full_like(trial.frame_face, -1))
    if cell.modality == "visual":
        faces = np.array(trial.faces)
        if cell.name == "blur":
            on_faces.blur(faces, cell.severity)
        elif cell.name == "dark":
            on_faces.darken(faces, cell.severity, DARK_NOISE, rng)
        else:
            on_faces.occlude(faces, cell.severity, rng)
        return replace(trial, faces=faces)
    if cell.name == "silence":
        return replace(trial, audio=np.zeros_like(trial.audio))
    if cell.modality == "audio":
        samples = trial.samples(0, len(trial.audio))
        on_sound.add(samples, on_sound.coloured(len(samples), SUITE_SLOPE, rng), on_sound.speech_level(samples), cell.severity)
        return replace(trial, audio=on_sound.fitted(samples))
    if cell.modality == "shift":
        return replace(trial, audio=shifted(trial.audio, round(cell.severity * SAMPLE_RATE_HZ / 1000)))
    return trial


def shifted(audio: NDArray[Sample], samples: int) -> NDArray[Sample]:
    """`audio` [N], `samples` later (earlier where negative); zeros come in, what goes beyond the end is lost."""
    out = np.zeros_like(audio)
    kept = max(0, len(audio) - abs(samples))
    if samples >= 0:
        out[len(audio) - kept :] = audio[:kept]
    else:
        out[:kept] = audio[len(audio) - kept :]
    return out


def training_view(trial: Trial, crop: int, seed: int, number: int, corrupt: float) -> View:
    """View `number` of `trial`, the same one for the same (seed, trial.name, number, corrupt): one flip and one place of the `crop` x `crop` pixels
    for the whole clip, and stretches of each sense, taken with chance `corrupt`, spoiled. View 0 is the clean centre crop.
    """
    slack, clean = trial.faces.shape[1] - crop, np.zeros(trial.n_ticks, np.float32)
    if number == 0:
        return View(trial, False, slack // 2, slack // 2, clean, clean.copy())
    rng = _rng(seed, trial.name, "view", number, corrupt)
    flip, (top, left) = bool(rng.random() < 0.5), rng.integers(0, slack + 1, 2)
    faces, visual_bad = _spoiled_faces(trial, corrupt, rng)
    audio, audio_bad = _spoiled_sound(trial, corrupt, rng)
    return View(replace(trial, faces=faces, audio=audio), flip, int(top), int(left), visual_bad, audio_bad)


def _seconds(trial: Trial) -> float:
    return (int(trial.frame_t_ns[-1]) + 1) / NS_PER_S


def _spoiled_faces(trial: Trial, corrupt: float, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    faces, bad = np.array(trial.faces), np.zeros(len(trial.faces) + 1, np.float32)
    for start_s, end_s in stretches(_seconds(trial), corrupt, rng):
        frames = slice(*np.searchsorted(trial.frame_t_ns, (start_s * NS_PER_S, end_s * NS_PER_S)))
        rows = trial.frame_face[frames]
        rows = rows[rows >= 0]
        if len(rows):
            # rows of a trial ascend with its frames
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            bad[part] = on_faces.spoil(faces[part], rng)
    return faces, bad[trial.tick_face]


def _spoiled_sound(trial: Trial, corrupt: float, rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    samples, bad = trial.samples(0, len(trial.audio)), np.zeros(trial.n_ticks, np.float32)
    level, original = on_sound.speech_level(samples), samples.copy()
    first = np.array([trial.first_sample(k) for k in range(trial.n_ticks)], np.int64)
    if rng.random() < corrupt / 2:
        samples = shifted(samples, int(rng.uniform(-MISALIGNED_S, MISALIGNED_S) * SAMPLE_RATE_HZ))
    for start_s, end_s in stretches(_seconds(trial), corrupt, rng):
        edges = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
        bad[slice(*np.searchsorted(first, edges))] = on_sound.spoil(samples[slice(*edges)], level, original, rng)
    return on_sound.fitted(samples), bad
