"""The soundtrack alone, at a window whose ticks do not divide its samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime import ticks
from sage_edge.runtime.soundtrack import Soundtrack
from sage_edge.runtime.timeline import Timeline

SOUND = np.random.default_rng(0).uniform(0.1, 0.9, 40_000).astype(np.float32)


def make(window: int) -> tuple[Timeline, Soundtrack, np.ndarray, np.ndarray]:
    time, samples = Timeline(30, 16_000, 10**9, 0), np.full(ticks.window_samples(window), np.float32(9))
    return time, Soundtrack(time, window, samples), samples, np.empty(window, np.float32)


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_window_holds_its_ticks_and_nothing_else(window: int) -> None:
    _, sound, samples, mask = make(window)
    for _ in sound.append(SOUND[:9_100], 0):
        pass
    for newest in range(17):
        assert sound.window(newest, mask)
        start = ticks.first_sample(newest - window + 1)
        expected = np.zeros(len(samples), np.float32)
        for i, tick in enumerate(range(newest - window + 1, newest + 1)):
            assert mask[i] == (tick >= 0 and ticks.first_sample(tick + 1) <= 9_100)
            if mask[i]:
                low, high = ticks.first_sample(tick), ticks.first_sample(tick + 1)
                part = expected[low - start : high - start]
                part[:] = SOUND[low:high][: len(part)]
        assert np.array_equal(samples, expected)
    assert sound.window(17, mask) == (window > 1)


@given(pieces=st.lists(st.tuples(st.integers(-3000, 3000), st.integers(0, 4000)), min_size=1, max_size=12))
def test_gaps_and_overlaps(pieces: list[tuple[int, int]]) -> None:
    """Against an array in which each chunk is written where it belongs, first come first kept."""
    time, sound, samples, mask = make(60)
    truth, got, at, counts = np.zeros(200_000, np.float32), np.zeros(200_000, bool), 0, [0, 0]
    for shift, length in pieces:
        start = at + shift
        if length == 0:
            continue
        data = SOUND[:length]
        for _ in sound.append(data, start):
            pass
        if not got.any():
            if start + length <= 0:
                continue
            skip, begin = max(-start, 0), max(start, 0)
        elif abs(shift) < 320:
            skip, begin = 0, at
        else:
            counts[shift < 0] += 1
            skip, begin = max(-shift, 0), max(start, at)
        kept = data[skip:]
        truth[begin : begin + len(kept)], got[begin : begin + len(kept)] = kept, True
        at = max(at, begin + len(kept))
        if at:
            newest = time.ended_samples(at) - 1
            sound.window(newest, mask)
            first = newest - 59
            for i, tick in enumerate(range(first, newest + 1)):
                low, high = ticks.first_sample(tick), ticks.first_sample(tick + 1)
                on = low >= 0 and bool(got[low:high].all())
                assert mask[i] == on
                expected = truth[low:high] if on else 0
                place = slice(low - ticks.first_sample(first), high - ticks.first_sample(first))
                assert np.array_equal(samples[place], np.broadcast_to(expected, samples[place].shape))
    assert [sound.gaps, sound.overlaps] == counts
    assert time.samples == at if got.any() else time.samples < 0
