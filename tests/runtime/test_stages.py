"""Histograms of fixed size whose percentiles are right to 1.6 percent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime.stages import Histogram, Stages


@given(values=st.lists(st.integers(0, 1 << 41), min_size=1, max_size=300), share=st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_percentiles(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = float(np.percentile(values, 100 * share, method="inverted_cdf"))
    assert histogram.percentile_ns(share) == pytest.approx(exact, rel=0.016, abs=1)
    summary = histogram.summary()
    assert summary.count == len(values)
    assert summary.mean == pytest.approx(np.mean(values) / 1e6)
    assert summary.max == max(values) / 1e6
    assert summary.p50 <= summary.p95 <= summary.p99 <= summary.max


def test_size_never_grows() -> None:
    histogram = Histogram()
    size = len(histogram._bins)
    for ns in (-5, 0, 1, 10**9, 1 << 41, 1 << 60):
        histogram.add(ns)
    assert len(histogram._bins) == size
    assert histogram.count == 6
    assert histogram.percentile_ns(0.01) == 0
    assert histogram.max_ns == 1 << 60


def test_empty() -> None:
    assert Histogram().percentile_ns(0.5) == 0
    assert Histogram().summary().p99 == 0


def test_stages_keep_order_and_objects() -> None:
    stages = Stages()
    hop = stages["hop"]
    stages.add("crop", 1_000_000)
    hop.add(2_000_000)
    assert list(stages.summary()) == ["hop", "crop"]
    assert stages.to_dict()["crop"]["p50"] == pytest.approx(1, rel=0.016)
    stages.clear()
    assert stages.summary() == {}
    assert stages["hop"] is hop


@given(first=st.lists(st.integers(0, 1 << 41), max_size=50), second=st.lists(st.integers(0, 1 << 41), max_size=50))
def test_merged_is_as_if_counted_in_one(first: list[int], second: list[int]) -> None:
    one, other, both = Stages(), Stages(), Stages()
    for value in first:
        one.add("crop", value)
        both.add("crop", value)
    for value in second:
        other.add("crop", value)
        both.add("crop", value)
    one.merge(other)
    assert one.summary() == both.summary()
    assert other.summary().get("crop", Histogram().summary()).count == len(second), "the other is left as it was"
