"""Hops in a thread of their own: the same bits, none dropped, errors not swallowed, an end that waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from feeding import SECOND, by_time, events, make_clip, push, run, stamp

from sage_edge.runtime import Bundle, EngineError, Session, ticks
from sage_edge.runtime.estimate import Estimate

TICK = ticks.tick_time_ns
FACE = np.random.default_rng(3).integers(0, 255, (48, 48, 3), np.uint8)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def held(session: Session, which: str = "fusion") -> threading.Event:
    """Fusion, or the graph that is named, waits for this to be set."""
    assert session._graphs is not None
    go, fusion = threading.Event(), getattr(session._graphs, which)
    plain = fusion.run

    def wait(items: int | None = None) -> None:
        assert go.wait(20)
        plain(items)

    fusion.run = wait  # type: ignore[method-assign]
    return go


@pytest.mark.parametrize(("hop", "follow"), [(1, "largest"), (7, "all"), (15, "largest"), (300, "largest")])
def test_the_bits_are_those_of_one_thread(bundle: Bundle, hop: int, follow: str) -> None:
    order = by_time(*events(make_clip(4.3 if hop < 300 else 21, seed=hop, jitter_ns=4_000_000)))
    outcomes = []
    for thread in (False, True):
        with Session(bundle, precision="fp32", hop=hop, t0_ns=0, follow=follow, hop_thread=thread) as session:
            outcomes.append(run(session, order, lambda i: i % 3 == 0))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) >= 3


@pytest.mark.parametrize("which", ["audio", "fusion"])
@pytest.mark.parametrize("ahead_ms", [0, 950, -950])
def test_a_hop_that_lasts_as_long_as_the_next_one_reads_what_it_was_given(bundle: Bundle, ahead_ms: int, which: str) -> None:
    frames, sound = events(make_clip(31, seed=4))
    order = by_time(frames, [(kind, t_ns - ahead_ms * 1_000_000, (t_ns, samples)) for kind, t_ns, samples in sound])
    order = [(kind, *data) if kind == "audio" else (kind, t_ns, data) for kind, t_ns, data in order]
    with Session(bundle, precision="fp32", hop=300, t0_ns=0) as session:
        expected = run(session, order)
    assert len(expected) == 4
    with Session(bundle, precision="fp32", hop=300, t0_ns=0, hop_thread=True) as session:
        go, pushed, outcome = held(session, which), [0], list[Estimate]()

        def push_all() -> None:
            for event in order:
                push(session, event)
                pushed[0] += 1
            session.finish()
            outcome.extend(session.poll())

        thread = threading.Thread(target=push_all)
        thread.start()
        until(lambda: session._hops.busy)
        still = -1
        while pushed[0] != still:  # until the next hop waits for this one
            still = pushed[0]
            time.sleep(0.3)
        assert thread.is_alive()
        go.set()
        thread.join(60)
    assert outcome == expected


def test_frames_are_encoded_while_a_hop_is_computed_and_the_next_hop_waits(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, hop=5, hop_thread=True) as session:
        go = held(session)
        session.advance(TICK(5))
        for k in range(5, 9):
            session.push_face(FACE, TICK(k))
            session.advance(TICK(k))
        assert session.stages["visual"].count == 3
        assert session.poll() == []
        assert session.stages["wait"].count == 0
        pushed = threading.Thread(target=session.advance, args=(TICK(10),))
        pushed.start()
        until(lambda: session.stages["visual"].count == 4)
        assert pushed.is_alive(), "its inputs are still read"
        go.set()
        pushed.join()
        session.finish()
        assert [e.t_ns for e in session.poll()] == [TICK(4), TICK(9)]
        assert session.stages["wait"].count == 1
        assert session.stages["hop"].count == session.stages["fusion"].count == 2


def test_an_error_is_raised_once_by_the_next_call_and_the_session_goes_on(bundle: Bundle) -> None:
    for call in (
        lambda session: session.poll(),
        lambda session: session.push_face(FACE, TICK(6)),
        lambda session: session.push_audio(np.zeros(10, np.float32), 0),
        lambda session: session.advance(TICK(6)),
        lambda session: session.finish(),
    ):
        with Session(bundle, precision="fp32", t0_ns=0, hop=5, hop_thread=True) as session:
            assert session._graphs is not None
            fusion = session._graphs.fusion
            plain = fusion.run

            def overflow(items: int | None = None, plain=plain, fusion=fusion) -> None:
                plain(items)
                fusion.outputs["temporal"][0, -1] = np.nan

            fusion.run = overflow  # type: ignore[method-assign]
            session.advance(TICK(5))
            until(session._hops._idle.is_set)
            with pytest.raises(EngineError, match="the fusion graph in fp32 left 1 non-finite"):
                call(session)
            fusion.run = plain  # type: ignore[method-assign]
            session.advance(TICK(10))
            session.finish()
            assert TICK(9) in [e.t_ns for e in session.poll()]


def test_a_callback_that_raises_is_told_and_the_hops_go_on(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr("threading.excepthook", lambda args: told.append(args.exc_value))

    def call() -> None:
        raise RuntimeError("Event loop is closed")

    with Session(bundle, precision="fp32", t0_ns=0, hop=5, hop_thread=True) as session:
        session.when_computed(call)
        for k in (5, 10):
            session.advance(TICK(k))
            until(session._hops._idle.is_set)
            until(lambda k=k: len(told) == k // 5)
        assert [e.t_ns for e in session.poll()] == [TICK(4), TICK(9)]
    assert [str(error) for error in told] == ["Event loop is closed"] * 2


def test_an_error_in_the_last_hop_is_raised_by_finish(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, hop_thread=True) as session:
        assert session._graphs is not None
        session._graphs.audio.close()
        session.push_audio(np.ones(5000, np.float32), 0)
        with pytest.raises(EngineError, match="was closed"):
            session.finish()


def test_closing_waits_for_the_hop_and_leaves_no_thread(bundle: Bundle) -> None:
    def threads() -> int:
        return sum(thread.name == "sage-hop" for thread in threading.enumerate())

    before = threads()
    session = Session(bundle, precision="fp32", t0_ns=0, hop=5, hop_thread=True)
    go = held(session)
    session.advance(TICK(5))
    closing = threading.Thread(target=session.close)
    closing.start()
    assert threads() == before + 1
    assert closing.is_alive(), "the hop is still computed"
    go.set()
    closing.join()
    session.close()
    assert threads() == before
    assert [e.t_ns for e in session.poll()] == [TICK(4)]


def test_closing_again_after_ctrl_c_waits_for_the_hop(bundle: Bundle) -> None:
    session = Session(bundle, precision="fp32", t0_ns=0, hop=5, hop_thread=True)
    assert session._graphs is not None
    fusion, go = session._graphs.fusion, threading.Event()
    plain = fusion.run

    def interrupt(items: int | None = None) -> None:
        until(lambda: not session._hops._jobs.empty())  # close has begun
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert go.wait(20)
        plain(items)

    fusion.run = interrupt  # type: ignore[method-assign]
    session.advance(TICK(5))
    with pytest.raises(KeyboardInterrupt):
        session.close()
    assert session._hops._end is not None
    assert session._hops._end.alive, "the interpreter's end waits, too"
    closing = threading.Thread(target=session.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive(), "the hop is still computed"
    go.set()
    closing.join()
    assert not session._hops._end.alive
    assert [e.t_ns for e in session.poll()] == [TICK(4)]


def test_a_process_that_forgets_to_close_ends_cleanly(bundle: Bundle) -> None:
    code = f"""
from sage_edge.runtime import Bundle, Session
session = Session(Bundle.open({str(bundle.path)!r}), precision="fp32", t0_ns=0, hop=1, hop_thread=True, threads=1)
for k in range(20):
    session.advance(k * 33_333_334)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stderr) == (0, "")


def test_sound_that_comes_meanwhile_changes_no_hop(bundle: Bundle) -> None:
    """What a hop reads is copied: later sound and rows overwrite neither it nor its masks."""
    noise = (0.1 * np.random.default_rng(4).standard_normal(64_000)).astype(np.float32)
    outcomes = []
    for thread in (False, True):
        with Session(bundle, precision="fp32", t0_ns=0, hop=30, hop_thread=thread, max_lag_ms=2000) as session:
            go = held(session)
            if not thread:
                go.set()
            session.push_face(FACE, 0)
            session.push_audio(noise[:16_000], 0)
            session.advance(SECOND)
            for k in range(31, 59):
                session.push_face(FACE[::-1], TICK(k))
            session.push_audio(noise[16_000:31_000], stamp(16_000))
            go.set()
            session.finish()
            outcomes.append(session.poll()[0])
    assert outcomes[0] == outcomes[1]
