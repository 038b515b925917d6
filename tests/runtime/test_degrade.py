"""Degrading is slow to begin, slower to end, never swings, and always says so."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.degrade import HOT_S, LATE_HOPS, LATE_S, MOST_PATIENCE_S, PATIENCE_S, Change, Degrader, Level, levels
from sage_edge.runtime.thermal import Heat

NS = 1_000_000_000
PLAN = levels(15, 300, has_camera=True)
COOL, HOT, WARM = Heat("cpu", 60.0, 95.0), Heat("cpu", 95.0, 95.0), Heat("cpu", 92.0, 95.0)


class Machine:
    """A machine of which each level takes so much of the time; estimates come every hop, `late_ms(level)` late."""

    def __init__(self, plan: tuple[Level, ...] = PLAN, budget_ms: float = 700.0) -> None:
        self.degrader, self.now_s, self.changes = Degrader(plan, 30, budget_ms), 0.0, list[tuple[float, Change]]()

    def run(self, seconds: float, late_ms: float | dict[Level, float], heat: Heat | None = None) -> list[tuple[float, Change]]:
        end_s, before = self.now_s + seconds, len(self.changes)
        while self.now_s < end_s:
            level = self.degrader.level
            self.now_s += level.hop / 30
            self.degrader.late(round(self.now_s * NS), late_ms[level] if isinstance(late_ms, dict) else late_ms)
            self.degrader.heat(heat)
            change = self.degrader.step(round(self.now_s * NS))
            if change is not None:
                self.changes.append((self.now_s, change))
        return self.changes[before:]


def test_levels_lower_the_face_rate_first_and_then_widen_the_hop() -> None:
    assert (Level(1, 15), Level(2, 15), Level(3, 15), Level(3, 30), Level(3, 60)) == PLAN
    assert levels(15, 300, has_camera=False) == (Level(1, 15), Level(1, 30), Level(1, 60))
    assert levels(200, 300, has_camera=False) == (Level(1, 200), Level(1, 300)), "a hop is never longer than the window"
    assert levels(300, 300, has_camera=True) == (Level(1, 300), Level(2, 300), Level(3, 300))


def test_overload_goes_down_level_by_level_and_stops_at_the_last() -> None:
    machine = Machine()
    changes = machine.run(60, 2000.0)
    assert [change.level for _, change in changes] == list(PLAN[1:])
    assert all(change.worse and change.why == "overloaded" for _, change in changes)
    times = [0.0, *(t for t, _ in changes)]
    for before, after, level in zip(times, times[1:], PLAN, strict=False):
        assert after - before >= max(LATE_S, LATE_HOPS * level.hop / 30)
    assert "2000 ms late, the budget is 700 ms; now one frame in 2 ticks and a hop of 15 ticks" in changes[0][1].detail


def test_one_late_estimate_or_a_stutter_changes_nothing() -> None:
    machine = Machine()
    for _ in range(100):
        machine.run(2.0, 5000.0)
        machine.run(1.5, 100.0)
    assert machine.changes == []


def test_every_other_estimate_that_is_late_is_an_overload() -> None:
    machine = Machine()
    for _ in range(20):
        machine.run(0.5, 900.0)
        machine.run(0.5, 400.0)
    assert machine.changes
    assert "900 ms late" in machine.changes[0][1].detail


def test_recovers_step_by_step_after_patience() -> None:
    machine = Machine()
    machine.run(60, 2000.0)
    changes = machine.run(300, 100.0)
    assert [change.level for _, change in changes] == list(PLAN[-2::-1])
    assert [change.why for _, change in changes] == ["overloaded"] * 3 + [None]
    assert not any(change.worse for _, change in changes)
    times = [t for t, _ in changes]
    assert all(after - before >= PATIENCE_S for before, after in itertools.pairwise(times))
    assert machine.degrader.why is None


def test_a_machine_that_is_just_too_slow_tries_ever_more_rarely() -> None:
    machine = Machine()
    late = {level: 2000.0 if level.face_every == 1 else 100.0 for level in PLAN}
    machine.run(4 * 3600, late)
    down = [t for t, change in machine.changes if change.worse]
    waits = [after - before for before, after in itertools.pairwise(down)]
    assert waits[0] >= PATIENCE_S
    assert all(wait >= MOST_PATIENCE_S for wait in waits[5:])
    assert {change.level for _, change in machine.changes} == set(PLAN[:2])


def test_heat_goes_down_slowly_and_comes_back_when_it_is_cooler_than_the_limit_by_a_margin() -> None:
    machine = Machine()
    first = machine.run(25, 100.0, HOT)
    assert [change.why for _, change in first] == ["hot"] * 3
    assert first[1][0] - first[0][0] >= HOT_S
    assert "cpu is at 95 C, its limit is 95 C" in first[0][1].detail
    assert machine.run(600, 100.0, WARM) == [], "below the limit, but by too little"
    assert [change.level for _, change in machine.run(300, 100.0, COOL)] == list(PLAN[2::-1])
    assert machine.degrader.why is None


def test_a_jump_of_the_clock_is_no_lateness() -> None:
    machine = Machine()
    machine.run(2.5, 5000.0)
    machine.degrader.forget(round(machine.now_s * NS))
    assert machine.run(2.5, 5000.0) == []


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.floats(0.1, 90), st.sampled_from([50.0, 699.0, 701.0, 9000.0]), st.sampled_from([None, COOL, WARM, HOT])), max_size=25
    ),
    has_camera=st.booleans(),
)
def test_whatever_happens_it_moves_one_level_at_a_time_and_ends_where_it_was_asked_to(
    steps: list[tuple[float, float, Heat | None]], has_camera: bool
) -> None:
    plan = levels(15, 300, has_camera)
    machine = Machine(plan)
    for seconds, late_ms, heat in steps:
        machine.run(seconds, late_ms, heat)
    machine.run((len(plan) + 1) * 2 * MOST_PATIENCE_S, 50.0, COOL)
    at = 0
    for _, change in machine.changes:
        to = plan.index(change.level)
        assert abs(to - at) == 1
        assert change.worse == (to > at)
        assert (change.why is None) == (to == 0)
        at = to
    assert at == 0


@pytest.mark.parametrize("heat", [None, Heat("case", 200.0, None)])
def test_without_a_limit_nothing_is_hot(heat: Heat | None) -> None:
    assert Machine().run(100, 100.0, heat) == []
