"""A video file in the place of a camera: its pictures at their own speed, or as fast as they are taken (`?pace=0`). Its sound is left out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..ticks import NS_PER_S
from . import FrameEvent
from .reader import Ended
from .video import VideoFile

if TYPE_CHECKING:
    from ..clock import Clock
    from .uri import CameraUri

_NAP_S = 0.25


class FileReader:
    """Stamps are the moment of the first read plus the presentation time."""

    def __init__(self, uri: CameraUri, clock: Clock) -> None:
        self.skipped = 0
        self._video = VideoFile(uri.target)
        self._pictures = self._video.pictures()
        self._clock, self._pace = clock, uri.pace
        self._start_ns: int | None = None
        self._next: FrameEvent | None = None
        self._interrupted = threading.Event()
        self.granted: dict[str, Any] = {
            "width": self._video.width,
            "height": self._video.height,
            "rate_hz": self._video.rate_hz,
            "fourcc": None,
        }

    @property
    def damaged(self) -> int:
        """See `Reader`."""
        return self._video.drops.frames

    def read(self) -> FrameEvent | None:
        """See `Reader`."""
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns()
        event = self._next or next(self._pictures, None)
        if event is None:
            raise Ended(f"{self._video.path} has ended")
        self._next = event
        due_ns = self._start_ns + event.t_ns
        if self._pace:
            ahead_s = (due_ns - self._clock.now_ns()) / NS_PER_S
            if ahead_s > 0 and self._interrupted.wait(min(ahead_s, _NAP_S)):
                return None
            if ahead_s > _NAP_S:
                return None
        self._next = None
        return FrameEvent(due_ns, event.pixels, event.format)

    def interrupt(self) -> None:
        """See `Reader`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Reader`."""
        self._video.close()
