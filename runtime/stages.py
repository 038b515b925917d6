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

    __slots__ = ("_bins", "_counts", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._bins = array("q", bytes(8 * _BINS))
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
        shift = ns.bit_length() - _FINE - 1  # as `_bin`, which is a call more
        self._bins[ns if shift <= 0 else (shift << _FINE) + (ns >> shift) if shift < _TOP - _FINE else _BINS - 1] += 1

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
        return self._percentiles_ns(None, share)[0]

    def _percentiles_ns(self, before: Histogram | None, *shares: float) -> list[float]:
        """Of each share, and the longest, right to a bin."""
        top = _bin(self.max_ns) + 1
        counts = self._counts[:top] if before is None else self._counts[:top] - before._counts[:top]
        sums = counts.cumsum()
        counted = int(sums[-1])
        if not counted:
            return [0.0] * (len(shares) + 1)
        *bins, last = sums.searchsorted([*(max(1, -int(-share * counted // 1)) for share in shares), counted]).tolist()
        longest = self.max_ns if last == _BINS - 1 else min(_edges(last)[1], self.max_ns)
        return [*(min(sum(_edges(each)) / 2, float(self.max_ns)) for each in bins), longest]

    def summary(self, before: Histogram | None = None) -> StageSummary:
        """Count, mean, percentiles; of what has been counted since `before` was copied where that is given, `max` being right to a bin then."""
        count, total_ns = self.count, self.total_ns
        if before is not None:
            count, total_ns = count - before.count, total_ns - before.total_ns
        p50, p95, p99, longest = self._percentiles_ns(before, 0.5, 0.95, 0.99)
        mean = total_ns / count / 1e6 if count else 0.0
        return StageSummary(count, mean, p50 / 1e6, p95 / 1e6, p99 / 1e6, (self.max_ns if before is None else longest) / 1e6, total_ns / 1e9)


def _bin(ns: int) -> int:
    """Where a duration is counted."""
    shift = ns.bit_length() - _FINE - 1
    return min((shift << _FINE) + (ns >> shift), _BINS - 1) if shift > 0 else ns


def _edges(index: int) -> tuple[int, int]:
    """The least and the greatest duration of a bin."""
    shift = max(0, (index >> _FINE) - 1)
    low = index - (shift << _FINE)
    return low << shift, ((low + 1) << shift) - 1


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
