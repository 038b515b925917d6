"""Clocks: both go forward only; a simulated one stands still unless somebody sleeps."""

from __future__ import annotations

import time

import pytest

from sage_edge.runtime.clock import Clock, MonotonicClock, SimulatedClock


@pytest.mark.parametrize("clock", [MonotonicClock(), SimulatedClock(5)])
def test_sleeping_takes_the_time_on_and_never_back(clock: Clock) -> None:
    stamps = [clock.now_ns()]
    for seconds in (0.002, 0.0, -1.0, 0.001):
        clock.sleep(seconds)
        stamps.append(clock.now_ns())
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] >= 3_000_000


def test_the_clock_is_the_monotonic_one() -> None:
    before = time.monotonic_ns()
    assert before <= MonotonicClock().now_ns() <= time.monotonic_ns()


def test_simulated_time_is_exact_and_costs_none() -> None:
    clock = SimulatedClock(7)
    for _ in range(36_000):
        clock.sleep(0.1)
    assert clock.now_ns() == 7 + 3_600_000_000_000
    clock.sleep_until(5)
    assert clock.now_ns() == 7 + 3_600_000_000_000
    clock.sleep_until(10**15)
    assert clock.now_ns() == 10**15


def test_a_suspended_machine_is_told_from_one_that_waits() -> None:
    clock = SimulatedClock(9)
    clock.suspend(2.5)
    clock.sleep(1.0)
    assert (clock.now_ns(), clock.asleep_ns()) == (1_000_000_009, 2_500_000_000)
    here = MonotonicClock()
    before = here.asleep_ns()
    here.sleep(0.05)
    assert abs(here.asleep_ns() - before) < 40_000_000, "waiting is not being suspended"
