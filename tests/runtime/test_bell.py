"""A bell is heard once, whether it was rung before the wait or during it."""

from __future__ import annotations

import threading

from sage_edge.runtime.sources.bell import Bell


def test_what_was_rung_before_is_heard_once() -> None:
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_what_was_hushed_is_not_heard() -> None:
    bell = Bell()
    bell.hush()
    bell.ring()
    bell.hush()
    assert not bell.wait(0)


def test_a_wait_that_is_under_way_hears_it() -> None:
    here, there = Bell(), Bell()

    def answer() -> None:
        for _ in range(200):
            here.wait()
            there.ring()

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(200):
        here.ring()
        assert there.wait(60)
    thread.join(60)
    assert not thread.is_alive()
