"""Crop: libsage against the usual cv2 chain, and against copying the box, on boxes of 720p frames.

Every variant gets the same frames and boxes in turn, so that a slow moment hits all of them. The cv2 chain is what people write: slice the box,
`cv2.resize` with INTER_AREA, `cvtColor` to RGB, float32 / 255, minus mean, over std, transpose to contiguous [3, h, w]. Boxes have the same
whole-pixel corners for both. `libsage_over_cv2` is the median over the cases that are gated: ratios that are no integers, where cv2 has no fast path.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import interleaved, summary

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)
GATED = ((120, 48), (200, 48), (333, 48), (400, 112))
SHOWN = ((96, 48), (144, 48), (192, 48), (336, 112))
"""Whole ratios, and 96 x 96 -> 48 x 48 where cv2 is at its best: printed, not gated."""
FRAMES = 8


def _cv2_chain(frame: NDArray[np.uint8], box: tuple[int, int, int, int], size: int) -> NDArray[np.float32]:
    import cv2

    x, y, w, h = box
    face = cv2.resize(frame[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    face = cv2.cvtColor(face, cv2.COLOR_BGR2RGB)
    scaled = (face.astype(np.float32) / 255.0 - _MEAN) / _STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _variants(frames: NDArray[np.uint8], boxes: list[tuple[int, int, int, int]], side: int, size: int) -> dict[str, Callable[[int], object]]:
    from sage_edge.runtime.native import crop

    out = np.empty((3, size, size), np.float32)
    copied = np.empty((side, side, 3), np.uint8)

    def libsage(i: int) -> None:
        crop(frames[i % FRAMES], boxes[i % FRAMES], out, MEAN, STD, "bgr")

    def chain(i: int) -> NDArray[np.float32]:
        return _cv2_chain(frames[i % FRAMES], boxes[i % FRAMES], size)

    def memcpy(i: int) -> None:
        x, y, w, h = boxes[i % FRAMES]
        np.copyto(copied, frames[i % FRAMES][y : y + h, x : x + w])

    for i in range(len(frames)):
        libsage(i)
        difference = float(np.abs(out - chain(i)).max())
        if difference > 1.5 / 255 / min(STD):  # cv2 rounds to whole levels on its way; more would not be the same picture
            raise SystemExit(f"crop: libsage and cv2 differ by {difference:.4f} on box {boxes[i]} -> {size}; nothing was measured")
    return {"libsage": libsage, "cv2": chain, "memcpy": memcpy}


def run(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """`variants`: {VARIANT: {CASE: {median, min, n}}}, microseconds; `ratios`: the median over the gated cases, and each case's own."""
    import cv2

    from sage_edge.runtime.native.library import load

    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (FRAMES, 45, 80, 3), dtype=np.uint8)
    frames = np.stack([cv2.resize(f, (1280, 720), interpolation=cv2.INTER_CUBIC) for f in rough])
    frames = np.clip(frames.astype(np.int16) + rng.integers(-8, 9, frames.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    table: dict[str, dict[str, dict[str, float]]] = {"libsage": {}, "cv2": {}, "memcpy": {}}
    ratios: dict[str, float] = {}
    for side, size in GATED + SHOWN:
        corners = rng.integers(0, (1280 - side, 720 - side), (FRAMES, 2))
        boxes = [(int(x), int(y), side, side) for x, y in corners]
        case = f"{side}_to_{size}"
        for name, seconds in interleaved(_variants(frames, boxes, side, size), n, FRAMES).items():
            table[name][case] = summary(seconds)
        for other in ("cv2", "memcpy"):
            ratios[f"{case}_libsage_over_{other}"] = round(table[other][case]["median"] / table["libsage"][case]["median"], 3)
    gated = [ratios[f"{side}_to_{size}_libsage_over_cv2"] for side, size in GATED]
    return {
        "unit": "us",
        "variants": table,
        "ratios": {"libsage_over_cv2": round(statistics.median(gated), 3), **ratios},
        "notes": {
            "timed": "one face, through the Python binding",
            "gated": [f"{side}_to_{size}" for side, size in GATED],
            "cv2_threads": cv2.getNumThreads(),
            "instructions": {1: "plain C", 3: "AVX2 + FMA", 5: "NEON"}.get(load().sage_crop_variants(), "other"),
        },
    }
