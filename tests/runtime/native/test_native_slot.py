"""The slot hands over the newest frame, whole, while Python threads write and look as they like."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import FrameSlot


@settings(max_examples=100, deadline=None)
@given(nbytes=st.integers(1, 300), writes=st.lists(st.booleans(), max_size=60))
def test_newest_once_and_untouched_until_the_next(nbytes: int, writes: list[bool]) -> None:
    slot, written, taken, held = FrameSlot(nbytes), 0, 0, None
    for write in writes:
        if write:
            written += 1
            slot.begin()[:] = written % 251
            slot.commit(written * 10, tag=-written)
            continue
        frame = slot.take()
        assert (frame is None) == (written == taken)
        if frame is not None:
            assert (frame.t_ns, frame.tag, frame.replaced) == (written * 10, -written, written - taken - 1)
            held, taken = frame, written
        if held is not None:
            assert (held.pixels == taken % 251).all()


def test_two_threads_see_whole_frames() -> None:
    slot, done, written = FrameSlot(200_000), threading.Event(), 0

    def write() -> None:
        nonlocal written
        while not done.is_set():
            written += 1
            slot.begin()[:] = written % 251
            slot.commit(written)

    thread = threading.Thread(target=write)
    thread.start()
    seen = replaced = newest = 0
    deadline_s = time.monotonic() + 60
    while seen < 200 and time.monotonic() < deadline_s:
        frame = slot.take()
        if frame is not None:
            assert frame.t_ns > newest
            newest = frame.t_ns
            assert (frame.pixels == newest % 251).all()
            seen, replaced = seen + 1, replaced + frame.replaced
    done.set()
    thread.join()
    last = slot.take()
    if last is not None:
        seen, replaced = seen + 1, replaced + last.replaced
    assert seen >= 200
    assert seen + replaced == written


def test_views_outlive_the_slot() -> None:
    slot = FrameSlot(1000)
    slot.begin()[:] = 9
    slot.commit(1)
    frame = slot.take()
    assert frame is not None
    assert frame.pixels.ctypes.data % 64 == 0
    del slot
    gc.collect()
    assert (frame.pixels == 9).all()


def test_wrong_use() -> None:
    with pytest.raises(NativeError, match="SAGE_E_SIZE"):
        FrameSlot(0)
    assert FrameSlot(1).take() is None
    assert np.shares_memory((slot := FrameSlot(8)).begin(), slot.begin())
