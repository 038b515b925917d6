"""What counts as stalled, frozen, black or changed: the pure state machine behind a live camera, at any frame rate."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage_edge.runtime.sources.watch import Limits, Watch

SECOND = 1_000_000_000
RATES = st.sampled_from([1.0, 5.0, 15.0, 30.0, 60.0])


@cache
def noise(seed: int, shape: tuple[int, ...] = (48, 64, 3)) -> NDArray[np.uint8]:
    """Read-only: the same array for the same seed."""
    return np.random.default_rng(seed).integers(40, 200, shape, np.uint8)


def feed(watch: Watch, start_ns: int, seconds: float, rate_hz: float, picture: NDArray[np.uint8] | None = None) -> int:
    """Frames for `seconds`, all `picture` or all different; the time of the last one. Nothing may be overdue at any of them before it came."""
    t_ns = start_ns
    for i in range(int(seconds * rate_hz)):
        t_ns = start_ns + round((i + 1) / rate_hz * SECOND)
        watch.frame(t_ns, noise(i % 50) if picture is None else picture, "rgb")
    return t_ns


@settings(max_examples=10, deadline=None)
@given(RATES, st.booleans())
def test_silence_is_a_stall_after_two_seconds_or_ten_periods_whatever_was_granted(rate_hz: float, granted: bool) -> None:
    watch = Watch()
    watch.opened(0, rate_hz if granted else None)
    last = feed(watch, 0, 40.0, rate_hz)
    limit_s = max(2.0, 10 / rate_hz)
    assert watch.overdue(last + round(0.98 * limit_s * SECOND)) is None
    why = watch.overdue(last + round(1.02 * limit_s * SECOND))
    assert why is not None
    assert "gave no frame for" in why


@pytest.mark.parametrize("rate_hz", [0.12, 0.4, 1.0])
def test_a_camera_that_is_slow_by_nature_is_never_overdue(rate_hz: float) -> None:
    watch = Watch()
    t_ns = 0
    for _ in range(3):
        watch.opened(t_ns, None)
        for _ in range(4):
            t_ns += round(SECOND / rate_hz)
            assert watch.overdue(t_ns) is None
            watch.frame(t_ns, noise(t_ns % 50), "rgb")


@settings(max_examples=10, deadline=None)
@given(RATES)
def test_the_same_picture_is_frozen_and_another_is_not(rate_hz: float) -> None:
    watch = Watch()
    watch.opened(0, rate_hz)
    last = feed(watch, 0, 20.0, rate_hz)
    assert watch.overdue(last) is None
    still = noise(7)
    last = feed(watch, last, max(2.0, 10 / rate_hz) + 2 / rate_hz + 0.2, rate_hz, still)
    assert "the same picture" in str(watch.overdue(last))


def test_a_scene_that_stays_the_same_after_opening_again_is_left_open_for_a_minute() -> None:
    watch, still = Watch(), noise(7)
    watch.opened(0, 30.0)
    last = feed(watch, 0, 3.0, 30.0, still)
    assert "the same picture" in str(watch.overdue(last))
    watch.opened(last, 30.0)
    last = feed(watch, last, 50.0, 30.0, still)
    assert watch.overdue(last) is None
    last = feed(watch, last, 20.0, 30.0, still)
    assert watch.overdue(last) is not None
    last = feed(watch, last, 3.0, 30.0)
    assert watch.overdue(feed(watch, last, 3.0, 30.0, still)) is not None, "frozen anew"


@given(st.integers(0, 48 * 64 * 3 - 1))
@settings(max_examples=30, deadline=None)
def test_one_pixel_is_enough_to_be_another_picture(at: int) -> None:
    watch = Watch()
    still = noise(7)
    other = still.copy()
    other.reshape(-1)[at] ^= 1
    assert watch.frame(1 * SECOND, still, "rgb")
    assert not watch.frame(2 * SECOND, still.copy(), "rgb")
    assert watch.frame(3 * SECOND, other, "rgb")


def test_the_first_picture_of_an_opening_is_compared_with_the_last_of_the_one_before() -> None:
    watch = Watch()
    watch.opened(0, 30.0)
    assert watch.frame(1, noise(1), "rgb")
    watch.opened(2, 30.0)
    assert not watch.frame(3, noise(1), "rgb")
    assert not watch.frame(4, noise(2), "rgb"), "too soon to be looked at"
    assert watch.frame(SECOND, noise(2), "rgb")


@pytest.mark.parametrize(
    ("format", "black", "lit"),
    [
        ("rgb", np.full((48, 64, 3), 3, np.uint8), noise(1)),
        ("nv12", np.concatenate([np.full((48, 64), 17, np.uint8), np.full((24, 64), 128, np.uint8)]), noise(1, (72, 64))),
        ("yuyv", np.stack([np.full((48, 64), 16, np.uint8), np.full((48, 64), 128, np.uint8)], axis=2), noise(1, (48, 64, 2))),
    ],
)
def test_black_is_said_once_is_never_frozen_and_light_is_said_again(format: str, black: NDArray[np.uint8], lit: NDArray[np.uint8]) -> None:
    watch = Watch()
    watch.opened(0, 30.0)
    watch.frame(0, lit, format)
    for i in range(1, 300):
        assert watch.frame(i * SECOND // 30, black, format)
        assert watch.overdue(i * SECOND // 30) is None
    assert ["black" in change for change in watch.changes()] == [True]
    watch.frame(10 * SECOND, lit, format)
    assert watch.changes() == ["gives pictures again"]
    assert watch.changes() == []


def test_another_size_is_said_in_pixels_of_the_picture() -> None:
    watch = Watch()
    watch.frame(0, noise(1, (72, 64)), "nv12")
    watch.frame(1, noise(1), "rgb")
    assert watch.changes() == []
    watch.frame(2, noise(1, (96, 64, 2)), "yuyv")
    assert watch.changes() == ["its pictures are 64 x 96 now, were 64 x 48"]


def test_a_camera_that_never_gives_a_frame_is_overdue() -> None:
    watch = Watch(Limits(first_s=3.0))
    watch.opened(5 * SECOND, 30.0)
    assert watch.overdue(8 * SECOND) is None
    assert "no frame in 3.1 s" in str(watch.overdue(8 * SECOND + SECOND // 10))
