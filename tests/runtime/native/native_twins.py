"""NumPy twins of libsage, written from the definitions in sage.h: float64 crop, list-backed ring, list-backed window."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cell_weights(start: float, size: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """How much of each pixel is in each cell, [cells, pixels], rows sum to 1; what lies outside counts for the edge pixel."""
    edges = start + size * np.arange(cells + 1) / cells
    weights = np.zeros((cells, pixels))
    for cell, (a, b) in enumerate(itertools.pairwise(edges)):
        pixel = np.arange(np.floor(a), np.ceil(b))
        overlap = np.minimum(b, pixel + 1) - np.maximum(a, pixel)
        np.add.at(weights[cell], np.clip(pixel, 0, pixels - 1).astype(int), overlap)
    return weights / weights.sum(axis=1, keepdims=True)


def planes(pixels: NDArray[np.uint8], format: str) -> NDArray[np.float64]:
    """The frame as [H, W, 3] levels: R, G, B, or Y, U, V with each chroma sample on all the pixels that it covers."""
    if format == "rgb":
        return pixels.astype(np.float64)
    if format == "bgr":
        return pixels[..., ::-1].astype(np.float64)
    if format == "nv12":
        height = pixels.shape[0] * 2 // 3
        chroma = pixels[height:].reshape(height // 2, -1, 2)
        return np.dstack([pixels[:height], chroma.repeat(2, axis=0).repeat(2, axis=1)]).astype(np.float64)
    chroma = np.stack([pixels[:, 0::2, 1], pixels[:, 1::2, 1]], axis=-1)
    return np.dstack([pixels[..., 0], chroma.repeat(2, axis=1)]).astype(np.float64)


def mean_colours(pixels: NDArray[np.uint8], box: tuple[float, float, float, float], width: int, height: int, format: str) -> NDArray[np.float64]:
    """Mean R, G, B of each cell in 0 .. 255, [height, width, 3]."""
    x, y, w, h = box
    levels = planes(pixels, format)
    rows, columns = cell_weights(y, h, height, levels.shape[0]), cell_weights(x, w, width, levels.shape[1])
    mean = np.einsum("jr,rkc,ik->jic", rows, levels, columns, optimize=True)
    if format in ("rgb", "bgr"):
        return mean
    # ITU-R BT.601: Kr = 0.299, Kb = 0.114; luma 16 .. 235, chroma 16 .. 240
    luma, blue, red = (mean[..., 0] - 16) / 219, (mean[..., 1] - 128) / 224, (mean[..., 2] - 128) / 224
    r, b = luma + 2 * (1 - 0.299) * red, luma + 2 * (1 - 0.114) * blue
    g = (luma - 0.299 * r - 0.114 * b) / 0.587
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 255


def crop(pixels: NDArray[np.uint8], box: tuple[float, float, float, float], width: int, height: int, format: str = "rgb") -> NDArray[np.float64]:
    """[3, height, width], normalised by MEAN and STD as float32 holds them."""
    mean, std = np.array(MEAN, np.float32).astype(np.float64), np.array(STD, np.float32).astype(np.float64)
    return ((mean_colours(pixels, box, width, height, format) / 255 - mean) / std).transpose(2, 0, 1)


class Ring:
    """The last `capacity` of all samples ever pushed."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.samples, self.reached = capacity, [], 0

    def push(self, samples: list[float]) -> int:
        oldest = max(len(self.samples) - self.capacity, 0)
        self.samples += samples
        return sum(i >= self.reached for i in range(oldest, max(len(self.samples) - self.capacity, 0)))

    def read(self, start: int, n: int) -> tuple[list[float], int]:
        written = len(self.samples)
        held = [max(written - self.capacity, 0) <= i < written for i in range(start, start + n)]
        self.reached = max(self.reached, min(start + n, written))
        return [self.samples[i] if here else 0.0 for i, here in zip(range(start, start + n), held, strict=True)], sum(held)


class Window:
    """The last `rows` of all rows ever pushed, after `rows` rows of zeros."""

    def __init__(self, rows: int, dim: int) -> None:
        self.rows, self.pushed = rows, [np.zeros(dim, np.float32)] * rows

    def push(self, row: NDArray[np.float32]) -> None:
        self.pushed.append(row)

    def view(self) -> NDArray[np.float32]:
        return np.stack(self.pushed[-self.rows :])
