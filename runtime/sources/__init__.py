"""Where frames and sound come from: iterators of events in the order of their stamps, whatever the device or file behind them.

A source is iterated once and closed. Stamps are int64 nanoseconds on one clock for both streams; an event at `t_ns` says that neither stream has
anything older to come. Sound is float32 mono at `SAMPLE_RATE_HZ`; a chunk's stamp is that of its first sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..notice import Notice


class FrameEvent(NamedTuple):
    """One picture. `pixels` is uint8 in `format`: "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W], "yuyv" [H, W, 2]."""

    t_ns: int
    pixels: NDArray[np.uint8]
    format: str


class AudioEvent(NamedTuple):
    """Sound that starts at `t_ns`: `samples` is float32 [n] mono, nominally in [-1, 1]."""

    t_ns: int
    samples: NDArray[np.float32]


Event = FrameEvent | AudioEvent


@dataclass
class SourceDrops:
    """What a source could not deliver: damaged or unusable pieces of each stream, counted."""

    frames: int = 0
    audio: int = 0


class Source(Protocol):
    """What the live loop needs of a source."""

    drops: SourceDrops
    has_sound: bool
    """False: no sound will come, so frames alone say how far the time has come."""
    notes: list[str]
    """What a person should be told about this source, a line each; it may grow while the source is iterated."""

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None: ...


STATES = ("opening", "live", "stalled", "gone")
"""Of a live camera or microphone. stalled: open, but nothing new comes; gone: closed, and tried again with back-off."""


@dataclass
class CameraCounts:
    """Since the start: frames that came; those that nobody got (replaced by a newer one, left out to catch up, or the same picture of a camera
    that froze); those that could not be decoded; and how often the camera was opened again."""

    frames: int = 0
    stale: int = 0
    damaged: int = 0
    reopened: int = 0


@dataclass
class MicrophoneCounts:
    """Since the start: samples of the device, breaks in them (overruns, gaps), and how often the microphone was opened again."""

    samples: int = 0
    overruns: int = 0
    reopened: int = 0


class Camera(Protocol):
    """A live camera. It captures in a thread of its own and keeps the newest frame only, or a few where it is told that they may wait. Stamps
    are CLOCK_MONOTONIC at arrival, or better."""

    uri: str
    asked: dict[str, Any]
    """width, height, rate_hz, fourcc: what the URI says, None where it says nothing."""
    granted: dict[str, Any] | None
    """The same keys, as the device has them; None until it is open."""
    state: str
    counts: CameraCounts

    @property
    def ended(self) -> bool:
        """A file that stands in for a camera is over: nothing more will come."""

    def start(self) -> None:
        """Open it and begin. Raises SourceError for what can never work: an unknown or busy device, a URI with a typo."""

    def wait(self, timeout_s: float, gather_until_ns: int = 0, most: int = 1) -> bool:
        """Until there is a frame that was not taken; of frames with stamps before `gather_until_ns`, until there are `most`, or as many as
        `waiting.MOST_BYTES` hold. Whether there is any, also when the time is over. As many are kept until the next `wait`, too."""

    def nudge(self) -> None:
        """End the wait that is under way, or the next one: there is something else to do. From any thread."""

    def hush(self) -> None:
        """It is done: what was nudged before ends no wait any more."""

    def take(self) -> list[FrameEvent]:
        """What was not taken, oldest first: the newest frame, and those that were let wait. Pixels are never written to again."""

    def notices(self) -> list[Notice]:
        """What has changed since the last call."""

    def close(self) -> None:
        """Stop and release it; again does nothing."""


class Microphone(Protocol):
    """A live microphone, recorded by libsage without Python."""

    uri: str
    asked: dict[str, Any]
    """rate_hz, channels; None where nothing was asked."""
    granted: dict[str, Any] | None
    """device, rate_hz, channels."""
    state: str
    counts: MicrophoneCounts
    drift_ppm: float | None
    """How much faster its clock runs than this machine's; None until it is known."""

    def start(self) -> None:
        """Open it and begin. Raises SourceError as `Camera.start` does."""

    def read(self) -> list[AudioEvent]:
        """All new sound at `SAMPLE_RATE_HZ` on this machine's clock: drift is taken out, so chunks that follow each other touch, and a gap in the
        stamps is a gap in the sound."""

    def notices(self) -> list[Notice]:
        """What has changed since the last call."""

    def close(self) -> None:
        """Stop and release it; again does nothing."""
