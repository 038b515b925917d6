"""A live camera against a real HTTP MJPEG server: newest frame only, every loss counted, opened again after every fault, never hanging."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from cameras import QUICK, MjpegServer, number_of, numbered, opened, take, until

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SourceError, UsageError
from sage_edge.runtime.notice import WHATS, Notice
from sage_edge.runtime.sources import STATES, FrameEvent
from sage_edge.runtime.sources.camera import LiveCamera, _opener, open_camera
from sage_edge.runtime.sources.reader import Unreachable
from sage_edge.runtime.sources.stream import StreamReader
from sage_edge.runtime.sources.uri import CameraUri, parse_camera
from sage_edge.runtime.sources.watch import Limits


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    server = MjpegServer()
    yield server
    server.stop()


def collect(camera: LiveCamera, into: list[Notice]) -> list[str]:
    """Kinds of all notices so far, oldest first."""
    into += camera.notices()
    assert all(notice.what in WHATS and "\n" not in notice.detail for notice in into)
    return [notice.what for notice in into]


def test_frames_come_in_order_stamped_and_every_frame_is_taken_stale_or_waiting(server: MjpegServer) -> None:
    with opened(server.uri) as camera:
        frames = take(camera, 10)
        assert until(lambda: camera.counts.frames >= 40)
        frames += take(camera, 2)
        camera.close()
        counts = camera.counts
        assert counts.frames - counts.stale - len(frames) in (0, 1)  # one may have waited
        assert counts.stale >= 25
    numbers = [number_of(frame) for frame in frames]
    steps = np.diff(numbers) % 256
    assert (steps >= 1).all(), numbers
    assert steps[9] > 10, "the frames that were not taken are gone, not queued"
    assert (np.diff([frame.t_ns for frame in frames]) > 0).all()


def test_what_was_asked_and_granted_is_said(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        take(camera, 1)
        assert camera.state == "live"
        assert camera.asked == {"width": None, "height": None, "rate_hz": None, "fourcc": None}
        assert camera.granted == {"width": 160, "height": 120, "rate_hz": None, "fourcc": "MJPEG"}
        assert collect(camera, said) == ["camera_open"]
        assert "asked nothing" in said[0].detail
        assert "fourcc MJPEG" in said[0].detail


def test_pixels_handed_out_stay_as_they_are(server: MjpegServer) -> None:
    with opened(server.uri) as camera:
        first = take(camera, 1)[0]
        copy = first.pixels.copy()
        take(camera, 5)
        assert np.array_equal(first.pixels, copy)


def test_a_server_that_is_killed_and_comes_back_is_opened_again(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        take(camera, 2)
        server.stop()
        assert until(lambda: camera.state == "gone")
        camera.take()
        server.start()
        take(camera, 2)
        assert camera.state == "live"
        assert camera.counts.reopened == 1
        kinds = collect(camera, said)
        assert kinds[0] == kinds[-1] == "camera_open"
        assert "camera_gone" in kinds


def test_what_failed_is_freed_without_a_search_for_objects_that_hold_each_other(server: MjpegServer) -> None:
    with opened(server.uri) as camera:
        take(camera, 2)
        opening = weakref.ref(camera._current)
        gc.collect()
        gc.disable()
        try:
            server.stop()
            assert until(lambda: camera.state == "gone")
            server.start()
            take(camera, 2)
            assert until(lambda: opening() is None)
        finally:
            gc.enable()


def test_a_server_that_is_down_at_first_is_waited_for() -> None:
    server = MjpegServer()
    server.stop()
    with opened(server.uri) as camera:
        assert camera.state == "gone"
        assert not camera.wait(0.01)
        server.start()
        take(camera, 1)
        assert camera.counts.reopened == 0
    server.stop()


@pytest.mark.parametrize("mode", ["silent", "frozen"])
def test_no_new_picture_is_a_stall_and_is_opened_again(server: MjpegServer, mode: str) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        take(camera, 2)
        server.mode = mode
        assert until(lambda: camera.state == "stalled")
        server.mode = "live"
        assert until(lambda: camera.state == "live")
        take(camera, 2)
        assert camera.counts.reopened >= 1
        assert collect(camera, said) == ["camera_open", *["camera_stalled", "camera_open"] * camera.counts.reopened]


def test_a_frozen_camera_stays_stalled_and_says_so_once(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        take(camera, 2)
        server.mode = "frozen"
        assert until(lambda: camera.state == "stalled")
        frames = camera.counts.frames
        opening = camera._current
        assert until(lambda: camera.counts.frames > frames + 20 and camera._current is not opening), "it was opened again"
        assert camera.state == "stalled"
        assert collect(camera, said) == ["camera_open", "camera_stalled"]
        assert camera.counts.reopened == 0
        assert camera.counts.stale >= 20, "what it repeats is counted and not handed out"


def test_black_pictures_are_said_and_kept(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        take(camera, 2)
        server.mode = "black"
        assert until(lambda: "camera_changed" in collect(camera, said))
        assert camera.counts.reopened == 0
        assert camera.state == "live"
        take(camera, 2)
        server.mode = "live"
        assert until(lambda: collect(camera, said).count("camera_changed") == 2)
        assert [notice.what for notice in said] == ["camera_open", "camera_changed", "camera_changed"]


def test_a_camera_that_changes_its_size_goes_on(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(server.uri) as camera:
        assert take(camera, 2)[-1].pixels.shape == (120, 160, 3)
        server.size = (320, 240)
        assert until(lambda: camera.wait(1.0) and (frames := camera.take()) and frames[-1].pixels.shape == (240, 320, 3))
        assert collect(camera, said) == ["camera_open", "camera_changed"]
        assert "320 x 240 now, were 160 x 120" in said[1].detail


@pytest.mark.parametrize(
    ("path", "words"),
    [("/nowhere", "404"), ("/page", "not with a video"), ("/one.jpg", "single picture"), ("/secret", "USER:PASSWORD@HOST")],
)
def test_what_can_never_work_is_one_line(server: MjpegServer, path: str, words: str) -> None:
    camera = open_camera(f"http://127.0.0.1:{server.port}{path}", MonotonicClock())
    with pytest.raises(SourceError, match=words) as caught:
        camera.start()
    assert "\n" not in str(caught.value)
    assert until(lambda: not [thread for thread in threading.enumerate() if thread.name in ("camera", "capture")])


def test_a_host_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(SourceError, match=r"there is no host 'camera\.invalid'"):
        open_camera("rtsp://camera.invalid/x", MonotonicClock()).start()


def test_a_password_opens_the_camera_and_is_shown_nowhere(server: MjpegServer) -> None:
    said: list[Notice] = []
    with opened(f"http://eve:hunter2@127.0.0.1:{server.port}/secret?token=swordfish") as camera:
        take(camera, 1)
        server.stop()
        assert until(lambda: "camera_gone" in collect(camera, said))
        text = f"{camera.uri} {camera.asked} {camera.granted} {said}"
        assert "hunter2" not in text
        assert "swordfish" not in text
        assert "/secret?token=***" in camera.uri


class Scripted(MonotonicClock):
    """Every other call comes `waits_ns[i]` after the one before: what a reader takes for the wait for packet i."""

    def __init__(self, waits_ns: list[int]) -> None:
        self._steps_ns = iter([step for wait_ns in waits_ns for step in (30_000_000, wait_ns)])
        self._now_ns = 0

    def now_ns(self) -> int:
        self._now_ns += next(self._steps_ns)
        return self._now_ns


def test_a_stream_that_is_faster_than_decoding_is_caught_up_with_and_never_left_without_a_picture(server: MjpegServer) -> None:
    uri, waited, at_once = parse_camera(server.uri), 30_000_000, 1_000
    server.rate_hz = 1000.0
    assert uri is not None
    waits = [waited] * 5 + [at_once] * 40 + [waited] + [at_once] * 230
    reader = StreamReader(uri, Scripted(waits))
    numbers = []
    while reader.skipped < 40 - 15 + 200:
        frame = reader.read()
        assert frame is not None
        numbers.append(number_of(frame))
    reader.close()
    steps = [(after - before) % 256 for before, after in itertools.pairwise(numbers)]
    assert steps == [1] * (5 + 15 - 1) + [40 - 15 + 1] + [1] * 15 + [201], steps


def test_a_process_that_stood_still_does_not_blame_the_camera(server: MjpegServer) -> None:
    class Suspended(MonotonicClock):
        ahead_ns = 0

        def now_ns(self) -> int:
            return super().now_ns() + self.ahead_ns

    uri, clock = parse_camera(server.uri), Suspended()
    assert uri is not None
    camera = LiveCamera(uri, clock, _opener(uri, clock), QUICK)
    camera.start()
    take(camera, 2)
    for _ in range(5):
        clock.ahead_ns += 60_000_000_000
        take(camera, 2)
    camera.close()
    assert [notice.what for notice in camera.notices()] == ["camera_open"]


class Slow:
    """A reader that says it gives a picture a second, and gives one when it is told to."""

    def __init__(self) -> None:
        self.granted = {"width": 160, "height": 120, "rate_hz": 1.0, "fourcc": None}
        self.damaged = self.skipped = 0
        self.given = 0
        self.due = threading.Semaphore(0)

    def read(self) -> FrameEvent | None:
        if not self.due.acquire(timeout=0.01):
            return None
        self.given += 1
        return FrameEvent(0, numbered(self.given), "bgr")

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class Keeping(MonotonicClock):
    """The time as it is told; how often the keeper of a camera has asked for it."""

    t_ns, asked = 1_000_000_000, 0

    def now_ns(self) -> int:
        self.asked += threading.current_thread().name == "camera"
        return self.t_ns


def test_a_slow_camera_gets_its_time_after_the_process_stood_still() -> None:
    clock, made = Keeping(), list[Slow]()

    def opener() -> Slow:
        made.append(Slow())
        return made[-1]

    def looked_at() -> bool:
        before = clock.asked
        return until(lambda: clock.asked >= before + 2)

    camera = LiveCamera(CameraUri("v4l2:///dev/video9", "v4l2", "/dev/video9"), clock, opener, Limits(stall_s=0.04))
    camera.start()
    try:
        for _ in range(3):
            made[0].due.release()
            take(camera, 1)
            clock.t_ns += 600_000_000_000
            assert looked_at()
            assert looked_at()
    finally:
        camera.close()
    assert [notice.what for notice in camera.notices()] == ["camera_open"]


class Broken:
    """A reader with a mistake in it, whose error quotes the address as libraries do."""

    def __init__(self) -> None:
        raise ValueError("cannot\nuse 'http://eve:hunter2@host/'")


def test_a_mistake_in_a_reader_is_one_line_without_the_password() -> None:
    camera = LiveCamera(CameraUri("http://***@host/", "stream", "http://eve:hunter2@host/"), MonotonicClock(), Broken, QUICK)
    with pytest.raises(SourceError, match=r"failed \(ValueError: cannot use") as caught:
        camera.start()
    assert "hunter2" not in str(caught.value)


class Stuck:
    """A reader whose read does not come back before it is let go, as with some drivers."""

    def __init__(self, let_go: threading.Event) -> None:
        self.granted = {"width": 160, "height": 120, "rate_hz": 30.0, "fourcc": None}
        self.damaged = self.skipped = 0
        self._let_go, self._given, self.hangs = let_go, False, False

    def read(self) -> FrameEvent | None:
        if not self._given:
            self._given = True
            return FrameEvent(MonotonicClock().now_ns(), numbered(1), "bgr")
        self.hangs = True
        self._let_go.wait()
        return None

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def test_a_read_that_hangs_never_hangs_the_caller_nor_grows_without_end() -> None:
    let_go, made = threading.Event(), []

    def opener() -> Stuck:
        made.append(Stuck(let_go))
        return made[-1]

    camera = LiveCamera(CameraUri("v4l2:///dev/video9", "v4l2", "/dev/video9"), MonotonicClock(), opener, QUICK)
    camera.start()
    assert until(lambda: camera.state == "stalled")
    assert until(lambda: len(made) == 2 and made[1].hangs), "it is opened again beside the thread that hangs"
    camera.close()
    hung = [thread for thread in threading.enumerate() if thread.name == "capture"]
    assert len(hung) == len(made), "close came back although they still hang"
    let_go.set()
    assert until(lambda: not any(thread.is_alive() for thread in hung))


class Breaks(Stuck):
    """A reader that gives one picture and is gone; to let it go is a mistake, too, where `sticks`."""

    def __init__(self, sticks: bool) -> None:
        super().__init__(threading.Event())
        self._sticks = sticks

    def read(self) -> FrameEvent | None:
        if self._given:
            raise Unreachable("it broke")
        return super().read()

    def interrupt(self) -> None:
        if self._sticks:
            raise OSError("it\nsticks")


@pytest.mark.parametrize("mistake", ["can't start new thread", "it sticks"])
def test_whatever_its_keeper_runs_into_it_is_gone_and_tried_again(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    made: list[Stuck] = []
    start = threading.Thread.start

    def start_not_the_second(thread: threading.Thread) -> None:
        if thread.name == "capture" and len(made) == 1 and not refused and mistake != "it sticks":
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    def opener() -> Stuck:
        made.append(Breaks(mistake == "it sticks") if not made else Stuck(let_go))
        return made[-1]

    let_go, refused = threading.Event(), list[threading.Thread]()
    monkeypatch.setattr(threading.Thread, "start", start_not_the_second)
    camera = LiveCamera(CameraUri("v4l2:///dev/video9", "v4l2", "/dev/video9"), MonotonicClock(), opener, QUICK)
    camera.start()
    try:
        assert until(lambda: len(made) == 2 and made[1].hangs), "it is never opened again"
        said = [notice.detail for notice in camera.notices() if notice.what == "camera_gone"]
    finally:
        camera.close()
        let_go.set()
    assert "it broke; trying again" in said
    assert [detail for detail in said if mistake in detail and detail.endswith("; trying again")], said


def test_states_are_those_of_the_protocol_and_close_may_come_twice(server: MjpegServer) -> None:
    camera = open_camera(server.uri, MonotonicClock())
    assert camera.state in STATES
    camera.start()
    with pytest.raises(UsageError, match="started before"):
        camera.start()
    camera.close()
    camera.close()
    assert camera.take() == []
    assert not camera.wait(0.0)
