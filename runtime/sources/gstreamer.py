"""Cameras through GStreamer, in a process of its own: CSI sensors of a Jetson, which OpenCV from PyPI cannot open.

    gst-launch-1.0 -q SOURCE ! videoconvert ! video/x-raw,format=BGR,width=W,height=H ! queue (newest only) ! fdsink

Frames come through a pipe, W * H * 3 bytes each. Not its stdout: nvarguscamerasrc prints there. The CSI source itself was not run on a Jetson.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SourceError
from . import FrameEvent
from .reader import Unreachable

if TYPE_CHECKING:
    from ..clock import Clock
    from .uri import CameraUri

_WIDTH, _HEIGHT, _RATE_HZ = 1280, 720, 30.0
_FIRST_S, _NAP_S, _STOP_S = 8.0, 0.25, 1.0
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ
PACKAGES = {
    "nvarguscamerasrc": "nvidia-l4t-gstreamer",
    "nvvidconv": "nvidia-l4t-gstreamer",
    "videoconvert": "gstreamer1.0-plugins-base",
    "videotestsrc": "gstreamer1.0-plugins-base",
}
"""Element -> what apt calls the package that brings it; nvidia-* come from NVIDIA's own sources, which a Jetson has."""


def open_csi(uri: CameraUri, clock: Clock) -> GStreamerReader:
    """The CSI sensor that `uri` names, through nvargus."""
    width, height, rate_hz = uri.width or _WIDTH, uri.height or _HEIGHT, uri.rate_hz or _RATE_HZ
    rate = Fraction(rate_hz).limit_denominator(1001)
    source = (
        f"nvarguscamerasrc sensor-id={uri.target} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},format=NV12,framerate={rate.numerator}/{rate.denominator} ! "
        "nvvidconv ! video/x-raw,format=BGRx"
    )
    return GStreamerReader(source, width, height, rate_hz, clock, uri.text)


class GStreamerReader:
    """Runs `source`, a piece of a gst-launch line, until closed. Raises SourceError for what is not installed, Unreachable when no frame comes."""

    def __init__(self, source: str, width: int, height: int, rate_hz: float, clock: Clock, name: str) -> None:
        self.granted: dict[str, Any] = {"width": width, "height": height, "rate_hz": rate_hz, "fourcc": None}
        self.damaged = self.skipped = 0
        self._clock, self._name = clock, name
        self._shape = (height, width, 3)
        self._frame = np.empty(self._shape, np.uint8)
        self._filled = 0
        self._said = b""
        self._asked = threading.Lock()  # held from the first SIGINT on: a second one would end gst-launch before its pipeline is down
        self._pipe, writer = os.pipe()
        command = (
            f"gst-launch-1.0 -q {source} ! videoconvert ! video/x-raw,format=BGR,width={width},height={height} ! "
            f"queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 ! fdsink fd={writer} sync=false"
        )
        try:
            self._process = subprocess.Popen(
                command.split(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writer,),
                start_new_session=True,  # Ctrl-C is ours
            )
        except OSError as error:
            os.close(self._pipe)
            raise SourceError(f"{name}: gst-launch-1.0 cannot be run ({error.strerror}); sudo apt install gstreamer1.0-tools") from None
        finally:
            os.close(writer)
        atexit.register(self._end)  # a program that ends does not wait for a thread that waits for the first frame, or for `close`
        assert self._process.stderr is not None
        self._errors = self._process.stderr.fileno()
        os.set_blocking(self._errors, False)
        try:
            self._wait_for_first()
        except BaseException:
            self.close()
            raise

    def read(self) -> FrameEvent | None:
        """See `Reader`."""
        if self._filled < self._frame.nbytes and (not self._readable(_NAP_S) or not self._fill()):
            return None
        t_ns, pixels = self._clock.now_ns(), self._frame
        self._frame, self._filled = np.empty(self._shape, np.uint8), 0
        return FrameEvent(t_ns, pixels, "bgr")

    def interrupt(self) -> None:
        """See `Reader`. gst-launch then takes its pipeline down, and nvargus lets go of the sensor; `close` sees to it that it ends."""
        if self._asked.acquire(blocking=False):
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """See `Reader`."""
        if self._pipe < 0:
            return
        self.interrupt()
        os.close(self._pipe)
        self._pipe = -1
        self._end()
        self._process.wait()
        atexit.unregister(self._end)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _end(self) -> None:
        """Let the process end by itself, or else kill it. From any thread."""
        self.interrupt()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _wait_for_first(self) -> None:
        deadline_s = time.monotonic() + _FIRST_S
        while not self._readable(_NAP_S):
            if time.monotonic() > deadline_s:
                raise Unreachable(f"{self._name}: GStreamer gave no frame in {_FIRST_S:.0f} s{self._hint()}")
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(self._pipe, _SET_PIPE_SIZE, _PIPE_BYTES)
        self._fill()

    def _fill(self) -> bool:
        """Read what there is into the frame; whether it is whole."""
        view = self._frame.data.cast("B")
        n = os.readv(self._pipe, [view[self._filled :]])
        if n == 0:
            raise self._failure()
        self._filled += n
        return self._filled == len(view)

    def _readable(self, seconds: float) -> bool:
        """Whether the pipe has bytes, or its end; what the process says meanwhile is kept."""
        ready, _, _ = select.select([self._pipe, self._errors], [], [], seconds)
        if self._errors in ready:
            with contextlib.suppress(BlockingIOError):
                text = os.read(self._errors, 4096)
                self._said = (self._said + text)[-4096:]
                if not text and self._pipe not in ready:
                    return True  # stderr closed: the pipe ends, too
        return self._pipe in ready

    def _failure(self) -> SourceError:
        """What the process said before it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with contextlib.suppress(BlockingIOError, OSError):
            self._said += os.read(self._errors, 4096)
        missing = re.search(rb'no element "([^"]+)"', self._said)
        if missing:
            element = missing[1].decode(errors="replace")
            package = PACKAGES.get(element, "gstreamer1.0-plugins-good")
            return SourceError(f"{self._name}: GStreamer has no element {element}; sudo apt install {package}")
        return Unreachable(f"{self._name}: GStreamer ended{self._hint()}")

    def _hint(self) -> str:
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if "ERROR" in line or "WARNING" in line]
        return f" ({lines[-1]})" if lines else ""
