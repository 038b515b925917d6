"""The audio ring is its twin for any sequence of pushes and reads, and loses nothing between two Python threads."""

from __future__ import annotations

import threading
import time

import native_twins as twins
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import AudioRing

STEPS = st.lists(st.tuples(st.sampled_from(["push", "skip", "read"]), st.integers(0, 60), st.integers(-20, 200)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(capacity=st.integers(1, 50), steps=STEPS)
def test_ring_is_its_twin(capacity: int, steps: list[tuple[str, int, int]]) -> None:
    ring, twin = AudioRing(capacity), twins.Ring(capacity)
    for step, n, start in steps:
        if step == "push":
            samples = np.arange(ring.written + 1, ring.written + 1 + n, dtype=np.float32)
            assert ring.push(samples) == twin.push(samples.tolist())
        elif step == "skip":
            assert ring.skip(n) == twin.push([0.0] * n)
        else:
            out = np.full(n, np.nan, np.float32)
            expected, held = twin.read(start, n)
            assert ring.read(start, out) == held
            assert out.tolist() == expected
        assert ring.written == len(twin.samples)


def test_strided_samples_are_taken_in_order() -> None:
    ring, out = AudioRing(8), np.empty(4, np.float32)
    ring.push(np.arange(8, dtype=np.float32)[::2])
    assert ring.read(0, out) == 4
    assert out.tolist() == [0, 2, 4, 6]


def test_two_threads_lose_nothing() -> None:
    total, chunk = 160_000, 333
    ring, lost = AudioRing(total), []

    def produce() -> None:
        for start in range(0, total, chunk):
            lost.append(ring.push(np.arange(start, min(start + chunk, total), dtype=np.float32)))

    thread = threading.Thread(target=produce)
    thread.start()
    received, deadline_s = np.empty(total, np.float32), time.monotonic() + 60
    at = 0
    while at < total and time.monotonic() < deadline_s:
        n = ring.written - at
        assert ring.read(at, received[at : at + n]) == n
        at += n
    thread.join()
    assert sum(lost) == 0
    assert np.array_equal(received, np.arange(total, dtype=np.float32))


def test_wrong_use() -> None:
    with pytest.raises(NativeError, match="SAGE_E_SIZE") as caught:
        AudioRing(0)
    assert caught.value.code == -2
    ring = AudioRing(4)
    with pytest.raises(NativeError, match="expected float32"):
        ring.push(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(NativeError, match="expected float32"):
        ring.push(np.zeros((3, 2), np.float32))
    with pytest.raises(NativeError, match="C-contiguous"):
        ring.read(0, np.zeros(6, np.float32)[::2])
    with pytest.raises(NativeError, match="skip of -1 samples"):
        ring.skip(-1)
    assert ring.written == 0
