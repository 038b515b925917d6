"""The pipe of a CSI camera with GStreamer's test picture in the place of the sensor: a real gst-launch-1.0, killed, stopped and missing parts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cameras import GST_APT, QUICK, take, until

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources import gstreamer
from sage_edge.runtime.sources.camera import LiveCamera, open_camera
from sage_edge.runtime.sources.gstreamer import GStreamerReader
from sage_edge.runtime.sources.uri import CameraUri

SOURCE = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=BGRx,width=160,height=120,framerate=30/1"
CSI = CameraUri("csi://0", "csi", "0", 160, 120, 30.0)

needs_gst = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason=f"no GStreamer: {GST_APT}")


_LAUNCH = """#!{python} -SE
import os, re, signal, sys, time
def say(what):
    with open({log!r}, "a") as log: log.write(what + " ")
def down(*_):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as gst-launch does: a second one ends it in the middle
    time.sleep(0.1)
    say("down")
    os._exit(0)
signal.signal(signal.SIGINT, down)
say("up")
line = " ".join(sys.argv)
picture = b"." * (3 * int(re.search(r"BGR,width=([0-9]+)", line)[1]) * int(re.search(r"BGR,width=[0-9]+,height=([0-9]+)", line)[1]))
end_s = time.monotonic() + 60
while time.monotonic() < end_s:
    try:
        if {gives}: os.write(int(re.search("fd=([0-9]+)", line)[1]), picture)
    except OSError: pass
    time.sleep(0.02)
"""


def launch(folder: Path, monkeypatch: pytest.MonkeyPatch, gives: bool) -> Path:
    """Put a gst-launch-1.0 on the path that holds a sensor until it may take its pipeline down; what it says of that."""
    program, log = folder / "gst-launch-1.0", folder / "log"
    program.write_text(_LAUNCH.format(python=sys.executable, log=str(log), gives=gives))
    program.chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(gstreamer, "_STOP_S", 20.0)
    return log


def pipe(made: list[GStreamerReader]) -> GStreamerReader:
    made.append(GStreamerReader(SOURCE, 160, 120, 30.0, MonotonicClock(), "csi://0"))
    return made[-1]


def is_gone(reader: GStreamerReader) -> bool:
    return reader._process.poll() is not None


@needs_gst
def test_frames_are_whole_and_a_process_that_dies_or_stops_is_replaced() -> None:
    made: list[GStreamerReader] = []
    camera = LiveCamera(CSI, MonotonicClock(), lambda: pipe(made), QUICK)
    camera.start()
    try:
        frames = take(camera, 5)
        assert {(frame.format, frame.pixels.shape) for frame in frames} == {("bgr", (120, 160, 3))}
        for frame in frames:
            rows, columns = np.nonzero(frame.pixels[..., 0] > 128)
            assert 0 < np.ptp(rows) < 45, "one ball in one place: no frame begins in the middle of another"
            assert 0 < np.ptp(columns) < 45
        os.kill(made[-1]._process.pid, signal.SIGKILL)
        assert until(lambda: camera.counts.reopened == 1)
        take(camera, 2)
        os.kill(made[-1]._process.pid, signal.SIGSTOP)
        assert until(lambda: camera.counts.reopened == 2)
        take(camera, 2)
    finally:
        camera.close()
    assert [notice.what for notice in camera.notices()] == [
        *("camera_open", "camera_gone", "camera_open", "camera_stalled", "camera_open"),
    ]
    assert until(lambda: all(is_gone(reader) for reader in made)), "no process is left behind"


@needs_gst
def test_the_line_for_a_sensor_runs_once_nvidias_elements_have_stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launch, real = tmp_path / "gst-launch-1.0", shutil.which("gst-launch-1.0")
    sensor, memory = "s/nvarguscamerasrc sensor-id=2/videotestsrc is-live=true pattern=ball/", "s/(memory:NVMM)//"
    launch.write_text(f'#!/bin/sh\nexec {real} $(echo "$*" | sed -e "{sensor}" -e "{memory}" -e "s/nvvidconv/videoconvert/")\n')
    launch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    camera = open_camera("csi://2?width=320&height=180&fps=15", MonotonicClock())
    camera.start()
    try:
        assert {(frame.format, frame.pixels.shape) for frame in take(camera, 3)} == {("bgr", (180, 320, 3))}
        assert camera.granted == {"width": 320, "height": 180, "rate_hz": 15.0, "fourcc": None}
    finally:
        camera.close()


def test_a_sensor_is_let_go_before_its_process_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = launch(tmp_path, monkeypatch, gives=True)
    made: list[GStreamerReader] = []
    pipe(made).close()
    assert log.read_text() == "up down "
    pipe(made).interrupt()
    made[-1].interrupt()
    made[-1].close()
    assert log.read_text() == "up down up down "
    camera = LiveCamera(CSI, MonotonicClock(), lambda: pipe(made), QUICK)
    camera.start()
    camera.close()
    assert until(lambda: is_gone(made[-1]))
    assert log.read_text() == "up down up down up down "


_ENDS_EARLY = """
import threading
from pathlib import Path
from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.sources import gstreamer
from sage_edge.runtime.sources.camera import open_camera
gstreamer._STOP_S = 20.0
camera, log = open_camera("csi://0?width=160&height=120", MonotonicClock()), Path({log!r})
threading.Thread(target=camera.start, daemon=True).start()
while not log.read_text(): threading.Event().wait(0.01)
camera.close()
"""


def test_a_program_that_ends_while_a_sensor_gives_nothing_lets_go_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = launch(tmp_path, monkeypatch, gives=False)
    done = subprocess.run([sys.executable, "-c", _ENDS_EARLY.format(log=str(log))], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert log.read_text() == "up down "


@needs_gst
def test_a_missing_element_names_its_package() -> None:
    camera = open_camera("csi://0", MonotonicClock())
    with pytest.raises(SourceError, match=r"no element nvarguscamerasrc; sudo apt install nvidia-l4t-gstreamer") as caught:
        camera.start()
    assert "\n" not in str(caught.value)


def test_no_gstreamer_at_all_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"sudo apt install gstreamer1\.0-tools"):
        open_camera("csi://0", MonotonicClock()).start()
