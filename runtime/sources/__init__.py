"""Where frames and sound come from: iterators of events in the order of their stamps, whatever the device or file behind them.

A source is iterated once and closed. Stamps are int64 nanoseconds on one clock for both streams; an event at `t_ns` says that neither stream has
anything older to come. Sound is float32 mono at `SAMPLE_RATE_HZ`; a chunk's stamp is that of its first sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameEvent:
    """One picture. `pixels` is uint8 in `format`: "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W], "yuyv" [H, W, 2]."""

    t_ns: int
    pixels: NDArray[np.uint8]
    format: str


@dataclass(frozen=True)
class AudioEvent:
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
