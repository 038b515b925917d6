"""The clock: ticks, samples and frames agree with exact arithmetic, for any rate and any length."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime import ticks


@given(st.integers(-(10**7), 10**9))
def test_first_sample_is_the_rounded_exact_position(tick: int) -> None:
    exact = Fraction(tick * 16000, 30)
    assert ticks.first_sample(tick) == (exact + Fraction(1, 2)).__floor__()


def test_a_window_of_ten_seconds_holds_160000_samples_wherever_it_starts() -> None:
    assert ticks.window_samples(300) == 160_000
    assert {ticks.first_sample(s + 300) - ticks.first_sample(s) for s in range(-300, 300)} == {160_000}


@given(st.integers(0, 10**8), st.sampled_from([24, 25, 30, 60]))
def test_tick_at_or_after_inverts_tick_time(tick: int, rate_hz: int) -> None:
    t_ns = ticks.tick_time_ns(tick, rate_hz)
    assert ticks.tick_at_or_after(t_ns, rate_hz) == tick
    assert ticks.tick_at_or_after(t_ns + 1, rate_hz) == tick + 1


@given(st.lists(st.integers(0, 10**14), min_size=1, max_size=20), st.sampled_from([1, 7, 24, 25, 30, 60, 1000]))
def test_many_times_are_as_each_alone(t_ns: list[int], rate_hz: int) -> None:
    near = [t + d for t in t_ns for d in (0, 1)] + [ticks.tick_time_ns(t % 10**6, rate_hz) + d for t in t_ns for d in (-1, 0, 1)]
    expected = [ticks.tick_at_or_after(t, rate_hz) for t in near]
    assert ticks.ticks_at_or_after(np.array(near, np.int64), rate_hz).tolist() == expected


@pytest.mark.parametrize("rate", [Fraction(15), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60)])
def test_a_tick_takes_the_newest_frame_that_is_not_in_its_future(rate: Fraction) -> None:
    frames = np.array([int(i * 10**9 / rate) for i in range(200)], np.int64)
    chosen = ticks.frames_of_ticks(frames, 90)
    for k, index in enumerate(chosen):
        t_ns = ticks.tick_time_ns(k)
        assert index >= 0
        assert frames[index] <= t_ns
        assert index == len(frames) - 1 or frames[index + 1] > t_ns


def test_a_frame_older_than_the_bound_serves_no_tick() -> None:
    chosen = ticks.frames_of_ticks(np.array([0, 10**9], np.int64), 31, max_age_ns=100_000_000)
    assert chosen.tolist() == [0] * 4 + [-1] * 26 + [1]
    assert ticks.frames_of_ticks(np.array([], np.int64), 3).tolist() == [-1, -1, -1]


def test_token_weights_interpolate_a_straight_line_exactly() -> None:
    lower, upper = ticks.token_weights(499, 300)
    centre_s = (200 + 320 * np.arange(499)) / 16000
    at_tick = centre_s[lower] * (1 - upper) + centre_s[np.minimum(lower + 1, 498)] * upper
    expected = np.clip(np.arange(300) / 30, centre_s[0], centre_s[-1])
    assert np.abs(at_tick - expected).max() < 1e-6
