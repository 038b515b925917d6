"""What spoils a face crop: something in front of it, blur, darkness. uint8 [n, H, H, 3] faces that follow each other in time, changed in place.

Every function takes a stretch of faces of one person, so that an occluder drifts over it instead of flickering, and says how much it takes away:
`bad`, 0 for a clean face to 1 for a useless one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Faces = NDArray[np.uint8]

KINDS = ("occlusion", "blur", "dark")
DRIFT = 30
"""Faces between two places that an occluder is drawn for (about a second)."""
_NOISE = 1 << 16


def occlude(faces: Faces, share: float, rng: np.random.Generator, round_edge: bool = False) -> float:
    """Put one opaque object, of `share` of the crop's area, in front of all `faces`; it drifts from place to place, wholly inside the crop.

    A rectangle covers the share to the pixel where a whole number of rows and columns can; `round_edge` makes it an ellipse, of up to pi / 4.
    """
    size = faces.shape[1]
    if round_edge:
        share = min(share, np.pi / 4)
        box = share * 4 / np.pi
        height = int(np.clip(round(size * np.sqrt(box) * np.exp(rng.normal(0.0, 0.15))), max(1, np.ceil(size * box)), size))
        width = int(np.clip(round(size * size * box / height), 1, size))
    else:
        height, width = _sides(size, round(share * size * size), rng)
    object_ = _object(height, width, rng)
    alpha = np.ones((height, width), np.bool_)
    if round_edge:
        rows, columns = np.mgrid[0:height, 0:width]
        alpha = ((rows + 0.5 - height / 2) / (height / 2)) ** 2 + ((columns + 0.5 - width / 2) / (width / 2)) ** 2 <= 1.0
    tops, lefts = _drift(len(faces), size - height, rng), _drift(len(faces), size - width, rng)
    for face, top, left in zip(faces, tops, lefts, strict=True):
        part = face[top : top + height, left : left + width]
        if round_edge:
            part[alpha] = object_[alpha]
        else:
            part[...] = object_
    return float(np.clip((share - 0.1) / 0.5, 0.0, 1.0))


def _sides(size: int, area: int, rng: np.random.Generator) -> tuple[int, int]:
    """(rows, columns) of a rectangle of `area` pixels within size x size: exactly so where that is possible, else with the nearest area."""
    exact = [(h, area // h) for h in range(1, size + 1) if area % h == 0 and area // h <= size and max(h, area // h) <= 3 * min(h, area // h)]
    if exact:
        return exact[int(rng.integers(len(exact)))]
    height = int(rng.integers(max(1, -(-area // size)), size + 1))
    return height, int(np.clip(round(area / height), 1, size))


def _object(height: int, width: int, rng: np.random.Generator) -> Faces:
    """A surface of one colour with shading and a little texture: uint8 [height, width, 3]."""
    ramp = np.linspace(-0.5, 0.5, height)[:, None, None] * rng.normal(0.0, 30.0) + np.linspace(-0.5, 0.5, width)[None, :, None] * rng.normal(
        0.0, 30.0
    )
    surface = rng.uniform(25.0, 230.0, 3) + ramp + rng.normal(0.0, rng.uniform(1.0, 10.0), (height, width, 1))
    return np.clip(np.rint(surface), 0, 255).astype(np.uint8)


def _drift(count: int, room: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` offsets within 0 .. room that go straight from one random place to the next."""
    places = rng.uniform(0.0, room, count // DRIFT + 2)
    return np.rint(np.interp(np.arange(count) / DRIFT, np.arange(len(places)), places)).astype(np.int64)


def blur(faces: Faces, sigma_px: float) -> float:
    """Out of focus: a Gaussian of `sigma_px` pixels of the stored crop."""
    for face in faces:
        cv2.GaussianBlur(face, (0, 0), sigma_px, dst=face, borderType=cv2.BORDER_REPLICATE)
    return float(np.clip((sigma_px - 0.7) / 2.5, 0.0, 1.0))


def darken(faces: Faces, gain: float, noise: float, rng: np.random.Generator) -> float:
    """Too little light: brightness times `gain`, and a camera's noise of deviation `noise` grey levels, before the values are rounded."""
    table = (np.arange(256) * gain).astype(np.float32)
    other = min(_NOISE, faces.size)
    grains = rng.normal(0.0, noise, other + faces[:1].size).astype(np.float32)
    starts = rng.integers(0, other + 1, len(faces))
    for face, start in zip(faces, starts, strict=True):
        face[...] = np.clip(np.rint(table[face] + grains[start : start + face.size].reshape(face.shape)), 0, 255).astype(np.uint8)
    return float(np.clip((-np.log2(gain) - 1.0) / 3.0, 0.0, 1.0))


def spoil(faces: Faces, rng: np.random.Generator) -> float:
    """One kind of a severity drawn at random, in place: what training sees. Returns `bad`."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "occlusion":
        return occlude(faces, float(rng.uniform(0.12, 0.9)), rng, round_edge=bool(rng.random() < 0.5))
    if kind == "blur":
        return blur(faces, float(rng.uniform(0.8, 4.5)))
    return darken(faces, float(2.0 ** -rng.uniform(1.0, 6.0)), float(rng.uniform(0.5, 5.0)), rng)


def faces_corrupted(faces: Faces, chance: float, rng: np.random.Generator) -> tuple[Faces, NDArray[np.float32]]:
    """(a copy of uint8 [n, H, H, 3] in which each face is spoiled with `chance`, bad float32 [n]): single faces, as the encoder is trained on."""
    out, bad = faces.copy(), np.zeros(len(faces), np.float32)
    for i in np.flatnonzero(rng.random(len(faces)) < chance):
        bad[i] = spoil(out[i : i + 1], rng)
    return out, bad
