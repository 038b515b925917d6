"""A frame as the face finders look at it: in brightness or in colour, only where they look, at the size they look at.

Pixels: uint8, "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W] or (Y, UV), "yuyv" [H, W, 2]; brightness of the YUV formats is their own Y plane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .native import Pixels, resize


class View:
    """One frame; `size` is its width and height. `cv2` is OpenCV, loaded by whoever looks. Raises UsageError for another format."""

    def __init__(self, cv2: Any, pixels: Pixels, format: str) -> None:
        self._cv2, self._pixels, self._format = cv2, pixels, format
        self._convert = {"rgb": cv2.COLOR_RGB2GRAY, "bgr": cv2.COLOR_BGR2GRAY}.get(format)
        if isinstance(pixels, tuple):
            self._bright = pixels[0]
        elif format == "nv12":
            self._bright = pixels[: pixels.shape[0] * 2 // 3]
        elif format == "yuyv":
            self._bright = pixels[:, :, 0]
        elif self._convert is not None:
            self._bright = pixels
        else:
            raise UsageError(f"unknown pixel format {format!r}; one of rgb, bgr, nv12, yuyv")
        self.size = (self._bright.shape[1], self._bright.shape[0])

    def gray(self, x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> NDArray[np.uint8]:
        """The rectangle as uint8 [height, width], area-averaged; the nearest edge pixel continues outside the frame."""
        cv2 = self._cv2
        w, h = self.size
        cx0, cy0, cx1, cy1 = min(max(x0, 0), w - 1), min(max(y0, 0), h - 1), max(min(x1, w), 1), max(min(y1, h), 1)
        part = np.ascontiguousarray(self._bright[cy0:cy1, cx0:cx1])
        if self._convert is not None:
            part = cv2.cvtColor(part, self._convert)
        if (cx0, cy0, cx1, cy1) != (x0, y0, x1, y1):
            part = cv2.copyMakeBorder(part, cy0 - y0, y1 - cy1, cx0 - x0, x1 - cx1, cv2.BORDER_REPLICATE)
        small: NDArray[np.uint8] = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        return small

    def bgr(self, x: float, y: float, side: float, size: int) -> NDArray[np.uint8]:
        """A square as uint8 BGR [size, size, 3], area-averaged; the nearest edge pixel continues outside the frame."""
        return np.ascontiguousarray(resize(self._pixels, (x, y, side, side), size, self._format)[..., ::-1])
