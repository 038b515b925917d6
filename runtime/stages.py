"""Where the time goes: one histogram per stage, of fixed size however long the loop runs.

Durations are int nanoseconds. Each power of two is cut into 64 bins, so a percentile is right to 1.6 percent; `add` costs well under a
microsecond. A session records find, crop, visual, audio, fusion and hop; a live loop adds its own (capture, emit). A histogram is counted in by one
thread and may be read by another: what is of a minute is told from what was before, so that nothing is cleared beside a count.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .native.histogram import BINS, percentiles_ns

_FINE = 6  # 2^6 bins per octave
_TOP = 42  # 2^42 ns is 73 minutes; longer counts as that
_SHARES = 0.5, 0.95, 0.99


@dataclass(frozen=True)
class StageSummary:
    """Milliseconds, but for `count` and `total_s`."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    total_s: float

    def to_dict(self) -> dict[str, float | int]:
        """JSON types, microsecond resolution."""
        times = {"mean": round(self.mean, 4), "p50": round(self.p50, 4), "p95": round(self.p95, 4), "p99": round(self.p99, 4)}
        return {"count": self.count, **times, "max": round(self.max, 4), "total_s": round(self.total_s, 6)}


class Histogram:
    """Counts of durations in logarithmic bins."""

    __slots__ = ("_bins", "_counts", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._bins = array("q", bytes(8 * BINS))
        self._counts: NDArray[np.int64] = np.frombuffer(self._bins, np.int64)  # the same, for sums of them; single ones are counted faster above
        self.count = self.total_ns = self.max_ns = 0

    def add(self, ns: int) -> None:
        """Count one duration; a negative one counts as 0."""
        if ns < 0:
            ns = 0
        self.count += 1
        self.total_ns += ns
        if ns > self.max_ns:
            self.max_ns = ns
        shift = ns.bit_length() - _FINE - 1
        self._bins[ns if shift <= 0 else (shift << _FINE) + (ns >> shift) if shift < _TOP - _FINE else BINS - 1] += 1

    def merge(self, other: Histogram) -> None:
        """Count every duration that `other` has counted."""
        self._counts += other._counts  # first: what another thread counts meanwhile is not to be above max_ns
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def copy(self) -> Histogram:
        """What has been counted so far."""
        copied = Histogram()
        copied.merge(self)
        return copied

    def percentile_ns(self, share: float) -> float:
        """The duration that `share` (0 to 1) of all counted ones do not exceed: the middle of its bin; 0 when nothing was counted."""
        return percentiles_ns(self._bins, None, self.max_ns, (share,))[0]

    def summary(self, before: Histogram | None = None) -> StageSummary:
        """Count, mean, percentiles; of what has been counted since `before` was copied where that is given, `max` being right to a bin then."""
        count, total_ns = self.count, self.total_ns
        if before is not None:
            count, total_ns = count - before.count, total_ns - before.total_ns
        p50, p95, p99, longest = percentiles_ns(self._bins, None if before is None else before._bins, self.max_ns, _SHARES)
        mean = total_ns / count / 1e6 if count else 0.0
        return StageSummary(count, mean, p50 / 1e6, p95 / 1e6, p99 / 1e6, (self.max_ns if before is None else longest) / 1e6, total_ns / 1e9)


class Stages:
    """Histograms by name, in the order in which the names first came."""

    def __init__(self) -> None:
        self._stages: dict[str, Histogram] = {}

    def __getitem__(self, name: str) -> Histogram:
        """The histogram of a stage, made when it is first asked for."""
        found = self._stages.get(name)
        if found is None:
            found = self._stages[name] = Histogram()
        return found

    def add(self, name: str, ns: int) -> None:
        """Count one duration of the stage `name`."""
        self[name].add(ns)

    def merge(self, other: Stages) -> None:
        """Count every duration that `other` has counted."""
        for name, histogram in other._stages.items():
            self[name].merge(histogram)

    def copy(self) -> Stages:
        """What has been counted so far."""
        copied = Stages()
        copied.merge(self)
        return copied

    def clear(self) -> None:
        """Forget every duration (after a warm-up, while nothing counts), keep the names and the histogram objects."""
        for histogram in self._stages.values():
            histogram.__init__()  # type: ignore[misc]

    def summary(self, before: Stages | None = None) -> dict[str, StageSummary]:
        """Of every stage that was counted at least once; once since `before` was copied, and only of that, where it is given."""
        was = {} if before is None else before._stages
        found = {}
        for name, histogram in self._stages.items():
            then = was.get(name)
            if histogram.count > (then.count if then else 0):
                found[name] = histogram.summary(then)
        return found

    def to_dict(self, before: Stages | None = None) -> dict[str, Any]:
        """`summary` as JSON types."""
        return {name: summary.to_dict() for name, summary in self.summary(before).items()}
