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
        samples, heard = sound.window(newest, mask)
        assert heard
        start = ticks.first_sample(newest - window + 1)
        expected = np.zeros(len(samples), np.float32)
        for i, tick in enumerate(range(newest - window + 1, newest + 1)):
            assert mask[i] == (tick >= 0 and ticks.first_sample(tick + 1) <= 9_100)
            if mask[i]:
                low, high = ticks.first_sample(tick), ticks.first_sample(tick + 1)
                part = expected[low - start : high - start]
                part[:] = SOUND[low:high][: len(part)]
        assert np.array_equal(samples, expected)
    assert sound.window(17, mask)[1] == (window > 1)


@pytest.mark.parametrize(("begin", "tick"), [(0, 0), (4_100, 8), (4_267, 8)])
def test_a_window_is_read_where_it_lies_and_stays_for_as_long_as_another(begin: int, tick: int) -> None:
    time, sound, own, mask = make(60)
    given = []
    noise = np.random.default_rng(1).standard_normal(400_000).astype(np.float32)
    for at in range(0, len(noise), 8_000):
        for _ in sound.append(noise[max(at, begin) : at + 8_000].copy(), max(at, begin)):
            pass
        if not at:
            noise[: ticks.first_sample(tick)] = 0  # nobody hears a part of a tick
        newest = time.ended_samples(time.samples) - 1
        assert sound.window(newest - 1, mask)[0] is own, "it begins beside a cache line"
        samples, heard = sound.window(newest, mask)
        start = ticks.first_sample(newest - 59)
        assert heard
        assert not np.shares_memory(samples, own)
        assert samples.ctypes.data % 64 == 0
        assert np.array_equal(mask, np.arange(newest - 59, newest + 1) >= tick)
        given.append((samples, np.concatenate((np.zeros(max(0, -start), np.float32), noise[max(0, start) : start + len(samples)]))))
        for earlier, expected in given[-7:]:  # 32 000 samples are a window, and 16 000 the lag
            assert np.array_equal(earlier, expected)
    assert time.samples == 400_000


def test_what_has_not_come_yet_is_silent_though_older_sound_lies_there() -> None:
    time, sound, _, mask = make(60)
    for _ in sound.append(np.ones(150_100, np.float32), 0):
        pass
    over = time.ended_samples(150_100)
    for newest in range(over, over + 7):
        samples, heard = sound.window(newest, mask)
        there = ticks.first_sample(over) - ticks.first_sample(newest - 59)
        assert heard
        assert samples[:there].all()
        assert not samples[there:].any()
        assert mask.sum() == 60 - (newest + 1 - over)


def test_nothing_of_before_a_restart_is_heard_after_it() -> None:
    time, sound, _, mask = make(60)
    for _ in sound.append(np.ones(100_000, np.float32), 50_000):  # within a tick
        pass
    time.restart(7 * 10**9)
    sound.restart()
    for _ in sound.append(SOUND[:8_000], 0):
        pass
    samples, _ = sound.window(14, mask)
    assert not samples[:-8_000].any()
    assert np.array_equal(samples[-8_000:], SOUND[:8_000])
    assert mask.sum() == 15


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
            samples, _ = sound.window(newest, mask)
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
