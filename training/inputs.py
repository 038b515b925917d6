"""Faces as the model takes them. No torch.

Stored crops are uint8 RGB [n, 48, 48, 3]; the model sees 40x40 of them (the centre; in training anywhere), / 255, - mean, / std, float32 CHW.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .presets import Preset


def centre(preset: Preset) -> int:
    """Offset of the central crop, on both axes."""
    return (preset.face_size - preset.input_size) // 2


def normalise(faces: NDArray[np.uint8], preset: Preset) -> NDArray[np.float32]:
    """uint8 RGB [n, h, w, 3] -> float32 [n, 3, h, w]."""
    std = np.asarray(preset.std, np.float32)
    scale = 1.0 / (255.0 * std)
    shift = np.asarray(preset.mean, np.float32) / std
    out = faces.astype(np.float32)
    out *= scale
    out -= shift
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


def central(faces: NDArray[np.uint8], preset: Preset) -> NDArray[np.float32]:
    """Stored crops [n, 48, 48, 3] -> the model's input [n, 3, 40, 40], centre crop."""
    low, size = centre(preset), preset.input_size
    return normalise(faces[:, low : low + size, low : low + size], preset)


def augmented(faces: NDArray[np.uint8], preset: Preset, rng: np.random.Generator, light: float = 0.0) -> NDArray[np.float32]:
    """As `central`, but a random crop, a random horizontal flip and, for `light` > 0, random gain and offset per face and colour.

    Gains are exp of a normal of deviation `light`; offsets are normal with the same deviation, in units of the normalised values; each
    colour's own part is half of that.
    """
    n, size = len(faces), preset.input_size
    slack = preset.face_size - size
    tops, lefts, flips = rng.integers(0, slack + 1, n), rng.integers(0, slack + 1, n), rng.random(n) < 0.5
    crops = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        crop = faces[i, tops[i] : tops[i] + size, lefts[i] : lefts[i] + size]
        crops[i] = crop[:, ::-1] if flips[i] else crop
    return lit(normalise(crops, preset), rng, light)


def lit(x: NDArray[np.float32], rng: np.random.Generator, light: float) -> NDArray[np.float32]:
    """Random gain and offset per face and colour on float32 [n, 3, h, w], in place."""
    if light > 0:
        n = len(x)
        grey, colour = rng.normal(0.0, light, (2, n, 1, 1, 1)), rng.normal(0.0, light / 2, (2, n, 3, 1, 1))
        x *= np.exp(grey[0] + colour[0]).astype(np.float32)
        x += (grey[1] + colour[1]).astype(np.float32)
    return x
