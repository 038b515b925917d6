"""The newest frame of a session, until a newer one replaces it, and what may be pushed as one."""

from __future__ import annotations

from operator import index, itemgetter

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .estimate import Face
from .tracks import Seen

FORMATS = ("rgb", "bgr", "nv12", "yuyv")
_UINT8 = np.dtype(np.uint8)
Crop = tuple[int, NDArray[np.uint8], Face]
"""Where it goes in a batch, pixels, and the face in them; one without a box is all of them."""


class Frame:
    """A frame at `ns` after the epoch. `whole` is one whose faces are to be found in `pixels`; the faces of another were pushed as `crops`, by item.
    Both until a tick takes it; then `seen`, by item."""

    __slots__ = ("crops", "format", "ns", "pixels", "seen", "t_ns", "whole")

    def __init__(self, ns: int, t_ns: int, format: str, whole: bool) -> None:
        self.ns, self.t_ns, self.format, self.whole = ns, t_ns, format, whole
        self.pixels: NDArray[np.uint8] | None = None
        self.crops: list[Crop] = []
        self.seen: tuple[Seen, ...] = ()

    def item_of(self, track: int) -> int:
        """Where the face of `track` is, or will be."""
        items = {face.track: item for item, (face, _) in enumerate(self.seen)} | {face.track: item for item, _, face in self.crops}
        return items.get(track, len(items))

    def add(self, item: int, pixels: NDArray[np.uint8], face: Face) -> None:
        """Give the face of an item, in place of what was given for it before."""
        self.crops = sorted([*(crop for crop in self.crops if crop[0] != item), (item, pixels, face)], key=itemgetter(0))


def whole_track(track: object) -> int:
    """`track` as int. Raises UsageError unless it is a whole number of 63 bits."""
    try:
        number = index(track)  # type: ignore[arg-type]
    except TypeError:
        number = 1 << 63
    if abs(number) >> 63:
        raise UsageError(f"track is {track!r}, must be a whole number of less than 64 bits")
    return number


def check_pixels(pixels: object, format: str) -> None:
    """Raise UsageError unless `pixels` can be a frame of this format."""
    if format not in FORMATS:
        raise UsageError(f"pixel format {format!r} is unknown; one of {', '.join(FORMATS)}")
    if isinstance(pixels, np.ndarray) and pixels.dtype == _UINT8 and pixels.size:
        shape = pixels.shape
        if format == "nv12":
            fits = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
        elif format == "yuyv":
            fits = len(shape) == 3 and shape[2] == 2 and shape[1] % 2 == 0
        else:
            fits = len(shape) == 3 and shape[2] == 3
        if fits:
            return
    rule = {"nv12": "[H * 3 / 2, W], both sides even", "yuyv": "[H, W, 2], W even"}.get(format, "[H, W, 3]")
    raise UsageError(f"{format} pixels are {describe(pixels)}, must be uint8 {rule}")


def describe(value: object) -> str:
    """What was given, for an error."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
