"""The session's clock in whole numbers, against the functions of `ticks` that training uses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime import ticks
from sage_edge.runtime.timeline import Timeline

RATES = st.sampled_from([(30, 16_000), (25, 16_000), (7, 8_000), (60, 44_100)])
TIMES = st.one_of(st.integers(-(10**10), 10**13), st.integers(0, 10**5).map(ticks.tick_time_ns))


@given(rates=RATES, ns=TIMES, off=st.integers(-2, 2))
def test_ended_and_begun(rates: tuple[int, int], ns: int, off: int) -> None:
    rate, sample_rate = rates
    time, ns = Timeline(rate, sample_rate, 0, 0), ns + off
    n = time.ended(ns)
    assert ticks.tick_time_ns(n, rate) <= ns < ticks.tick_time_ns(n + 1, rate)
    if ns >= 0:
        assert time.begun(ns) == ticks.tick_at_or_after(ns, rate)
    else:
        assert time.begun(ns) == 0


@given(rates=RATES, samples=st.integers(0, 10**9))
def test_ended_samples(rates: tuple[int, int], samples: int) -> None:
    rate, sample_rate = rates
    n = Timeline(rate, sample_rate, 0, 0).ended_samples(samples)
    assert ticks.first_sample(n, rate, sample_rate) <= samples < ticks.first_sample(n + 1, rate, sample_rate)


@given(sample=st.integers(-(10**8), 10**9))
def test_sample_at_is_the_inverse_of_a_stamp(sample: int) -> None:
    time = Timeline(30, 16_000, 0, 0)
    for stamp in (sample * ticks.NS_PER_S // 16_000, round(sample * ticks.NS_PER_S / 16_000)):
        assert time.sample_at(stamp) == sample


def test_watermark() -> None:
    time = Timeline(30, 16_000, 1_000_000_000, 0)
    assert time.over() <= 0
    assert time.final() == 0
    time.video_ns = ticks.tick_time_ns(40)
    assert time.over() == 10
    time.samples = ticks.first_sample(20)
    assert time.over() == 20
    time.samples = ticks.first_sample(50)
    assert time.over() == 40
    time.samples = ticks.first_sample(90)
    assert time.over() == 60
    time.advanced_ns = ticks.tick_time_ns(75)
    assert time.over() == 75
    assert time.final() == 90
