"""What runs under the pretend V4L2 driver: OpenCV's real V4L2 code and ours against its cameras. `python camera_checks.py DIR` prints a JSON object,
check -> "" or its traceback."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from cameras import jpeg, number_of, numbered, opened, take, until

from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources.v4l2_devices import Mode, VideoDevice, video_devices

CAMERA_BYTES = 4 << 20
PICTURES = 32


class Dev:
    """The folder of the pretend driver, with one camera."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.camera = folder, folder / "video0"
        for i in range(PICTURES):
            for width, height in ((160, 120), (320, 240)):
                (folder / f"MJPG-{width}-{i}").write_bytes(jpeg(numbered(i, width, height)))
            luma = cv2.cvtColor(numbered(i), cv2.COLOR_BGR2GRAY)
            (folder / f"YUYV-160-{i}").write_bytes(np.stack([luma, np.full_like(luma, 128)], 2).tobytes())
            (folder / f"NV12-160-{i}").write_bytes(luma.tobytes() + bytes([128]) * (160 * 60))

    def reset(self) -> None:
        self.says("")
        self.plug_in()

    def says(self, words: str) -> None:
        (self.folder / "state").write_text(words)

    def plug_in(self) -> None:
        self.camera.write_bytes(bytes(CAMERA_BYTES))

    def uri(self, options: str = "") -> str:
        return f"v4l2://{self.camera}{options and '?'}{options}"


def refusal(uri: str) -> str:
    """The one line with which a camera is refused."""
    try:
        with opened(uri):
            raise AssertionError(f"{uri} was opened")
    except SourceError as error:
        text = str(error)
    assert "\n" not in text
    return text


def check_devices_are_listed_with_their_modes(dev: Dev) -> None:
    mjpg = [Mode("MJPG", width, height, (50.0, 25.0)) for width, height in ((160, 120), (320, 240))]
    raw = [Mode(fourcc, 160, 120, (10.0,)) for fourcc in ("YUYV", "NV12")]
    (dev.folder / "video").touch()
    by_id = dev.folder / "v4l" / "by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-Pretend-index0").symlink_to(dev.camera)
    expected = VideoDevice(f"v4l2://{by_id}/usb-Pretend-index0", str(dev.camera), "Pretend Camera", "fakev4l2", (*mjpg, *raw), None)
    assert video_devices(dev.folder) == [expected], video_devices(dev.folder)
    with opened(expected.uri) as camera:
        take(camera, 1)


def check_mjpg_is_asked_first_and_what_is_granted_is_read_back(dev: Dev) -> None:
    with opened(dev.uri("width=320&height=240&fps=50")) as camera:
        frames = take(camera, 4)
        assert camera.granted == {"width": 320, "height": 240, "rate_hz": 50.0, "fourcc": "MJPG"}
        assert camera.asked == {"width": 320, "height": 240, "rate_hz": 50.0, "fourcc": None}
        assert {(frame.format, frame.pixels.shape) for frame in frames} == {("bgr", (240, 320, 3))}


def check_raw_formats_are_handed_on_as_they_are(dev: Dev) -> None:
    for fourcc, shape in (("YUYV", (120, 160, 2)), ("NV12", (180, 160))):
        with opened(dev.uri(f"fourcc={fourcc}")) as camera:
            frames = take(camera, 3)
            assert {(frame.format, frame.pixels.shape) for frame in frames} == {(fourcc.lower(), shape)}
            numbers = [number_of(frame) for frame in frames]
            assert [after - before for before, after in itertools.pairwise(numbers)] == [1, 1], numbers
            luma = frames[0].pixels[..., 0] if fourcc == "YUYV" else frames[0].pixels[:120]
            assert np.array_equal(luma, cv2.cvtColor(numbered(numbers[0]), cv2.COLOR_BGR2GRAY)), "bit for bit"


def check_stamps_are_those_of_the_driver(dev: Dev) -> None:
    with opened(dev.uri("fps=25")) as camera:
        steps_ms = np.diff([frame.t_ns for frame in take(camera, 5)]) / 1e6
        assert np.allclose(steps_ms % 40, 0, atol=0.01) | np.allclose(steps_ms % 40, 40, atol=0.01), steps_ms


def check_what_is_asked_and_refused_is_one_line(dev: Dev) -> None:
    assert "does not give 120 frames/s as MJPG 320 x 240 (it grants 50)" in refusal(dev.uri("fps=120&width=320&height=240"))
    assert "does not give 640 x 480 (it grants 320 x 240)" in refusal(dev.uri("width=640&height=480"))
    assert "does not give H264 (it grants YUYV)" in refusal(dev.uri("fourcc=H264"))


def check_an_unknown_device_lists_what_there_is(dev: Dev) -> None:
    assert "/dev/video77 does not exist; there is no video device here" in refusal("camera:77")


def check_a_busy_device_names_who_has_it(dev: Dev) -> None:
    dev.says("busy")
    with open(dev.camera) as stream, subprocess.Popen(["sleep", "60"], stdin=stream) as holder:
        said = refusal(dev.uri())
        (listed,) = video_devices(dev.folder)
        holder.kill()
    assert f"it is in use by sleep (pid {holder.pid}); close that" in said, said
    assert listed.problem is not None
    assert f"sleep (pid {holder.pid})" in listed.problem


def check_a_metadata_node_is_no_camera(dev: Dev) -> None:
    dev.says("metadata")
    assert video_devices(dev.folder) == []
    assert "gives no pictures" in refusal(dev.uri())


def check_a_camera_that_is_pulled_out_and_put_back_is_opened_again(dev: Dev) -> None:
    with opened(dev.uri()) as camera:
        take(camera, 2)
        dev.camera.unlink()
        assert until(lambda: camera.state == "gone"), camera.state
        camera.take()
        dev.plug_in()
        take(camera, 2)
        assert camera.counts.reopened == 1
        gone = [notice.detail for notice in camera.notices() if notice.what == "camera_gone"]
        assert "was unplugged" in gone[0], gone


def check_a_driver_that_gives_nothing_hangs_nobody(dev: Dev) -> None:
    with opened(dev.uri()) as camera:
        take(camera, 2)
        dev.says("silent")
        assert until(lambda: camera.state == "stalled"), camera.state
        dev.says("")
        assert until(lambda: camera.counts.reopened == 1)
        dev.says("silent")
        camera.close()
        dev.says("")


def check_broken_frames_are_counted(dev: Dev) -> None:
    with opened(dev.uri()) as camera:
        take(camera, 2)
        dev.says("broken")
        assert until(lambda: camera.counts.damaged >= 3)
        assert camera.state == "live"
        dev.says("")
        camera.take()
        take(camera, 2)


def checks() -> list[str]:
    return [name for name, check in globals().items() if name.startswith("check_") and inspect.isfunction(check)]


if __name__ == "__main__":
    dev, results = Dev(Path(sys.argv[1])), {}
    for name in checks():
        dev.reset()
        try:
            globals()[name](dev)
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
    print(json.dumps(results), flush=True)
    os._exit(0)  # a thread that the driver holds need not be waited for
