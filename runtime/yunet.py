"""Find faces with YuNet, a small network that OpenCV runs, out of a file that the user has; it sees faces that are turned or half hidden.

    detector = YuNet(cv2, "face_detection_yunet_2023mar.onnx")          # from OpenCV's model zoo, 230 kB

Its boxes are upright and lie close about the face; the square here has the longer of their sides, about the same centre. Its five landmarks are not
used: the crops of a bundle are cut from squares.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .following import Square
from .view import View

_SCORE, _OVERLAP, _KEEP = 0.7, 0.3, 64  # of a face, of two boxes that are one face, at most
_WHOLE, _FINE, _NEAR = 320, 640, 160  # sides of the square picture that is searched: a frame, a single picture, around a face
_AROUND = 3.0  # that last one shows so many sides of the face
_SIMILAR = 1.5  # sizes of faces that may be one


class YuNet:
    """A `following.Detector`. Raises UsageError with one line for a file that is not there or is no YuNet."""

    def __init__(self, cv2: Any, path: str | os.PathLike[str]) -> None:
        self._cv2, self._path, self._nets = cv2, os.fspath(path), dict[int, Any]()
        path = self._path
        if not os.path.isfile(path):
            raise UsageError(f"{path} is no file; get face_detection_yunet_2023mar.onnx from OpenCV's model zoo")
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            self._net(_NEAR).detect(np.zeros((_NEAR, _NEAR, 3), np.uint8))
        except cv2.error as error:
            reason = str(error.err).partition("\n")[0].partition(" in function")[0].strip(" >").removesuffix(", where") or "OpenCV cannot run it"
            raise UsageError(f"{path} is no YuNet face detector ({reason}); get face_detection_yunet_2023mar.onnx from OpenCV's model zoo") from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def search(self, view: View, turn: int) -> list[Square]:
        """The faces of the whole frame; see `following.Detector`."""
        return self._whole(view, _WHOLE)

    def study(self, view: View) -> list[Square]:
        """As `search`, for a single picture."""
        return self._whole(view, _FINE)

    def confirm(self, view: View, face: Square) -> list[Square]:
        """The faces of similar size around `face`."""
        side = _AROUND * face.side
        found = self._in(view, face.x - side / 2, face.y - side / 2, side, _NEAR)
        return [other for other in found if other.near(face) and 1 / _SIMILAR < other.side / face.side < _SIMILAR]

    def _whole(self, view: View, size: int) -> list[Square]:
        """The frame from its top left corner, in a square that continues its edge below or to the right of it."""
        width, height = view.size
        return [face for face in self._in(view, 0, 0, max(width, height), size) if 0 <= face.x < width and 0 <= face.y < height]

    def _net(self, size: int) -> Any:
        """The network for square pictures of `size`: one for each, as another size has its memory allocated anew."""
        if size not in self._nets:
            self._nets[size] = self._cv2.FaceDetectorYN.create(self._path, "", (size, size), _SCORE, _OVERLAP, _KEEP)
        return self._nets[size]

    def _in(self, view: View, x: float, y: float, side: float, size: int) -> list[Square]:
        scale = side / size
        _, rows = self._net(size).detect(view.bgr(x, y, side, size))
        faces: NDArray[np.float32] = np.zeros((0, 15), np.float32) if rows is None else rows
        found = [
            Square(x + (left + width / 2) * scale, y + (top + height / 2) * scale, max(width, height) * scale, min(1.0, score))
            for left, top, width, height, score in faces[:, [0, 1, 2, 3, 14]].tolist()
        ]
        return sorted((face for face in found if face.side > 0), key=lambda face: (-face.side, -face.score, face.x, face.y))
