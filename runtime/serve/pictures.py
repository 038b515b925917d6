"""Pictures for the page, a few a second: the newest frame, made small and into a JPEG in a thread of its own.

A message is 16 bytes, little-endian (time in ns as int64, width and height of the frame as uint32), then the JPEG.
"""

from __future__ import annotations

import struct
import sys
import threading

import numpy as np
from numpy.typing import NDArray

from ..sinks.broadcast import Broadcast
from ..sources import FrameEvent
from ..ticks import NS_PER_S

PERIOD_NS = NS_PER_S // 5
WIDTH = 480
QUALITY = 70


class Pictures:
    """Sends what is offered to the readers of `broadcast`. While nobody reads, nothing is copied. A picture that cannot be made is left out; the
    first of several in a row is told to `threading.excepthook`."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._last_ns: int | None = None
        self._frame: FrameEvent | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def offer(self, frame: FrameEvent) -> bool:
        """Take a copy of `frame` if it is time for a picture, somebody reads and the last one is done; whether it was taken."""
        if self._last_ns is not None and 0 <= frame.t_ns - self._last_ns < PERIOD_NS:
            return False
        if self._broadcast.counts().readers == 0:
            return False
        with self._wake:
            if self._closed or self._frame is not None:
                return False
            self._last_ns = frame.t_ns
            self._frame = FrameEvent(frame.t_ns, frame.pixels.copy(), frame.format)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pictures of the page", daemon=True)
                self._thread.start()
            self._wake.notify()
        return True

    def close(self) -> None:
        """End the thread; again does nothing."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        failing = False
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._frame is not None)
                if self._closed:
                    return
                frame = self._frame
            try:
                if frame is not None:
                    self._broadcast.publish(encode(frame), "picture")
                failing = False
            except Exception:
                if not failing:  # each of five a second would be too many
                    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
                failing = True
            finally:
                with self._wake:
                    self._frame = None


def encode(frame: FrameEvent) -> bytes:
    """The message for one frame."""
    import cv2

    pixels = _bgr(frame)
    height, width = pixels.shape[:2]
    if width > WIDTH:
        pixels = np.asarray(cv2.resize(pixels, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA), np.uint8)
    _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return struct.pack("<qII", frame.t_ns, width, height) + jpeg.tobytes()


def _bgr(frame: FrameEvent) -> NDArray[np.uint8]:
    import cv2

    if frame.format == "bgr":
        return frame.pixels
    codes = {"rgb": cv2.COLOR_RGB2BGR, "nv12": cv2.COLOR_YUV2BGR_NV12, "yuyv": cv2.COLOR_YUV2BGR_YUYV}
    return np.asarray(cv2.cvtColor(frame.pixels, codes[frame.format]), np.uint8)
