"""A video file in the place of a camera: at its own speed the newest frame only, with `?pace=0` every frame, and then it has ended for good."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from cameras import until
from make_video import write_video

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources.camera import LiveCamera, open_camera

FRAMES = 24


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "ramp.mp4", stamps_s=[i / 60 for i in range(FRAMES)])


def drain(camera: LiveCamera) -> list[tuple[int, float]]:
    """(stamp, brightness) of every frame that is handed out until the end."""
    frames = []
    while not camera.ended:
        camera.wait(5.0)
        frames += [(frame.t_ns, float(frame.pixels[:120].mean())) for frame in camera.take()]
    return frames


def test_without_pace_every_frame_comes_at_its_presentation_time(video: Path) -> None:
    camera = open_camera(f"{video}?pace=0", MonotonicClock())
    camera.start()
    frames = drain(camera)
    camera.close()
    assert len(frames) == FRAMES
    assert camera.counts.stale == 0
    stamps = np.array([t_ns for t_ns, _ in frames])
    assert np.abs(stamps - stamps[0] - np.arange(FRAMES) * 1e9 / 60).max() < 20_000
    assert (np.diff([light for _, light in frames]) >= 0).all()


@pytest.mark.parametrize("ends", [True, False])
def test_a_wait_is_over_with_the_end_of_the_file_and_with_close(tmp_path: Path, ends: bool) -> None:
    stamps_s = [0.0, 0.02, 0.04, *([] if ends else [600.0])]
    camera = open_camera(str(write_video(tmp_path / "short.mp4", stamps_s=stamps_s)), MonotonicClock())
    camera.start()

    def look() -> None:
        while camera.wait(600.0):
            camera.take()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    assert until(lambda: camera.counts.frames == 3 and not camera._waiting.frames)
    if not ends:
        camera.close()
    thread.join(20.0)
    assert not thread.is_alive()
    camera.close()


def test_with_pace_no_frame_comes_before_its_time_and_each_is_taken_or_stale(video: Path) -> None:
    clock = MonotonicClock()
    camera = open_camera(str(video), clock)
    camera.start()
    frames = []
    while not camera.ended:
        camera.wait(5.0)
        for frame in camera.take():
            assert frame.t_ns <= clock.now_ns()
            frames.append(frame)
    assert len(frames) + camera.counts.stale == camera.counts.frames == FRAMES
    assert frames[-1].t_ns - frames[0].t_ns <= (FRAMES - 1) / 60 * 1e9 + 20_000
    camera.close()


def test_the_end_is_said_once_and_for_ever(video: Path) -> None:
    camera = open_camera(f"{video}?pace=0", MonotonicClock())
    camera.start()
    assert not camera.ended
    drain(camera)
    assert camera.state == "gone"
    assert [notice.what for notice in camera.notices()] == ["camera_open", "camera_gone"]
    assert not camera.wait(0.0)
    assert camera.counts.reopened == 0
    camera.close()


def test_closing_a_file_that_nobody_reads_ends_its_threads(video: Path) -> None:
    camera = open_camera(f"{video}?pace=0", MonotonicClock())
    camera.start()
    assert until(lambda: camera.counts.frames >= 2), "the second frame waits for the first to be taken"
    camera.close()
    assert camera._keeper is not None
    assert until(lambda: not camera._keeper.is_alive())


def test_a_file_that_is_no_video_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_camera(str(tmp_path / "no.mp4"), MonotonicClock()).start()
