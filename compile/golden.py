"""Golden windows: synthetic faces and sound from a fixed seed, never from a corpus, whose outputs let a device check itself.

Faces are coarse random blocks that change ten ticks at a time, sound is a harmonic tone that changes every second: meaningless to look
at, wide in their values, small when compressed. One window is whole, one starts late and loses its face, one loses its sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.calibration.offline import Offline

SEED = 20260311
TOLERANCE = {"fp32": 1e-3, "int8-cpu": 0.05, "int8-trt": 0.05}
"""Float kernels of two machines differ in the last bits (1e-5 here). Integer kernels round where the machine's instructions do, and x86
without VNNI saturates sums of two products: some hundredths of the range, far below what a wrong file does."""

_BLOCK, _HOLD, _PERIOD, _SECOND = 8, 10, 160, 16_000


def inputs(window: int, samples: int, size: int, seed: int = SEED) -> dict[str, NDArray[Any]]:
    """`faces` uint8 [3, window, size, size, 3], `samples` float32 [3, samples], `visual_mask` and `audio_mask` bool [3, window]."""
    rng = np.random.default_rng(seed)
    count = 3
    visual_mask, audio_mask = np.ones((2, count, window), np.bool_)
    late, third = window * 2 // 5, window // 3
    visual_mask[1, :late] = audio_mask[1, :late] = False
    visual_mask[1, -third:-6] = False
    visual_mask[2, :third] = False
    audio_mask[2, -third:] = False
    blocks = rng.integers(0, 256, (count, -(-window // _HOLD), -(-size // _BLOCK), -(-size // _BLOCK), 3), np.uint8)
    faces = blocks.repeat(_HOLD, 1)[:, :window].repeat(_BLOCK, 2).repeat(_BLOCK, 3)[:, :, :size, :size]
    seconds = -(-samples // _SECOND)
    phase = 2 * np.pi * np.arange(_PERIOD) / _PERIOD
    tones = np.zeros((count, seconds, _PERIOD))
    for harmonic in (1, 2, 3, 5, 8, 13, 21, 34):
        tones += rng.normal(size=(count, seconds, 1)) / harmonic * np.sin(harmonic * phase + rng.uniform(0, 6.28, (count, seconds, 1)))
    tones *= 10 ** rng.uniform(-3, -0.3, (count, seconds, 1)) / np.abs(tones).max(2, keepdims=True)
    sound = np.round(np.tile(tones, _SECOND // _PERIOD).reshape(count, -1)[:, :samples] * 32768) / 32768
    edges = np.arange(window + 1) * samples // window
    for clip, mask in zip(sound, audio_mask, strict=True):
        for tick in np.flatnonzero(~mask):
            clip[edges[tick] : edges[tick + 1]] = 0
    return {
        "faces": faces * visual_mask[:, :, None, None, None],
        "samples": sound.astype(np.float32),
        "visual_mask": visual_mask,
        "audio_mask": audio_mask,
    }


def write(path: Path, offline: Offline, arrays: dict[str, NDArray[Any]], precisions: tuple[str, ...]) -> None:
    """Write `arrays` (see `inputs`) and, per precision P, `estimates_P`, `temporal_P` and `modality_P` as the runtime's engines give them."""
    kept: dict[str, Any] = dict(arrays)
    for precision in precisions:
        windows = zip(*(arrays[name] for name in ("faces", "samples", "visual_mask", "audio_mask")), strict=True)
        rows = [offline.window(faces, samples, visual, audio, precision) for faces, samples, visual, audio in windows]
        kept.update({f"{name}_{precision}": np.stack([row[name] for row in rows]) for name in rows[0]})
    np.savez_compressed(path, **kept)
