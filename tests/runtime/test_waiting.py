"""Which frames of a camera wait for whoever takes them, who is told, and what counts as stale."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType

import numpy as np

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.sources import CameraCounts, FrameEvent
from sage_edge.runtime.sources.camera import LiveCamera
from sage_edge.runtime.sources.uri import CameraUri
from sage_edge.runtime.sources.waiting import MOST_BYTES, Waiting
from sage_edge.runtime.sources.watch import Limits

CALM = Limits(stall_s=math.inf, frozen_s=math.inf, black_s=math.inf)
PIXELS = np.zeros((2, 2, 3), np.uint8)


def frame(t_ns: int) -> FrameEvent:
    return FrameEvent(t_ns, PIXELS, "bgr")


def stamps(frames: list[FrameEvent]) -> list[int]:
    return [each.t_ns for each in frames]


def test_the_newest_frame_takes_the_place_of_the_one_before_which_is_counted() -> None:
    counts = CameraCounts()
    waiting = Waiting(counts)
    assert [waiting.put(frame(t)) for t in (1, 2, 3)] == [True, True, True]
    assert stamps(waiting.take()) == [3]
    assert counts.stale == 2
    assert waiting.take() == []
    assert waiting.put(frame(4))
    assert stamps(waiting.take()) == [4]
    assert counts.stale == 2


def test_frames_are_gathered_in_silence_until_there_are_as_many_as_may_wait() -> None:
    counts = CameraCounts()
    waiting = Waiting(counts)
    waiting.gather_until_ns, waiting.most = 100, 7
    assert [waiting.put(frame(t)) for t in range(7)] == [False] * 6 + [True]
    assert waiting.put(frame(7)), "somebody was told and has not come"
    assert stamps(waiting.take()) == [*range(6), 7]
    assert counts.stale == 1
    assert not waiting.put(frame(50)), "the next ones are gathered, too"


def test_a_frame_that_is_due_is_told_of_at_once_and_those_before_it_are_kept() -> None:
    counts = CameraCounts()
    waiting = Waiting(counts)
    waiting.gather_until_ns, waiting.most = 100, 7
    assert not waiting.put(frame(99))
    assert waiting.put(frame(100))
    assert stamps(waiting.take()) == [99, 100]
    assert counts.stale == 0


def test_frames_that_come_after_somebody_was_told_wait_too_while_there_is_room() -> None:
    counts = CameraCounts()
    waiting = Waiting(counts)
    waiting.gather_until_ns, waiting.most = 100, 4
    assert [waiting.put(frame(t)) for t in (98, 100, 133, 166, 200)] == [False, True, True, True, True]
    assert stamps(waiting.take()) == [98, 100, 133, 200]
    assert counts.stale == 1
    waiting.most = 1
    assert [waiting.put(frame(t)) for t in (233, 266)] == [True, True]
    assert stamps(waiting.take()) == [266]


def test_there_is_a_frame_at_every_step_of_replacing_it() -> None:
    waiting = Waiting(CameraCounts())
    waiting.put(frame(0))
    seen: list[int] = []

    def look(at: FrameType, event: str, _: object) -> Callable[..., object]:
        at.f_trace_opcodes = True
        if event == "opcode":
            seen.append(len(waiting.frames))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        waiting.put(frame(1))
    finally:
        sys.settrace(before)
    assert len(seen) > 10
    assert set(seen) == {1}
    assert stamps(waiting.take()) == [1]


def test_what_waits_already_is_enough_or_waits_on() -> None:
    waiting = Waiting(CameraCounts())
    assert not waiting.enough()
    waiting.most = 4
    waiting.put(frame(98))
    assert waiting.enough(), "nobody wants it to wait"
    waiting.gather_until_ns = 100
    assert not waiting.enough()
    waiting.put(frame(99))
    waiting.most = 2
    assert waiting.enough()


def test_no_more_frames_are_gathered_than_there_is_memory_for() -> None:
    counts = CameraCounts()
    waiting = Waiting(counts)
    waiting.gather_until_ns, waiting.most = 100, 7
    third = np.zeros(MOST_BYTES // 3, np.uint8)
    for _ in range(2):
        assert [waiting.put(FrameEvent(t, third, "bgr")) for t in range(3)] == [False, False, True]
        assert stamps(waiting.take()) == [0, 1, 2]
        assert waiting.put(FrameEvent(3, np.zeros(MOST_BYTES + 1, np.uint8), "bgr")), "there is room for one always"
        assert stamps(waiting.take()) == [3]
    assert counts.stale == 0


class Stepped:
    """A reader of as many frames as are `left`, with stamps 0, 1, 2, ..., each given when `ready` says so."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.granted = {"width": 2, "height": 2, "rate_hz": 30.0, "fourcc": None}
        self.damaged = self.skipped = self.left = 0
        self._ready, self._count = ready, count()

    def read(self) -> FrameEvent | None:
        if not self.left or not self._ready():
            time.sleep(0.001)
            return None
        self.left -= 1
        return frame(next(self._count))

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def soon(call: Callable[[], bool]) -> bool:
    """What `call` gives, which must not take half a minute."""
    given: list[bool] = []
    thread = threading.Thread(target=lambda: given.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert given, "it does not come back"
    return given[0]


def test_a_wait_for_a_live_camera_ends_with_the_frames_that_were_gathered_or_with_its_time() -> None:
    reader = Stepped(lambda: camera._waiting.gather_until_ns > 0)
    camera = LiveCamera(CameraUri("memory", "v4l2", "memory"), MonotonicClock(), lambda: reader, CALM)
    camera.start()
    for left, timeout_s, gather_until_ns, expected in ((5, 3600.0, 100, [0, 1, 2, 3, 4]), (2, 3600.0, 6, [5, 6]), (1, 0.5, 100, [7])):
        reader.left = left
        assert soon(partial(camera.wait, timeout_s, gather_until_ns, 5))
        assert stamps(camera.take()) == expected
    assert not camera.wait(0.0, 100)
    camera.close()
    assert camera.counts.stale == 0


def test_frames_that_all_have_to_be_taken_are_not_gathered() -> None:
    reader = Stepped(lambda: True)
    camera = LiveCamera(CameraUri("memory", "file", "memory"), MonotonicClock(), lambda: reader, CALM, keep_all=True)
    camera.start()
    reader.left = 5
    for t_ns in range(5):
        assert soon(partial(camera.wait, 3600.0, 100, 5))
        assert stamps(camera.take()) == [t_ns]
    camera.close()


class Slow(Waiting):
    """Takes long to take, so that other threads run meanwhile."""

    def take(self) -> list[FrameEvent]:
        time.sleep(0.002)
        return super().take()


def test_a_camera_that_waits_until_a_frame_is_taken_hears_of_it_when_it_was() -> None:
    reader = Stepped(lambda: True)
    camera = LiveCamera(CameraUri("memory", "file", "memory"), MonotonicClock(), lambda: reader, CALM, keep_all=True)
    camera._waiting = Slow(camera.counts)
    camera.start()
    reader.left = 20
    for t_ns in range(20):
        assert soon(partial(camera.wait, 3600.0))
        assert stamps(camera.take()) == [t_ns]
    camera.close()


def test_a_nudge_that_was_hushed_ends_no_wait_and_a_frame_still_does() -> None:
    reader = Stepped(lambda: True)
    camera = LiveCamera(CameraUri("memory", "v4l2", "memory"), MonotonicClock(), lambda: reader, CALM)
    camera.start()
    camera.nudge()
    camera.hush()
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(camera.wait(3600.0)), daemon=True)
    thread.start()
    thread.join(0.2)
    assert not ended
    reader.left = 1
    thread.join(60)
    assert ended == [True]
    camera.hush()
    assert soon(partial(camera.wait, 3600.0)), "it was not taken"
    camera.close()


def test_a_nudge_ends_the_wait_that_is_under_way_or_the_next_one() -> None:
    camera = LiveCamera(CameraUri("memory", "v4l2", "memory"), MonotonicClock(), lambda: Stepped(lambda: False))
    camera.start()
    camera.nudge()
    assert not soon(partial(camera.wait, 3600.0))

    def nudge() -> None:
        while not camera._waiting.gather_until_ns:
            time.sleep(0.001)
        camera.nudge()

    thread = threading.Thread(target=nudge, daemon=True)
    thread.start()
    assert not soon(partial(camera.wait, 3600.0, 100, 5))
    thread.join(60)
    camera.close()
