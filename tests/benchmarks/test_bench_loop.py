"""The time of a call that is under way is taken off as well: a second that ends in its middle is no cheaper or dearer for it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest


def test_a_call_under_way_in_another_thread_is_counted_and_never_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from loop import _Apart

    del sys.modules["loop"]
    apart, begun, stop = _Apart(), threading.Event(), threading.Event()
    spent: list[int] = []

    def spin() -> None:
        begun.set()
        while not stop.is_set():
            pass

    def work() -> None:
        timed = apart.timed(spin)
        for _ in range(2):
            before_ns = time.thread_time_ns()
            timed()
            spent.append(time.thread_time_ns() - before_ns)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    readings = []
    for _ in range(30):
        time.sleep(0.001)  # it holds the interpreter, too
        readings.append(apart.ns())
    stop.set()
    thread.join()
    assert readings[-1] > readings[0] > 0
    assert readings == sorted(readings)
    assert readings[-1] <= apart.ns() <= sum(spent)
    assert apart.ns() > 0.9 * sum(spent)
