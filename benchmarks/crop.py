"""Crop: libsage against the usual cv2 chain, and against copying the box, on boxes of 720p frames.

Every variant gets the same frames and boxes in turn, so that a slow moment hits all of them. The cv2 chain is what people write: slice the box,
`cv2.resize` with INTER_AREA, `cvtColor` to RGB, float32 / 255, minus mean, over std, transpose to contiguous [3, h, w]. Boxes have the same
whole-pixel corners for both; each of 8 stays for an eighth of the calls, so that it is in the cache for all. `libsage_over_cv2` is the median
over the cases that are gated: ratios that are no integers, where cv2 has no fast path.

`cold`: 96 frames in turn (265 MB), a box anywhere in each, and no variant gets a frame that another has just read: a box is not in the caches of its
core; a last-level cache of hundreds of MB, or one that the 96 boxes alone fit into, may still have it. There `memcpy`, the bytes of the box and no
more, is the least that any crop has to do; `cold_libsage_over_memcpy` is again the median of the gated cases, 0.25 where libsage takes four times as
long.
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
FRAMES, COLD_FRAMES = 8, 96
WARM_UP = 8


def _cv2_chain(frame: NDArray[np.uint8], box: tuple[int, int, int, int], size: int) -> NDArray[np.float32]:
    import cv2

    x, y, w, h = box
    face = cv2.resize(frame[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
    face = cv2.cvtColor(face, cv2.COLOR_BGR2RGB)
    scaled = (face.astype(np.float32) / 255.0 - _MEAN) / _STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


Call = Callable[[int], object]
Boxes = list[tuple[int, int, int, int]]


def _variants(frames: NDArray[np.uint8], boxes: Boxes, size: int) -> dict[str, Call]:
    """Variants that take the number of a frame, whose box has the same number."""
    from sage_edge.runtime.native import crop

    side = boxes[0][2]
    out = np.empty((3, size, size), np.float32)
    copied = np.empty((side, side, 3), np.uint8)
    views = [frame[y : y + h, x : x + w] for frame, (x, y, w, h) in zip(frames, boxes, strict=True)]

    def libsage(i: int) -> None:
        crop(frames[i], boxes[i], out, MEAN, STD, "bgr")

    def chain(i: int) -> NDArray[np.float32]:
        return _cv2_chain(frames[i], boxes[i], size)

    def memcpy(i: int) -> None:
        np.copyto(copied, views[i])

    for i in range(FRAMES):
        libsage(i)
        difference = float(np.abs(out - chain(i)).max())
        if difference > 1.5 / 255 / min(STD):  # cv2 rounds to whole levels on its way; more would not be the same picture
            raise SystemExit(f"crop: libsage and cv2 differ by {difference:.4f} on box {boxes[i]} -> {size}; nothing was measured")
    return {"libsage": libsage, "cv2": chain, "memcpy": memcpy}


def _hot(call: Call, rounds: int) -> Call:
    return lambda k: call(k * FRAMES // rounds)


def _cold(call: Call, first: int) -> Call:
    return lambda k: call((first + k) % COLD_FRAMES)


def _frames(rng: np.random.Generator) -> NDArray[np.uint8]:
    """BGR [COLD_FRAMES, 720, 1280, 3]: rough pictures with noise, each a shifted one of the first FRAMES."""
    import cv2

    frames = np.empty((COLD_FRAMES, 720, 1280, 3), np.uint8)
    for i, frame in enumerate(frames):
        if i < FRAMES:
            rough = cv2.resize(rng.integers(0, 256, (45, 80, 3), dtype=np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC)
            frame[:] = np.clip(rough.astype(np.int16) + rng.integers(-8, 9, rough.shape, dtype=np.int16), 0, 255)
        else:
            frame[:] = np.roll(frames[i % FRAMES], 31 * i, axis=1)
    return frames


def run(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """`variants`: {VARIANT: {CASE or cold_CASE: {median, min, n}}}, microseconds; `ratios`: the medians over the gated cases, and each case's own."""
    import cv2

    from sage_edge.runtime.native.library import load

    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    frames = _frames(rng)
    table: dict[str, dict[str, dict[str, float]]] = {"libsage": {}, "cv2": {}, "memcpy": {}}
    ratios: dict[str, float] = {}
    for side, size in GATED + SHOWN:
        corners = rng.integers(0, (1280 - side, 720 - side), (COLD_FRAMES, 2))
        calls = _variants(frames, [(int(x), int(y), side, side) for x, y in corners], size)
        apart = COLD_FRAMES // len(calls)
        hot = {name: _hot(call, n + WARM_UP) for name, call in calls.items()}
        cold = {name: _cold(call, apart * i) for i, (name, call) in enumerate(calls.items())}
        for prefix, variants in (("", hot), ("cold_", cold)):
            case = f"{prefix}{side}_to_{size}"
            for name, seconds in interleaved(variants, n, WARM_UP).items():
                table[name][case] = summary(seconds)
            for other in ("cv2", "memcpy"):
                ratios[f"{case}_libsage_over_{other}"] = round(table[other][case]["median"] / table["libsage"][case]["median"], 3)

    def gated(prefix: str, other: str) -> float:
        return round(statistics.median(ratios[f"{prefix}{side}_to_{size}_libsage_over_{other}"] for side, size in GATED), 3)

    return {
        "unit": "us",
        "variants": table,
        "ratios": {"libsage_over_cv2": gated("", "cv2"), "cold_libsage_over_memcpy": gated("cold_", "memcpy"), **ratios},
        "notes": {
            "timed": "one face, through the Python binding",
            "gated": [f"{side}_to_{size}" for side, size in GATED],
            "cold_frames": COLD_FRAMES,
            "cv2_threads": cv2.getNumThreads(),
            "instructions": {1: "plain C", 3: "AVX2 + FMA", 5: "NEON"}.get(load().sage_crop_variants(), "other"),
        },
    }
