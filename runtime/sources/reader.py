"""What stands between a camera's capture thread and a device: a reader is one opening of it, made, used and closed in one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import SourceError
from . import FrameEvent


class Unreachable(SourceError):
    """A camera that is not there now and may be later: it is tried again, also when it was never open."""


class Ended(SourceError):
    """A file that is over: nothing more will ever come."""


class Reader(Protocol):
    """One opening. Making it opens the device, or raises SourceError."""

    granted: dict[str, Any]
    """width, height, rate_hz, fourcc as the device has them; None where that is not known."""

    @property
    def damaged(self) -> int:
        """Frames so far that could not be decoded."""

    @property
    def skipped(self) -> int:
        """Frames so far that were not decoded because newer ones were waiting."""

    def read(self) -> FrameEvent | None:
        """The next frame, its pixels never written again; None when there was none for a moment. Raises Unreachable, Ended."""

    def interrupt(self) -> None:
        """From any thread: a `read` that waits comes back soon, where that is possible."""

    def close(self) -> None:
        """Release the device; again does nothing."""


Opener = Callable[[], Reader]
