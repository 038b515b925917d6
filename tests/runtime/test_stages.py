"""Histograms of fixed size whose percentiles are right to 1.6 percent."""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict

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


def test_size_stays_as_it_is() -> None:
    histogram = Histogram()
    size = sys.getsizeof(histogram._bins)
    for octave in range(61):
        for ns in range(1 << octave, 2 << octave, max(1, (1 << octave) // 256)):
            histogram.add(ns)
    assert sys.getsizeof(histogram._bins) == size
    assert histogram.summary().max >= (1 << 60) / 1e6


def test_what_is_negative_counts_as_none() -> None:
    histogram = Histogram()
    histogram.add(-5)
    assert (histogram.count, histogram.total_ns, histogram.percentile_ns(1)) == (1, 0, 0)


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


@given(first=st.lists(st.integers(0, 1 << 41), max_size=50), second=st.lists(st.integers(0, 1 << 41), max_size=50))
def test_since_a_copy_is_as_if_counted_alone(first: list[int], second: list[int]) -> None:
    stages, alone = Stages(), Stages()
    for value in first:
        stages.add("crop", value)
    before = stages.copy()
    for value in second:
        stages.add("crop", value)
        alone.add("crop", value)
    found, expected = stages.summary(before), alone.summary()
    assert list(found) == list(expected) == (["crop"] if second else [])
    for name, summary in found.items():
        for share in ("p50", "p95", "p99"):  # of the same bins; alone, none is above the longest, which is known to a bin here
            assert min(getattr(summary, share), expected[name].max) == getattr(expected[name], share)
        assert asdict(summary) == pytest.approx(asdict(expected[name]), rel=0.016, abs=1e-6)
        assert (summary.count, summary.total_s) == (len(second), expected[name].total_s)
    assert before["crop"].count == len(first), "a copy stays as it is"


def test_minutes_of_a_stage_that_another_thread_counts_add_up_to_all_of_it() -> None:
    stages, n = Stages(), 200_000
    hop = stages["hop"]

    def count() -> None:
        for ns in range(n):
            hop.add(ns)

    thread = threading.Thread(target=count)
    thread.start()
    before, counted, total_s = Stages(), 0, 0.0
    alive = True
    while alive:
        alive = thread.is_alive()  # one copy more when it has ended
        now = stages.copy()
        minute = now.summary(before).get("hop", Histogram().summary())
        counted, total_s, before = counted + minute.count, total_s + minute.total_s, now
    assert counted == sum(before["hop"]._bins) == n
    assert total_s == pytest.approx(stages.summary()["hop"].total_s)
    assert before.summary() == stages.summary()
