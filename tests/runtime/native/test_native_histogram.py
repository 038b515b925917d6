"""libsage's histogram gives what the one of `runtime/stages.py` gives, and its percentiles are NumPy's, to the nanosecond."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import LatencyHistogram
from sage_edge.runtime.native.histogram import BINS, percentiles_ns
from sage_edge.runtime.stages import Histogram


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(-5, 1 << 44), max_size=200), shares=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_is_its_python_twin(values: list[int], shares: list[float]) -> None:
    histogram, twin = LatencyHistogram(), Histogram()
    for value in values:
        histogram.add(value)
        twin.add(value)
    assert histogram.totals() == (twin.count, twin.total_ns, twin.max_ns)
    for share in shares:
        assert histogram.percentile_ns(share) == twin.percentile_ns(share)
    histogram.clear()
    assert histogram.totals() == (0, 0, 0)
    assert histogram.percentile_ns(1) == 0


def test_wrong_use() -> None:
    with pytest.raises(NativeError, match=r"percentile 1\.5 of a histogram"):
        LatencyHistogram().percentile_ns(1.5)


def edges(index: int) -> tuple[int, int]:
    """The least and the greatest duration of a bin."""
    shift = max(0, (index >> 6) - 1)
    low = index - (shift << 6)
    return low << shift, ((low + 1) << shift) - 1


NS = st.one_of(st.integers(0, 200), st.integers(0, 1 << 44))


@settings(max_examples=200, deadline=None)
@given(first=st.lists(NS, max_size=30), second=st.lists(NS, max_size=30), shares=st.lists(st.floats(0, 1), max_size=5), since=st.booleans())
def test_percentiles_of_bins_are_those_of_numpy(first: list[int], second: list[int], shares: list[float], since: bool) -> None:
    histogram = Histogram()
    for ns in first:
        histogram.add(ns)
    before = array("q", histogram._bins)
    for ns in second:
        histogram.add(ns)
    counts = np.array(histogram._bins) - (np.array(before) if since else 0)
    sums = counts.cumsum()
    expected = [0.0] * (len(shares) + 1)
    if sums[-1]:
        found = sums.searchsorted([max(1, -int(-share * int(sums[-1]) // 1)) for share in shares])
        last = int(counts.nonzero()[0][-1])
        longest = histogram.max_ns if last == BINS - 1 else min(edges(last)[1], histogram.max_ns)
        expected = [*(min(sum(edges(int(each))) / 2, float(histogram.max_ns)) for each in found), longest]
    assert percentiles_ns(histogram._bins, before if since else None, histogram.max_ns, tuple(shares)) == expected


def test_wrong_shares() -> None:
    with pytest.raises(NativeError, match="percentiles"):
        percentiles_ns(array("q", bytes(8 * BINS)), None, 0, (0.5, -0.1))
