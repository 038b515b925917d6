"""Decoded pictures -> the cheapest pixel format that the session reads without loss: NV12 where it is BT.601 of limited range, else RGB.

Colour matrix and range come from the stream's own tags (untagged is BT.601, as FFmpeg takes it); rotation metadata is applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BT601 = (2, 5, 6)  # AVColorSpace: unspecified, bt470bg, smpte170m
_FULL_RANGE = 2  # AVColorRange


class Pictures:
    """Turns av.VideoFrames into arrays; keeps the converter between frames."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def convert(self, frame: Any) -> tuple[NDArray[np.uint8], str]:
        """(pixels uint8, format): "nv12" [H * 3 / 2, W] or "rgb" [H, W, 3], upright."""
        turns = round(frame.rotation / 90) % 4
        planar = frame.format.name in ("yuv420p", "nv12") and frame.width % 2 == 0 and frame.height % 2 == 0
        if planar and not turns and frame.colorspace in _BT601 and frame.color_range != _FULL_RANGE:
            nv12: Any = self._reformatter.reformat(frame, format="nv12", threads=1).to_ndarray()
            return nv12, "nv12"
        rgb: Any = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=frame.colorspace if frame.colorspace != 2 else 5,
            src_color_range=_FULL_RANGE if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") else 1,
            threads=1,
        ).to_ndarray()
        return (np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb), "rgb"
