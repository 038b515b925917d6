"""Sound of a device whose clock drifts lies where it belongs on this machine's clock; without drift it is plain soxr's; breaks are gaps, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage_edge.runtime.native import SampleClock
from sage_edge.runtime.sources import AudioEvent
from sage_edge.runtime.sources.steady import BLOCK, LEAP_NS, PERIOD_NS, Steady

T0_NS = 1_000_000_000
RATES = st.sampled_from([16_000, 44_100, 48_000, 8_000, 22_050])


def joined(events: list[AudioEvent]) -> NDArray[np.float32]:
    return np.concatenate([event.samples for event in events])


def assert_touching(events: list[AudioEvent]) -> None:
    for before, after in pairwise(events):
        assert before.t_ns + len(before.samples) * PERIOD_NS == after.t_ns


def pieces(count: int, rng: np.random.Generator, most: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < count:
        n = int(rng.integers(1, most + 1))
        yield at, min(at + n, count)
        at += n


def triangle(t_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """A sound that says when it was made, twice: 0 .. 1 and back every two seconds."""
    return np.abs((t_s + 1) % 2 - 1).astype(np.float32)


def misplaced_ms(events: list[AudioEvent]) -> NDArray[np.float64]:
    """How far beside its stamp each sample of `triangle` lies, but for the corners, where the resampler rings."""
    errors = []
    for event in events:
        t_s = (event.t_ns - T0_NS + np.arange(len(event.samples)) * PERIOD_NS) / 1e9
        rising = (t_s % 2) < 1
        error_s = np.where(rising, 1.0, -1.0) * (event.samples - triangle(t_s))
        errors.append(error_s[(t_s % 1 > 0.03) & (t_s % 1 < 0.97)])
    return 1e3 * np.concatenate(errors)


@settings(max_examples=25, deadline=None)
@given(rate_hz=RATES, seed=st.integers(0, 2**31), offset_ns=st.integers(0, 10**12), most=st.integers(1, 5_000))
def test_without_drift_it_is_plain_soxr_however_the_sound_is_cut(rate_hz: int, seed: int, offset_ns: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(rate_hz // 2).astype(np.float32)
    plain = sound if rate_hz == 16_000 else soxr.ResampleStream(rate_hz, 16_000, 1, dtype="float32", quality="HQ").resample_chunk(sound, last=True)
    steady, events = Steady(rate_hz), []
    for low, high in pieces(len(sound), rng, max(most, 50)):
        events += steady.push(sound[low:high], low, lambda i: offset_ns + i * 10**9 // rate_hz)
    events += steady.cut(rate_hz)
    assert_touching(events)
    assert steady.slips == 0
    assert np.array_equal(joined(events), plain)
    assert abs(events[0].t_ns - offset_ns) <= PERIOD_NS
    assert events[0].t_ns % PERIOD_NS == 0


@settings(max_examples=20, deadline=None)
@given(rate_hz=RATES, ppm=st.floats(-2_500, 2_500), seed=st.integers(0, 2**31))
def test_a_known_drift_is_taken_out_to_a_millisecond_however_the_sound_is_cut(rate_hz: int, ppm: float, seed: int) -> None:
    true_hz = rate_hz * (1 + ppm * 1e-6)
    sound = triangle(np.arange(int(4 * true_hz)) / true_hz)
    results = []
    for cut in range(2):
        steady, events = Steady(rate_hz), []
        for low, high in pieces(len(sound), np.random.default_rng(seed + cut), rate_hz // 10):
            events += steady.push(sound[low:high], low, lambda i: T0_NS + round(i / true_hz * 1e9))
        events += steady.cut(rate_hz)
        assert_touching(events)
        assert np.abs(misplaced_ms(events)).max() < 1.0
        assert abs(steady.slips - abs(ppm) * 4 * 0.016) < 12  # all of it, but for half a millisecond
        results.append((events[0].t_ns, joined(events)))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])


def drifting(rate_hz: int, ppm: float, hours: float, seed: int) -> tuple[float, Steady, SampleClock]:
    """A device that drifts, whose chunks of 20 ms come up to 10 ms late, and half a second late now and then, as `SampleClock` and `Steady` see it.
    Gives the milliseconds that a sample lies beside its stamp at most, from 10 s on."""
    rng, clock, steady = np.random.default_rng(seed), SampleClock(rate_hz), Steady(rate_hz)
    true_hz, chunk, chunks = rate_hz * (1 + ppm * 1e-6), rate_hz // 50, round(hours * 3600 * 50)
    made_ns = T0_NS + np.round((np.arange(chunks) + 1) * (chunk / true_hz * 1e9)).astype(np.int64)
    late_ns = rng.integers(0, 10_000_000, chunks) + 400_000_000 * (np.arange(chunks) % 1000 == 999)
    arrived_ns = np.maximum.accumulate(made_ns + late_ns)
    worst_ms, events = 0.0, []
    for k in range(chunks):
        clock.add((k + 1) * chunk, int(arrived_ns[k]))
        if k % 5 == 4:  # read every 100 ms
            sound = triangle(((k - 4) * chunk + np.arange(5 * chunk)) / true_hz)
            events += steady.push(sound, (k - 4) * chunk, clock.time_ns)
        if k == 499:
            events.clear()
        if len(events) > 100:
            worst_ms = max(worst_ms, float(np.abs(misplaced_ms(events[::4])).max()))
            events.clear()
    return worst_ms, steady, clock


@pytest.mark.parametrize("ppm", [200.0, -200.0])
def test_two_minutes_of_drift_and_late_arrivals_stay_in_step(ppm: float) -> None:
    worst_ms, steady, clock = drifting(16_000, ppm, 1 / 30, 0)
    assert 0 < worst_ms < 20
    assert steady.gaps == 0
    drift_ppm = clock.fit().drift_ppm
    assert drift_ppm is not None
    assert abs(drift_ppm - ppm) < 50


@pytest.mark.slow
def test_an_hour_of_drift_and_late_arrivals_stays_in_step() -> None:
    worst_ms, steady, _ = drifting(16_000, 200.0, 1.0, 1)
    print(f"200 ppm for an hour: at most {worst_ms:.2f} ms beside its stamp, {steady.slips} slips")
    assert 0 < worst_ms < 20
    assert steady.gaps == 0
    assert abs(steady.slips - 11_520) < 0.05 * 11_520


def shifted(rate_hz: int, at: int, by_ns: int) -> Callable[[int], int]:
    return lambda i: T0_NS + i * 10**9 // rate_hz + (by_ns if i >= at else 0)


@settings(max_examples=30, deadline=None)
@given(rate_hz=RATES, late_ms=st.integers(21, 5_000))
def test_a_leap_of_the_clock_is_a_gap_in_the_stamps(rate_hz: int, late_ms: int) -> None:
    steady, events = Steady(rate_hz), []
    sound = np.ones(rate_hz, np.float32)
    for low, high in pieces(len(sound), np.random.default_rng(0), rate_hz // 30):
        events += steady.push(sound[low:high], low, shifted(rate_hz, rate_hz // 2, late_ms * 1_000_000))
    events += steady.cut(rate_hz)
    gaps = [(b.t_ns - a.t_ns) // PERIOD_NS - len(a.samples) for a, b in pairwise(events)]
    assert [gap for gap in gaps if gap] == [late_ms * 16]
    assert len(joined(events)) == 16_000
    assert steady.slips == 0


@settings(max_examples=30, deadline=None)
@given(rate_hz=RATES, early_ms=st.integers(21, 400))
def test_sound_that_comes_again_is_left_out(rate_hz: int, early_ms: int) -> None:
    steady, events = Steady(rate_hz), []
    sound = np.ones(rate_hz, np.float32)
    for low, high in pieces(len(sound), np.random.default_rng(0), rate_hz // 30):
        events += steady.push(sound[low:high], low, shifted(rate_hz, rate_hz // 2, -early_ms * 1_000_000))
    events += steady.cut(rate_hz)
    assert_touching(events)
    assert len(joined(events)) == 16_000 - 16 * early_ms


def test_a_hole_in_the_indices_is_a_gap_and_the_sound_behind_it_is_where_it_belongs() -> None:
    sound = triangle(np.arange(32_000) / 16_000)
    steady = Steady(16_000)
    times = shifted(16_000, 0, 0)
    events = steady.push(sound[:13_000], 0, times) + steady.push(sound[17_000:], 17_000, times) + steady.cut(16_000)
    assert np.abs(misplaced_ms(events)).max() < 1.0
    assert steady.gaps == 2  # the hole, and the end


def test_another_rate_after_a_pause_goes_on_at_its_own_time() -> None:
    steady = Steady(48_000)
    events = steady.push(triangle(np.arange(48_000) / 48_000), 0, shifted(48_000, 0, 0)) + steady.cut(44_100)
    t_s = 3 + np.arange(44_100) / 44_100
    events += steady.push(triangle(t_s), 0, shifted(44_100, 0, 3_000_000_000)) + steady.cut(44_100)
    assert np.abs(misplaced_ms(events)).max() < 1.0


def test_a_stretch_that_ended_before_anything_came_out_says_nothing() -> None:
    steady = Steady(48_000)
    assert steady.push(np.ones(3, np.float32), 0, shifted(48_000, 0, 0)) == []
    assert steady.cut(16_000) == []
    assert len(joined(steady.push(np.ones(BLOCK, np.float32), 0, shifted(16_000, 0, 0)))) == BLOCK


@given(st.lists(st.sampled_from([0.5, np.nan, np.inf, -np.inf]), min_size=1, max_size=64))
@settings(max_examples=30, deadline=None)
def test_what_is_no_number_never_comes_out_and_is_counted(values: list[float]) -> None:
    steady = Steady(48_000)
    sound = np.zeros(9_600, np.float32)
    sound[4_000 : 4_000 + len(values)] = values
    out = joined(steady.push(sound, 0, shifted(48_000, 0, 0)) + steady.cut(48_000))
    assert np.isfinite(out).all()
    assert steady.damaged == (not np.isfinite(sound).all())


def test_a_leap_is_never_taken_for_drift_nor_drift_for_a_leap() -> None:
    for by_ns, slips in ((LEAP_NS + 1_000_000, False), (LEAP_NS - 1_000_000, True)):
        steady = Steady(16_000)
        events = steady.push(np.ones(32_000, np.float32), 0, shifted(16_000, 16_000, by_ns)) + steady.cut(16_000)
        assert bool(steady.slips) == slips
        assert (len(events) == 1) == slips


def test_the_clock_is_asked_at_both_ends_of_a_piece_beside_which_nothing_lies() -> None:
    steady, asked = Steady(16_000), []

    def time_ns(sample: int) -> int:
        asked.append(sample)
        return T0_NS + sample * 62_500

    for low in range(0, 80_000, 8_000):
        steady.push(np.zeros(8_000, np.float32), low, time_ns)
    assert len(asked) == 20
    assert steady.slips == steady.gaps == 0
