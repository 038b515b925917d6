"""A hop that changes between hops, and a clock that jumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feeding import SECOND, Event, by_time, events, make_clip, push, run
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime import Bundle, Session, UsageError, ticks
from sage_edge.runtime.estimate import Drops, Estimate

TICK = ticks.tick_time_ns
FACE = np.random.default_rng(3).integers(0, 255, (48, 48, 3), np.uint8)
FRAMES, SOUND = events(make_clip(4, seed=2))
CLIP = by_time(FRAMES, SOUND)
AHEAD = [
    event for _, event in sorted([*((t - 900_000_000, e) for e in FRAMES for t in [e[1]]), *((e[1], e) for e in SOUND)], key=lambda item: item[0])
]
"""The frames come 0.9 s before the sound of their time."""


def shifted(order: list[Event], ns: int) -> list[Event]:
    return [(kind, t_ns + ns, data) for kind, t_ns, data in order]


def without_drops(estimates: list[Estimate]) -> list[Estimate]:
    return [replace(estimate, drops=Drops()) for estimate in estimates]


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_trails_have_no_hole_and_no_overlap_however_the_hop_changes(bundle: Bundle, data: st.DataObject) -> None:
    order = data.draw(st.sampled_from([CLIP, AHEAD]))
    changes = data.draw(st.dictionaries(st.integers(0, len(CLIP) - 1), st.sampled_from([1, 2, 7, 15, 60, 300]), max_size=6))
    with Session(bundle, precision="fp32", hop=data.draw(st.sampled_from([1, 15, 300])), t0_ns=0, hop_thread=data.draw(st.booleans())) as session:
        for i, event in enumerate(order):
            if i in changes:
                session.set_hop(changes[i])
            push(session, event)
        session.finish()
        estimates = session.poll()
    trail = [t_ns for estimate in estimates for t_ns, _, _ in estimate.trail]
    assert trail == [TICK(k) for k in range(len(trail))]
    assert len(trail) == 120
    with Session(bundle, precision="fp32", hop=1, t0_ns=0) as session:
        every = {e.t_ns: (e.valence, e.arousal, e.reliability, e.face, e.age_ms) for e in run(session, CLIP)}
    for e in estimates:
        assert every[e.t_ns] == (e.valence, e.arousal, e.reliability, e.face, e.age_ms), "the window that ends there, whatever the hop"


def test_a_hop_that_is_widened_takes_effect_with_the_next_and_one_that_is_narrowed_gives_what_is_over(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", hop=15, t0_ns=0) as session:
        session.advance(TICK(20))
        session.set_hop(60)
        assert session.hello()["hop"] == session.hop == 60
        session.advance(TICK(70))
        assert [e.t_ns for e in session.poll()] == [TICK(14)]
        session.set_hop(15)
        session.advance(TICK(70))
        (estimate,) = session.poll()
        assert (estimate.t_ns, len(estimate.trail)) == (TICK(69), 55)
        session.advance(TICK(85))
        assert [e.t_ns for e in session.poll()] == [TICK(84)]


@pytest.mark.parametrize("hop", [0, 301, 1.5, True, None])
def test_a_hop_that_cannot_be_is_refused_and_nothing_changes(bundle: Bundle, hop: object) -> None:
    with Session(bundle, precision="fp32", hop=15, t0_ns=0) as session:
        with pytest.raises(UsageError, match="must be a whole number of ticks from 1 to 300"):
            session.set_hop(hop)  # type: ignore[arg-type]
        session.advance(TICK(15))
        assert len(session.poll()) == session.hop / 15 == 1


@pytest.mark.parametrize("jump_ns", [90 * 86_400 * SECOND + 12_345, 5 * SECOND + 1, -3 * SECOND, -400 * 86_400 * SECOND - 7])
@pytest.mark.parametrize("thread", [False, True])
def test_after_a_jump_it_is_as_a_new_session(bundle: Bundle, jump_ns: int, thread: bool) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, hop_thread=thread) as session:
        for event in CLIP[:150]:
            push(session, event)
        decided = len(session.poll()) if not thread else None
        session.skip(jump_ns)
        pending = session.poll()
        assert decided is None or pending == [], "decided hops only"
        start = min(k for k in range(ticks.tick_at_or_after(jump_ns) - 2, ticks.tick_at_or_after(jump_ns) + 2) if TICK(k) >= jump_ns)
        found = run(session, shifted(CLIP, TICK(start)))
    with Session(bundle, precision="fp32", t0_ns=TICK(start)) as session:
        expected = run(session, shifted(CLIP, TICK(start)))
    assert without_drops(found) == without_drops(expected)
    assert found[0].t_ns == TICK(start) + TICK(14)


def test_counts_go_on_and_what_is_older_than_the_jump_is_counted_as_lost(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0) as session:
        session.push_audio(np.ones(1000, np.float32), 0)
        session.push_audio(np.ones(1000, np.float32), SECOND)
        session.push_face(FACE, TICK(3))
        session.push_face(FACE, TICK(2))
        assert session.drops == Drops(1, 1, 0)
        session.skip(100 * SECOND)
        session.push_audio(np.ones(1000, np.float32), 2 * SECOND)
        session.push_face(FACE, 2 * SECOND)
        session.advance(101 * SECOND)
        estimates = session.poll()
        assert [e.t_ns for e in estimates] == [100 * SECOND + TICK(14), 100 * SECOND + TICK(29)]
        assert all(e.face is None and e.audio.rms_dbfs == -120 and e.drops == Drops(2, 2, 0) for e in estimates)


def test_a_session_may_begin_with_a_jump(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32") as session:
        session.skip(7 * SECOND)
        session.push_face(FACE, 7 * SECOND)
        session.finish()
        (estimate,) = session.poll()
        assert estimate.t_ns == 7 * SECOND
        with pytest.raises(UsageError, match="finished"):
            session.skip(8 * SECOND)
    with Session(bundle, precision="fp32") as session, pytest.raises(UsageError, match="whole number of nanoseconds"):
        session.skip(0.5)  # type: ignore[arg-type]
