"""Gathering: as many frames wait as are worked off before a hop is near, and none where nobody knows what they take or there is no time to spare."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime.gathering import FEWEST, GATHERED_NS, LATELY_NS, SOON_NS, Dearest, Gathering
from sage_edge.runtime.sources import waiting

MS = 1_000_000
TICK_NS = 33_333_333


def known(frame_ms: float, apart_ms: float = 33.3, rest_ms: float = 0.5, face_ms: float = 0.0) -> Gathering:
    gathering = Gathering(30, 0)
    gathering.face_ns = round(face_ms * MS)
    gathering.came(round(apart_ms * MS), 1 * MS)
    gathering.took(1, round(frame_ms * MS), round(rest_ms * MS), LATELY_NS)
    return gathering


def test_the_dearest_of_the_last_second_counts() -> None:
    dearest = Dearest(50, 0)
    for ns, now_ns, expected in ((10, 5, 50), (60, 10, 60), (20, LATELY_NS, 60), (20, LATELY_NS + 10, 20), (7, LATELY_NS + 11, 20)):
        dearest.add(ns, now_ns)
        assert dearest.ns == expected


def test_nothing_is_gathered_until_it_is_known_what_frames_take_and_how_far_they_lie_apart() -> None:
    gathering = Gathering(30, 0)
    assert gathering.most() == 1
    gathering.came(33 * MS, MS)
    gathering.face_ns = MS
    assert gathering.most() == 1, "no turn was timed"
    gathering.took(0, 0, MS, LATELY_NS)
    assert gathering.most() == 1, "that turn had no frame"
    gathering.took(2, 2 * MS, MS, LATELY_NS)
    assert gathering.most() == waiting.MOST
    gathering.restart(LATELY_NS)
    assert gathering.most() == 1


def test_a_face_that_was_read_lately_counts_though_nobody_is_there_now() -> None:
    assert known(0.1, face_ms=5.5).most() == 9
    assert known(0.1).most() == waiting.MOST


@pytest.mark.parametrize(
    ("frame_ms", "apart_ms", "most"),
    [(1, 33.3, 15), (5.5, 33.3, 9), (9.9, 33.3, 5), (10, 33.3, 1), (8.2, 16.7, 6), (8.5, 16.7, 1), (1, 36, 15), (1, 37, 1), (0, 33.3, 15)],
)
def test_as_many_wait_as_are_worked_off_soon_with_time_to_spare_from_a_camera_as_fast_as_ticks(frame_ms: float, apart_ms: float, most: int) -> None:
    assert known(frame_ms, apart_ms).most() == most


@given(st.floats(0.05, 10), st.floats(8, 36), st.floats(0, 10), st.floats(0, 2000), st.floats(0, 1), st.integers(0, 10**12))
def test_what_was_gathered_is_worked_off_before_the_hop_wherever_its_frames_lie(
    frame_ms: float, apart_ms: float, rest_ms: float, left_ms: float, phase: float, now_ns: int
) -> None:
    gathering = known(frame_ms, apart_ms, rest_ms)
    most = gathering.most()
    hop_ns = now_ns + round(left_ms * MS)
    until_ns = gathering.until_ns(hop_ns, most, now_ns)
    if most == 1 or until_ns <= now_ns:
        return
    assert until_ns <= hop_ns - TICK_NS
    came_ns = [now_ns + (phase + k) * apart_ms * MS for k in range(waiting.MOST)]
    first = next((k for k, at_ns in enumerate(came_ns) if at_ns >= until_ns or k + 1 == most), most - 1)
    done_ns = came_ns[first] + (rest_ms + (first + 1) * frame_ms) * MS
    assert done_ns <= hop_ns + max(0.0, apart_ms * MS - TICK_NS) + SOON_NS


@given(st.floats(0.05, 10), st.floats(17, 36))
def test_frames_wait_as_long_as_they_can(frame_ms: float, apart_ms: float) -> None:
    gathering = known(frame_ms, apart_ms)
    most = gathering.most()
    if most == 1:
        assert (GATHERED_NS / MS - 0.5) / frame_ms < FEWEST or 2 * frame_ms > apart_ms - 1e-5
        return
    left_ns = round(most * (apart_ms + frame_ms) * MS) + 2 * TICK_NS
    gathered = ceil(gathering.until_ns(left_ns, most, 0) / (apart_ms * MS))
    assert gathered >= most - 1, "a hop so far away leaves time for all of them"


@pytest.mark.parametrize(
    ("newest_ms", "early_ms", "sound_ms", "expected"),
    [
        (-30, 10, 20, (20.0, 9.0, 37.6, 1)),  # the frame from 3.3 ms on is here before the sound, and waits for it
        (-30, 10, 50, (37.6, 0.0, 37.6, 2)),  # the sound may be here when the next but one comes: each ends a wait
        (4, 10, 50, (38.3, 9.0, 38.3, 1)),  # none before the one that may decide it
        (-30, 0, 20, (4.3, 0.001, 4.3, 1)),  # nothing says that the sound is not here with the first
        (-40, 10, 20, (27.6, 0.0, 27.6, 2)),  # no frame from the hop's end on before the sound
    ],
)
def test_a_near_hop_waits_for_its_sound_or_for_the_first_frame_after_that(
    newest_ms: float, early_ms: float, sound_ms: float, expected: tuple[float, float, float, int]
) -> None:
    found = known(0.0001).last(1_000, round(early_ms * MS), round(sound_ms * MS), round(newest_ms * MS))
    assert (found.at_ns / MS, found.frame_ns / MS, found.frames) == (
        pytest.approx(expected[0], abs=0.2),
        pytest.approx(expected[2], abs=0.2),
        expected[3],
    )
    assert found.stamp_ns / MS == pytest.approx(expected[1], abs=0.001)


@pytest.mark.parametrize(("frame_ms", "apart_ms", "waits"), [(1, 33.3, True), (4.9, 33.3, True), (5.1, 33.3, False), (1, 16.7, False)])
def test_frames_wait_for_a_hop_where_they_are_cheap_and_as_far_apart_as_ticks(frame_ms: float, apart_ms: float, waits: bool) -> None:
    assert bool(known(frame_ms, apart_ms).last(1_000, 10 * MS, 20 * MS, -MS).stamp_ns) == waits


def test_no_more_frames_wait_for_a_hop_than_are_worked_off_before_the_next_one_would_end_the_wait() -> None:
    two = [known(frame_ms).last(1_000, 10 * MS, 36 * MS, -32 * MS) for frame_ms in (1.0, 4.0)]
    assert [each.frames for each in two] == [2, 2]
    three = [known(frame_ms).last(1_000, 10 * MS, 20 * MS, -62 * MS) for frame_ms in (1.0, 4.5)]
    assert [(each.frames, each.at_ns) for each in three] == [(2, 20 * MS)] * 2
    assert all(each.stamp_ns for each in three)


def test_few_frames_say_nothing_of_what_many_take_each() -> None:
    gathering = known(9.0)
    assert gathering.most() == 5
    gathering.took(FEWEST, FEWEST * 2 * MS, MS // 2, 2 * LATELY_NS + 1)
    gathering.took(1, 9 * MS, MS // 2, 2 * LATELY_NS + 2)
    assert gathering.most() == waiting.MOST
    gathering.took(1, 9 * MS, MS // 2, 4 * LATELY_NS + 2)
    assert gathering.most() == 5, "many were long ago"
