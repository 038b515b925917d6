"""libsage's histogram gives what the one of `runtime/stages.py` gives, to the nanosecond."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import LatencyHistogram
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
