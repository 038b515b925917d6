"""Where the time goes: one histogram per stage, of fixed size however long the loop runs.

Durations are int nanoseconds. Each power of two is cut into 64 bins, so a percentile is right to 1.6 percent; `add` costs well under a
microsecond. A session records find, crop, visual, audio, fusion and hop; a live loop adds its own (capture, emit).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

_FINE = 6  # 2^6 bins per octave
_TOP = 42  # 2^42 ns is 73 minutes; longer counts as that
_BINS = (_TOP - _FINE + 1) << _FINE


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
        times: dict[str, float | int] = {name: round(getattr(self, name), 4) for name in ("mean", "p50", "p95", "p99", "max")}
        return {"count": self.count, **times, "total_s": round(self.total_s, 6)}


class Histogram:
    """Counts of durations in logarithmic bins."""

    __slots__ = ("_bins", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
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
        self._bins[min((shift << _FINE) + (ns >> shift), _BINS - 1) if shift > 0 else ns] += 1

    def merge(self, other: Histogram) -> None:
        """Count every duration that `other` has counted."""
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self._bins = [mine + more for mine, more in zip(self._bins, other._bins, strict=True)]

    def percentile_ns(self, share: float) -> float:
        """The duration that `share` (0 to 1) of all counted ones do not exceed: the middle of its bin; 0 when nothing was counted."""
        return self._percentile_ns(share, list(accumulate(self._bins)))

    def _percentile_ns(self, share: float, sums: list[int]) -> float:
        if not self.count:
            return 0.0
        index = bisect_left(sums, max(1, -int(-share * self.count // 1)))
        shift = max(0, (index >> _FINE) - 1)
        low = index - (shift << _FINE)
        return min(float(((low << shift) + (((low + 1) << shift) - 1)) / 2), float(self.max_ns))

    def summary(self) -> StageSummary:
        """Count, mean, percentiles."""
        sums = list(accumulate(self._bins))
        p50, p95, p99 = (self._percentile_ns(share, sums) / 1e6 for share in (0.5, 0.95, 0.99))
        mean = self.total_ns / self.count / 1e6 if self.count else 0.0
        return StageSummary(self.count, mean, p50, p95, p99, self.max_ns / 1e6, self.total_ns / 1e9)


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

    def clear(self) -> None:
        """Forget every duration (after a warm-up), keep the names and the histogram objects."""
        for histogram in self._stages.values():
            histogram.__init__()  # type: ignore[misc]

    def summary(self) -> dict[str, StageSummary]:
        """Of every stage that was counted at least once."""
        return {name: histogram.summary() for name, histogram in self._stages.items() if histogram.count}

    def to_dict(self) -> dict[str, Any]:
        """`summary` as JSON types."""
        return {name: summary.to_dict() for name, summary in self.summary().items()}
