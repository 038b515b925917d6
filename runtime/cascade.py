"""Find faces with OpenCV's frontal cascade, which comes with it: 2 ms near a known face, 10 ms in a whole frame, 25 in one full of texture."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .errors import EngineError
from .following import Square
from .view import View

_WIDTHS = (240, 320)  # longer side of the searched picture, in turns: cheap, then for smaller faces; sizes missed by one meet the other
_STEP, _FINE_WIDTH, _FINE_STEP = 1.2, 320, 1.1  # ratio of sizes looked for; both for a single picture
_FACE = 48  # side of a tracked face in the picture searched around it
_HITS = 3  # overlapping hits of the cascade that make a face


class Cascade:
    """A `following.Detector`; a score is hits / (hits + 3). Raises EngineError where OpenCV has no cascade file (it is gone from OpenCV 5)."""

    def __init__(self, cv2: Any) -> None:
        path = os.path.join(getattr(getattr(cv2, "data", None), "haarcascades", ""), "haarcascade_frontalface_alt2.xml")
        if not os.path.isfile(path):
            raise EngineError(f"OpenCV {cv2.__version__} has no face cascade; pip install 'opencv-python-headless<5'")
        self._cascade = cv2.CascadeClassifier(path)

    def search(self, view: View, turn: int) -> list[Square]:
        """The faces of the whole frame; see `following.Detector`."""
        return self._whole(view, _WIDTHS[turn % 2], _STEP)

    def study(self, view: View) -> list[Square]:
        """As `search`, for a single picture."""
        return self._whole(view, _FINE_WIDTH, _FINE_STEP)

    def confirm(self, view: View, face: Square) -> list[Square]:
        """The faces of similar size around `face`."""
        width, height = view.size
        x0, y0 = max(0, int(face.x - face.side)), max(0, int(face.y - face.side))
        x1, y1 = min(width, int(face.x + face.side) + 1), min(height, int(face.y + face.side) + 1)
        scale = min(1.0, _FACE / face.side)
        side = face.side * scale
        if x1 - x0 < face.side / 2 or y1 - y0 < face.side / 2:
            return []
        return self._in(view, (x0, y0, x1, y1), scale, 1.15, int(side * 0.7), int(side * 1.5))

    def _whole(self, view: View, longer: int, step: float) -> list[Square]:
        """The faces of the whole frame, whose longer side is brought to `longer` pixels first."""
        width, height = view.size
        scale = min(1.0, longer / max(width, height))
        return self._in(view, (0, 0, width, height), scale, step, 20, min(width, height))

    def _in(self, view: View, part: tuple[int, int, int, int], scale: float, step: float, least: int, most: int) -> list[Square]:
        """The faces of sides `least` to `most` in `part` (left, top, right, bottom) of the frame, brought to `scale`."""
        x0, y0, x1, y1 = part
        small = view.gray(x0, y0, x1, y1, max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        least = max(20, least)  # the cascade's own window
        if min(small.shape) < least:
            return []
        boxes, counts = self._cascade.detectMultiScale2(small, step, _HITS, 0, (least, least), (most, most))
        found = [(box, int(count)) for box, count in zip(np.asarray(boxes).reshape(-1, 4).tolist(), np.ravel(counts), strict=True)]
        sx, sy = (x1 - x0) / small.shape[1], (y1 - y0) / small.shape[0]
        faces = []
        while found:
            largest, _ = max(found, key=lambda item: (item[0][2], item[1], -item[0][0], -item[0][1]))
            # The cascade sometimes sees a second, larger face around a face, with few hits: of those about one place the best supported counts.
            about = [item for item in found if _inside(item[0], largest)]
            (x, y, w, h), hits = max(about, key=lambda item: (item[1], item[0][2], -item[0][0]))
            faces.append(Square(x0 + (x + w / 2) * sx, y0 + (y + h / 2) * sy, (w * sx + h * sy) / 2, hits / (hits + 3)))
            found = [item for item in found if item not in about]
        return faces


def _inside(box: list[int], other: list[int]) -> bool:
    """Whether the centre of `box` lies in `other` (x, y, width, height)."""
    x, y = box[0] + box[2] / 2 - other[0], box[1] + box[3] / 2 - other[1]
    return 0 <= x <= other[2] and 0 <= y <= other[3]
