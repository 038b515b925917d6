"""Time variants in turns, and sum up what was found: the part that every benchmark shares."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(variants: Mapping[str, Callable[[int], object]], n: int, warmup: int = 8) -> dict[str, list[float]]:
    """Seconds of `n` calls of each variant, which take turns so that a slow moment hits all; a call is given its number."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for k in range(n + warmup):
        for name, call in variants.items():
            begin_s = time.perf_counter()
            call(k)
            taken_s = time.perf_counter() - begin_s
            if k >= warmup:
                seconds[name].append(taken_s)
    return seconds


def summary(seconds: list[float], per_second: float = 1e6) -> dict[str, float]:
    """`median`, `min` and `n`; in microseconds unless told otherwise."""
    return {"median": round(per_second * statistics.median(seconds), 2), "min": round(per_second * min(seconds), 2), "n": len(seconds)}
