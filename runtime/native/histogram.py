"""Durations: a histogram of fixed size that one thread adds to and any thread reads, counted in C; percentiles of one that is counted elsewhere."""

from __future__ import annotations

import ctypes
from array import array
from functools import lru_cache, partial
from typing import Any

from sage_edge.runtime.native.handle import Handle, check
from sage_edge.runtime.native.library import HistogramTotals, load


class LatencyHistogram:
    """Counts of durations in logarithmic bins, int nanoseconds; percentiles are right to 1.6 percent. One thread adds and clears."""

    def __init__(self) -> None:
        self._handle = Handle("sage_histogram_create", "sage_histogram_destroy")
        self._pointer = self._handle.pointer
        self.add = partial(load().sage_histogram_add, self._pointer)
        """Count one duration; a negative one counts as 0."""

    def clear(self) -> None:
        """Forget everything."""
        check(load().sage_histogram_clear(self._pointer), "clear of a histogram")

    def totals(self) -> tuple[int, int, int]:
        """How many, their sum and the longest, in nanoseconds."""
        totals = HistogramTotals()
        check(load().sage_histogram_read(self._pointer, ctypes.byref(totals)), "totals of a histogram")
        return totals.count, totals.total_ns, totals.max_ns

    def percentile_ns(self, share: float) -> float:
        """The duration that `share` (0 to 1) of all counted ones do not exceed: the middle of its bin; 0 when nothing was counted."""
        ns = ctypes.c_double()
        check(load().sage_histogram_percentile(self._pointer, share, ctypes.byref(ns)), f"percentile {share} of a histogram")
        return ns.value


BINS = 2368
"""SAGE_HISTOGRAM_BINS."""


@lru_cache(maxsize=8)
def _shares(shares: tuple[float, ...]) -> Any:
    return (ctypes.c_double * len(shares))(*shares)


def percentiles_ns(bins: array[int], before: array[int] | None, max_ns: int, shares: tuple[float, ...]) -> list[float]:
    """Of each of `shares` (0 to 1), and the longest, right to a bin: of int64 [BINS] as sage.h has them, less what was in them `before`."""
    found = (ctypes.c_double * (len(shares) + 1))()
    old = None if before is None else before.buffer_info()[0]
    check(load().sage_percentiles(bins.buffer_info()[0], old, min(max_ns, (1 << 63) - 1), _shares(shares), len(shares), found), "percentiles")
    return list(found)
