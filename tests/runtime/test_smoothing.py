"""Smoothing: a stream gives what a recording gives, nothing looks ahead that says so, and time may be irregular."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.smoothing import MovingAverage, OneEuro, Smoothing, moving_average, one_euro

gaps = st.lists(st.integers(0, 400_000_000), min_size=1, max_size=40)


def track(steps: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum(steps).astype(np.int64), np.random.default_rng(seed).uniform(-1, 1, (len(steps), 2))


def at_30_hz(n: int) -> np.ndarray:
    return np.array([round(k * 1e9 / 30) for k in range(n)], np.int64)


@settings(deadline=None, max_examples=30)
@given(steps=gaps, seed=st.integers(0, 99), width=st.floats(0.01, 2.0))
def test_a_stream_gives_what_a_recording_gives(steps: list[int], seed: int, width: float) -> None:
    t_ns, values = track(steps, seed)
    average, euro = MovingAverage(width), OneEuro(0.7, 2.0)
    streamed = [(average.step(int(t), row), euro.step(int(t), row)) for t, row in zip(t_ns, values, strict=True)]
    assert np.allclose([a for a, _ in streamed], moving_average(t_ns, values, width), atol=1e-12)
    assert np.array_equal([e for _, e in streamed], one_euro(t_ns, values, 0.7, 2.0))


@settings(deadline=None, max_examples=25)
@given(steps=gaps, seed=st.integers(0, 99), cut=st.integers(0, 39))
def test_what_comes_later_changes_nothing_before(steps: list[int], seed: int, cut: int) -> None:
    t_ns, values = track(steps, seed)
    later = values.copy()
    later[cut + 1 :] += 0.5
    for smooth in (one_euro, moving_average):
        assert np.array_equal(smooth(t_ns, values)[: cut + 1], smooth(t_ns, later)[: cut + 1])


@settings(deadline=None, max_examples=25)
@given(steps=gaps, seed=st.integers(0, 99))
def test_smooth_values_stay_between_the_extremes_and_a_constant_stays(steps: list[int], seed: int) -> None:
    t_ns, values = track(steps, seed)
    for rows in (one_euro(t_ns, values), moving_average(t_ns, values), moving_average(t_ns, values, centred=True)):
        assert rows.shape == values.shape
        assert (rows >= values.min(0) - 1e-9).all()
        assert (rows <= values.max(0) + 1e-9).all()
    still = np.full((len(t_ns), 2), 0.3)
    assert np.allclose(one_euro(t_ns, still), 0.3)
    assert np.allclose(moving_average(t_ns, still, centred=True), 0.3)


def test_the_one_euro_filter_equals_its_equations() -> None:
    t_ns, values = track([0, 20_000_000, 50_000_000, 33_000_000, 200_000_000], 3)
    x, speed, out = values[0, 0], 0.0, [values[0, 0]]
    for k in range(1, 5):
        te = (t_ns[k] - t_ns[k - 1]) / 1e9
        a = 1 / (1 + 1 / (2 * math.pi * 1.0 * te))
        speed = a * (values[k, 0] - x) / te + (1 - a) * speed
        a = 1 / (1 + 1 / (2 * math.pi * (0.4 + 3.0 * abs(speed)) * te))
        x = a * values[k, 0] + (1 - a) * x
        out.append(x)
    assert np.allclose(one_euro(t_ns, values, 0.4, 3.0)[:, 0], out, atol=1e-12)


def test_it_steadies_noise_and_beta_follows_a_step() -> None:
    t_ns = at_30_hz(300)
    noise = np.random.default_rng(0).normal(0, 0.1, (300, 1))
    assert one_euro(t_ns, noise, beta=0.0)[60:].std() < 0.5 * noise[60:].std()
    step = (np.arange(300) >= 150).astype(float)[:, None]
    slow, quick = one_euro(t_ns, step, 0.2, 0.0), one_euro(t_ns, step, 0.2, 5.0)
    assert quick[155, 0] > slow[155, 0] + 0.2


@pytest.mark.parametrize(("ticks", "past", "future"), [(1, 0, 0), (5, 2, 2), (9, 4, 4), (2, 1, 0), (6, 3, 2)])
def test_an_average_of_ticks_holds_that_many(ticks: int, past: int, future: int) -> None:
    t_ns, values = at_30_hz(60), np.random.default_rng(1).normal(size=(60, 2))
    centred, trailing = (moving_average(t_ns, values, ticks / 30, centred=c) for c in (True, False))
    for k in range(60):
        assert np.allclose(centred[k], values[max(k - past, 0) : k + future + 1].mean(0))
        assert np.allclose(trailing[k], values[max(k - ticks + 1, 0) : k + 1].mean(0))


def test_what_is_no_filter_and_time_that_goes_back_are_refused() -> None:
    for bad in ((0.0, 1.0), (-1.0, 1.0), (1.0, -0.1), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="cut-off above 0 Hz"):
            OneEuro(*bad)
    for width in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="width above 0 s"):
            moving_average(at_30_hz(3), np.zeros((3, 2)), width)
    for filter in (OneEuro(), MovingAverage()):
        filter.step(5, [0.0])
        with pytest.raises(ValueError, match="order of time"):
            filter.step(4, [0.0])
    with pytest.raises(ValueError, match="ascending"):
        moving_average(np.array([2, 1]), np.zeros((2, 2)))


def test_nothing_in_nothing_out() -> None:
    empty = np.zeros(0, np.int64)
    assert one_euro(empty, np.zeros((0, 2))).shape == (0, 2)
    assert moving_average(empty, np.zeros((0, 2)), centred=True).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("one-euro", "one-euro 0.5 Hz, beta 1"),
        ("one-euro:2", "one-euro 2 Hz, beta 1"),
        ("one-euro:0.3,0", "one-euro 0.3 Hz, beta 0"),
        ("average", "average 1 s"),
        ("average:15", "average 0.5 s"),
        ("average:2.5s", "average 2.5 s"),
    ],
)
def test_a_choice_says_what_it_is_and_does_the_same_in_both_forms(text: str, says: str) -> None:
    chosen = Smoothing.parse(text)
    assert str(chosen) == says
    t_ns, values = at_30_hz(80), np.random.default_rng(2).normal(size=(80, 2))
    filter = chosen.stream()
    streamed = [filter.step(int(t), row) for t, row in zip(t_ns, values, strict=True)]
    assert np.allclose(streamed, chosen.recording(t_ns, values), atol=1e-12)


@pytest.mark.parametrize("text", ["", "one-uero", "one-euro:0", "one-euro:a,b", "one-euro:1,-2", "average:0", "average:1.5", "average:nans"])
def test_a_choice_that_is_no_filter_is_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Smoothing.parse(text)
    assert "\n" not in str(refusal.value)
    assert "average:" in str(refusal.value) or "average[" in str(refusal.value)
