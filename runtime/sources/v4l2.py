"""USB and other V4L2 cameras through OpenCV: MJPG is asked for first (raw formats fill a USB 2 bus at a few frames/s), what was granted is read back.

What the URI asks for and the device refuses is an error, not a quiet substitute. YUYV and NV12 are handed on as they are.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from . import FrameEvent
from .reader import Unreachable
from .v4l2_devices import gives_pictures, listing, open_descriptors, problem_of, video_devices

if TYPE_CHECKING:
    from ..clock import Clock
    from .uri import CameraUri

_NAP_MS = 250
_BUFFERS = 2  # a hint: drivers take what they need
_FAILURES = 30  # so many frames in a row that cannot be read: it is gone
_LATE_NS = 10_000_000_000  # a stamp of the driver's is believed when it is at most so old: other clocks are further away
_RATE_TOLERANCE = 0.05
_RAW = {"YUYV": "yuyv", "NV12": "nv12", "MJPG": "jpeg", "JPEG": "jpeg"}
"""Formats that OpenCV is to leave alone. It would give the picture before once more for a JPEG that it cannot decode, and not say so."""


class V4l2Reader:
    """One opening of the device `uri.target`."""

    def __init__(self, uri: CameraUri, clock: Clock) -> None:
        import cv2

        self._cv2: Any = cv2
        self._clock, self._path = clock, uri.target
        self.damaged = self.skipped = self._failures = self._stamp_ns = 0
        if not os.path.exists(uri.target):
            raise SourceError(f"{uri.target} does not exist; {listing(video_devices())}")
        if problem := problem_of(uri.target):
            raise SourceError(f"{uri.target}: {problem}")
        before = open_descriptors(uri.target)
        self._device: Any = cv2.VideoCapture(os.path.realpath(uri.target), cv2.CAP_V4L2)
        self._poll = _poll(open_descriptors(uri.target) - before)
        self._streaming = False
        try:
            if not self._device.isOpened():
                raise SourceError(f"{uri.target} gives no pictures (it may be a metadata node); {listing(video_devices())}")
            self._ask(uri)
            self.granted = self._granted()
            _compare(uri, self.granted)
        except BaseException:
            self.close()
            raise
        self._format = _RAW.get(self.granted["fourcc"] or "", "bgr")
        if self._format != "bgr":
            self._device.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def read(self) -> FrameEvent | None:
        """See `Reader`."""
        if self._poll is not None and self._streaming and not self._poll.poll(_NAP_MS):
            return None
        self._streaming = True
        try:
            ok, pixels = self._device.read()
        except self._cv2.error:
            ok, pixels = False, None
        now_ns = self._clock.now_ns()
        if not ok or pixels is None or not pixels.size:
            if not gives_pictures(self._path):
                raise Unreachable(f"{self._path} was unplugged")
            self.damaged += 1
            self._failures += 1
            if self._failures > _FAILURES:
                raise Unreachable(f"{self._path} cannot be read")
            return None
        self._failures = 0
        event = self._event(self._stamp(now_ns), pixels)
        if event is None:
            self.damaged += 1
        return event

    def interrupt(self) -> None:
        """See `Reader`: a read comes back by itself, but for the first one, which OpenCV gives ten seconds."""

    def close(self) -> None:
        """See `Reader`."""
        self._device.release()

    def _ask(self, uri: CameraUri) -> None:
        cv2, device = self._cv2, self._device
        device.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*(uri.fourcc or "MJPG")))
        if uri.width and uri.height:
            device.set(cv2.CAP_PROP_FRAME_WIDTH, uri.width)
            device.set(cv2.CAP_PROP_FRAME_HEIGHT, uri.height)
        if uri.rate_hz:
            device.set(cv2.CAP_PROP_FPS, uri.rate_hz)
        device.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)

    def _granted(self) -> dict[str, Any]:
        cv2, get = self._cv2, self._device.get
        code = int(get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        rate_hz = float(get(cv2.CAP_PROP_FPS))
        return {
            "width": int(get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "rate_hz": round(rate_hz, 3) if rate_hz > 0 else None,
            "fourcc": code.to_bytes(4, "little").decode("latin-1").strip("\0 ") or None,
        }

    def _stamp(self, now_ns: int) -> int:
        """The driver's own stamp, CLOCK_MONOTONIC in most of them, where it can be that; it never goes back."""
        t_ns = round(self._device.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
        self._stamp_ns = max(self._stamp_ns + 1, t_ns if 0 <= now_ns - t_ns < _LATE_NS else now_ns)
        return self._stamp_ns

    def _event(self, t_ns: int, pixels: NDArray[np.uint8]) -> FrameEvent | None:
        """None for what cannot be decoded, and for pixels that are not what was granted."""
        width, height = self.granted["width"], self.granted["height"]
        if self._format == "jpeg":
            picture = self._cv2.imdecode(pixels.reshape(-1), self._cv2.IMREAD_COLOR)
            return None if picture is None else FrameEvent(t_ns, picture, "bgr")
        if self._format == "bgr":
            return FrameEvent(t_ns, pixels, "bgr") if pixels.ndim == 3 and pixels.shape[2] == 3 else None
        shape = (height, width, 2) if self._format == "yuyv" else (height * 3 // 2, width)
        if pixels.size != shape[0] * width * (2 if self._format == "yuyv" else 1):
            return None
        return FrameEvent(t_ns, pixels.reshape(shape), self._format)


def _poll(descriptors: set[int]) -> select.poll | None:
    """Waits for the device that OpenCV has opened; None where that cannot be told."""
    if len(descriptors) != 1:
        return None
    waiter = select.poll()
    waiter.register(descriptors.pop(), select.POLLIN)
    return waiter


def _compare(uri: CameraUri, granted: dict[str, Any]) -> None:
    """SourceError for what was asked and is not granted."""
    size = f"{granted['width']} x {granted['height']}"
    if uri.fourcc and granted["fourcc"] != uri.fourcc:
        raise SourceError(f"{uri.target} does not give {uri.fourcc} (it grants {granted['fourcc']}); choose another fourcc, or leave it away")
    if uri.width and (uri.width, uri.height) != (granted["width"], granted["height"]):
        raise SourceError(f"{uri.target} does not give {uri.width} x {uri.height} (it grants {size}); choose another size, or leave it away")
    rate_hz = granted["rate_hz"]
    if uri.rate_hz and rate_hz and abs(rate_hz - uri.rate_hz) > _RATE_TOLERANCE * uri.rate_hz:
        what = f"{uri.rate_hz:g} frames/s as {granted['fourcc']} {size}"
        raise SourceError(f"{uri.target} does not give {what} (it grants {rate_hz:g}); choose another fps, or leave it away")
