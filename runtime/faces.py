"""Find the face to read: OpenCV's frontal cascade now and then, a template tracker in between, one smoothed square box per frame.

Pixels: uint8, "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W] or (Y, UV), "yuyv" [H, W, 2]; the YUV formats are searched in their own Y plane.
Boxes: float pixels of the whole frame, square, `MARGIN` included, possibly reaching beyond the frame. The largest face wins. Everything
depends on the pixels and the stamps alone: the same frames give the same boxes.

Cost: a tracked frame is one small template match (0.3 ms of one core at 640 x 480), the cascade near the face five times a second (2 ms), in the
whole frame once a second or, while there is no face, ten times (10 ms, 25 in a picture full of texture): 1.2 ms a frame on the average.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError, UsageError

MARGIN = 0.25
"""The box is the cascade's square grown by this fraction of its side, about its centre. The crops that a model is trained on are cut the
same way, and `face.margin` in a bundle says which value was used."""

Pixels = NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.uint8]]

_MS = 1_000_000
_CHECK_NS = 200 * _MS  # a tracked face is confirmed by the cascade this often, near its last place
_WHOLE_NS = 1_000 * _MS  # and the whole frame is searched for a larger one
_SEARCH_NS = 100 * _MS  # while there is none
_UNSEEN_NS = 1_500 * _MS  # a tracked face that the cascade cannot confirm for so long is lost
_SAME_NS = 1_000 * _MS  # found again within this time, near its last place: the same track

_WIDTHS = (240, 320)  # longer side of the searched picture, in turns: cheap, then for smaller faces; sizes missed by one meet the other
_STEP, _FINE_WIDTH, _FINE_STEP = 1.2, 320, 1.1  # ratio of sizes looked for; both for a single picture
_FACE = 48  # side of a tracked face in the picture searched around it
_SIDES = 11  # the side shown is the median of so many words of the cascade: sizes are its noisiest
_HITS = 3  # overlapping hits of the cascade that make a face
_LARGER = 1.4  # another face takes over when its side is so many times that of the tracked one

_TEMPLATE, _PATCH = 28, 44  # template and where it is looked for
_INNER = 0.75  # the template covers so much of the cascade's square: eyes to mouth, no background
_SURE, _LOST = 0.8, 0.5  # correlation below which the cascade is asked at once, and below which its silence means lost
_DOUBTS = 3  # so many unsure frames in a row without the cascade's word mean lost, too
_FLAT = 3.0  # standard deviation, of 255, below which a patch shows nothing


@dataclass(frozen=True)
class FaceBox:
    """A square in float pixels of the frame: box = (x, y, side, side). `score` in 0 .. 1 is the cascade's support, hits / (hits + 3), times the
    correlation with what it confirmed last. `track` counts up from 1; it stays with a face that is found again within a second."""

    box: tuple[float, float, float, float]
    score: float
    track: int


@dataclass(frozen=True)
class _Square:
    """Centre and side of a square without margin, and the cascade's hits for it."""

    x: float
    y: float
    side: float
    hits: int

    def near(self, other: _Square) -> bool:
        """Whether the two could be the same face some moments apart."""
        side = max(self.side, other.side)
        return max(abs(self.x - other.x), abs(self.y - other.y)) < side and side < 2.0 * min(self.side, other.side)


@dataclass
class _Track:
    """The face followed now. `face` is as tracked, `shown` as given out."""

    number: int
    face: _Square
    shown: _Square
    sides: list[float]  # what the cascade said last
    template: NDArray[np.uint8]
    offset: tuple[float, float]  # from the centre of the template to that of the face, frame pixels
    correlation: float
    doubts: int  # unsure frames in a row
    checked_ns: int  # when the cascade was last asked
    seen_ns: int  # when it last agreed


class FaceFinder:
    """Follows the largest face through a stream of frames; one finder per stream, not thread-safe.

    Raises EngineError where OpenCV has no cascade file (it is gone from OpenCV 5).
    """

    def __init__(self, margin: float = MARGIN) -> None:
        import cv2

        path = os.path.join(getattr(getattr(cv2, "data", None), "haarcascades", ""), "haarcascade_frontalface_alt2.xml")
        if not os.path.isfile(path):
            raise EngineError(f"OpenCV {cv2.__version__} has no face cascade; pip install 'opencv-python-headless<5'")
        self._cv2: Any = cv2
        self._cascade = cv2.CascadeClassifier(path)
        self._grow = 1.0 + margin
        self.reset()

    def reset(self) -> None:
        """Forget every face; the next track is number 1."""
        self._track: _Track | None = None
        self._last: tuple[int, _Square, int] | None = None  # number, face, when it was lost
        self._tracks = self._searches = 0
        self._size: tuple[int, int] | None = None
        self._whole_ns: int | None = None

    def detect(self, pixels: Pixels, format: str = "rgb") -> FaceBox | None:
        """The largest face of one picture, whatever came before and without a trace after; `track` is 0."""
        gray = _Gray(self._cv2, pixels, format)
        found = self._search(gray, _FINE_WIDTH, _FINE_STEP)
        return None if found is None else self._box(found, 1.0, 0)

    def find(self, pixels: Pixels, format: str, t_ns: int) -> FaceBox | None:
        """The face in the frame of time `t_ns`, None where there is none. Frames come in the order of their stamps."""
        gray = _Gray(self._cv2, pixels, format)
        if gray.size != self._size:
            self._lose(t_ns)
            self._size, self._whole_ns = gray.size, None
        if self._track is not None and not self._follow(gray, self._track, t_ns):
            self._lose(t_ns)
        every_ns = _SEARCH_NS if self._track is None else _WHOLE_NS
        if self._whole_ns is None or not 0 <= t_ns - self._whole_ns < every_ns:
            self._whole_ns = t_ns
            self._searches += 1
            self._take(gray, self._search(gray, _WIDTHS[self._searches % 2], _STEP), t_ns)
        track = self._track
        return None if track is None else self._box(track.shown, track.correlation, track.number)

    def _box(self, face: _Square, correlation: float, number: int) -> FaceBox:
        side = face.side * self._grow
        score = face.hits / (face.hits + 3) * min(1.0, max(0.0, correlation))
        return FaceBox((face.x - side / 2, face.y - side / 2, side, side), score, number)

    # -- finding ------------------------------------------------------------------------------------------------------

    def _search(self, gray: _Gray, longer: int, step: float) -> _Square | None:
        """The largest face of the whole frame, whose longer side is brought to `longer` pixels first."""
        width, height = gray.size
        scale = min(1.0, longer / max(width, height))
        return self._cascade_in(gray, (0, 0, width, height), scale, step, 20, min(width, height))

    def _confirm(self, gray: _Gray, face: _Square) -> _Square | None:
        """The largest face of similar size around `face`."""
        width, height = gray.size
        x0, y0 = max(0, int(face.x - face.side)), max(0, int(face.y - face.side))
        x1, y1 = min(width, int(face.x + face.side) + 1), min(height, int(face.y + face.side) + 1)
        scale = min(1.0, _FACE / face.side)
        side = face.side * scale
        if x1 - x0 < face.side / 2 or y1 - y0 < face.side / 2:
            return None
        return self._cascade_in(gray, (x0, y0, x1, y1), scale, 1.15, int(side * 0.7), int(side * 1.5))

    def _cascade_in(self, gray: _Gray, part: tuple[int, int, int, int], scale: float, step: float, least: int, most: int) -> _Square | None:
        """The largest face of sides `least` to `most` in `part` (left, top, right, bottom) of the frame, brought to `scale`."""
        x0, y0, x1, y1 = part
        small = gray.resized(x0, y0, x1, y1, max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        least = max(20, least)  # the cascade's own window
        if min(small.shape) < least:
            return None
        boxes, counts = self._cascade.detectMultiScale2(small, step, _HITS, 0, (least, least), (most, most))
        found = [(box, int(count)) for box, count in zip(np.asarray(boxes).reshape(-1, 4).tolist(), np.ravel(counts), strict=True)]
        if not found:
            return None
        largest, _ = max(found, key=lambda item: (item[0][2], item[1], -item[0][0], -item[0][1]))
        # The cascade sometimes sees a second, larger face around a face, with few hits: of those about one place the best supported counts.
        (x, y, w, h), count = max((item for item in found if _inside(item[0], largest)), key=lambda item: (item[1], item[0][2], -item[0][0]))
        sx, sy = (x1 - x0) / small.shape[1], (y1 - y0) / small.shape[0]
        return _Square(x0 + (x + w / 2) * sx, y0 + (y + h / 2) * sy, (w * sx + h * sy) / 2, count)

    # -- following ----------------------------------------------------------------------------------------------------

    def _take(self, gray: _Gray, found: _Square | None, t_ns: int) -> None:
        """What a search of the whole frame found: the tracked face, a larger one that takes over, or a new one."""
        if found is None:
            return
        track = self._track
        if track is not None:
            if found.near(track.face):
                self._agree(gray, track, found, t_ns)
                return
            if found.side < _LARGER * track.face.side:
                return
            self._last = None
        number = 0
        if self._last is not None:
            known, face, lost_ns = self._last
            if 0 <= t_ns - lost_ns <= _SAME_NS and found.near(face):
                number = known
        if not number:
            self._tracks += 1
            number = self._tracks
        template, offset = self._template(gray, found)
        self._track = _Track(number, found, found, [found.side], template, offset, 1.0, 0, t_ns, t_ns)

    def _follow(self, gray: _Gray, track: _Track, t_ns: int) -> bool:
        """Move the track to where its face is in this frame; False when it is lost."""
        track.correlation = self._match(gray, track)
        track.doubts = track.doubts + 1 if track.correlation < _SURE else 0
        if track.doubts or not 0 <= t_ns - track.checked_ns < _CHECK_NS:
            track.checked_ns = t_ns
            found = self._confirm(gray, track.face)
            if found is not None:
                self._agree(gray, track, found, t_ns)
            elif track.correlation < _LOST or track.doubts >= _DOUBTS or not 0 <= t_ns - track.seen_ns <= _UNSEEN_NS:
                return False
        track.shown = _smoothed(track.shown, track.face)
        return True

    def _agree(self, gray: _Gray, track: _Track, found: _Square, t_ns: int) -> None:
        """The cascade confirms the track: pull it towards `found`, and remember what it looks like now."""
        face = track.face
        pull = 0.3 if max(abs(found.x - face.x), abs(found.y - face.y)) < 0.15 * face.side else 1.0
        track.sides = [*track.sides[1 - _SIDES :], found.side]
        side = float(np.median(track.sides))
        track.face = _Square(face.x + pull * (found.x - face.x), face.y + pull * (found.y - face.y), side, found.hits)
        track.template, track.offset = self._template(gray, track.face)
        track.correlation, track.doubts, track.checked_ns, track.seen_ns = 1.0, 0, t_ns, t_ns

    def _lose(self, t_ns: int) -> None:
        if self._track is not None:
            self._last = (self._track.number, self._track.face, t_ns)
            self._track, self._whole_ns = None, None if self._whole_ns is None else min(self._whole_ns, t_ns - _SEARCH_NS)

    def _template(self, gray: _Gray, face: _Square) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        patch, scale, x0, y0 = self._patch(gray, face)
        edge = (_PATCH - _TEMPLATE) // 2
        middle = _PATCH / 2 * scale
        return patch[edge : edge + _TEMPLATE, edge : edge + _TEMPLATE].copy(), (face.x - x0 - middle, face.y - y0 - middle)

    def _match(self, gray: _Gray, track: _Track) -> float:
        """Move `track.face` to the best match of its template near its last place; the correlation there, 0 where nothing can be seen."""
        patch, scale, x0, y0 = self._patch(gray, track.face)
        if float(patch.std()) < _FLAT:
            return 0.0
        scores = self._cv2.matchTemplate(patch, track.template, self._cv2.TM_CCOEFF_NORMED)
        row, column = divmod(int(np.argmax(scores)), scores.shape[1])
        best = float(scores[row, column])
        if not np.isfinite(best):
            return 0.0
        x = x0 + (column + _peak(scores[row], column) + _TEMPLATE / 2) * scale + track.offset[0]
        y = y0 + (row + _peak(scores[:, column], row) + _TEMPLATE / 2) * scale + track.offset[1]
        width, height = gray.size
        if 0 <= x < width and 0 <= y < height:
            track.face = replace(track.face, x=x, y=y)
            return best
        return 0.0

    def _patch(self, gray: _Gray, face: _Square) -> tuple[NDArray[np.uint8], float, int, int]:
        """The inner face and what surrounds it, uint8 [44, 44]; frame pixels per patch pixel; left and top."""
        side = max(_PATCH // 4, round(face.side * _INNER * _PATCH / _TEMPLATE))
        x0, y0 = round(face.x - side / 2), round(face.y - side / 2)
        return gray.resized(x0, y0, x0 + side, y0 + side, _PATCH, _PATCH), side / _PATCH, x0, y0


class _Gray:
    """The brightness of a frame, made only where it is looked at."""

    def __init__(self, cv2: Any, pixels: Pixels, format: str) -> None:
        self._cv2 = cv2
        self._convert = {"rgb": cv2.COLOR_RGB2GRAY, "bgr": cv2.COLOR_BGR2GRAY}.get(format)
        if isinstance(pixels, tuple):
            self._pixels = pixels[0]
        elif format == "nv12":
            self._pixels = pixels[: pixels.shape[0] * 2 // 3]
        elif format == "yuyv":
            self._pixels = pixels[:, :, 0]
        elif self._convert is not None:
            self._pixels = pixels
        else:
            raise UsageError(f"unknown pixel format {format!r}; one of rgb, bgr, nv12, yuyv")
        self.size = (self._pixels.shape[1], self._pixels.shape[0])

    def resized(self, x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> NDArray[np.uint8]:
        """The rectangle as uint8 [height, width], area-averaged; the nearest edge pixel continues outside the frame."""
        cv2 = self._cv2
        w, h = self.size
        cx0, cy0, cx1, cy1 = min(max(x0, 0), w - 1), min(max(y0, 0), h - 1), max(min(x1, w), 1), max(min(y1, h), 1)
        part = np.ascontiguousarray(self._pixels[cy0:cy1, cx0:cx1])
        if self._convert is not None:
            part = cv2.cvtColor(part, self._convert)
        if (cx0, cy0, cx1, cy1) != (x0, y0, x1, y1):
            part = cv2.copyMakeBorder(part, cy0 - y0, y1 - cy1, cx0 - x0, x1 - cx1, cv2.BORDER_REPLICATE)
        small: NDArray[np.uint8] = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        return small


def _inside(box: list[int], other: list[int]) -> bool:
    """Whether the centre of `box` lies in `other` (x, y, width, height)."""
    x, y = box[0] + box[2] / 2 - other[0], box[1] + box[3] / 2 - other[1]
    return 0 <= x <= other[2] and 0 <= y <= other[3]


def _peak(scores: NDArray[np.float32], at: int) -> float:
    """Offset of the top of the parabola through the three scores around the largest, within half a step."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    left, top, right = (float(v) for v in scores[at - 1 : at + 2])
    bend = left - 2.0 * top + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _smoothed(shown: _Square, face: _Square) -> _Square:
    """Small moves are mostly jitter and followed by a third, large ones at once; the side is followed slowly."""
    dx, dy = face.x - shown.x, face.y - shown.y
    gain = min(1.0, 0.33 + max(abs(dx), abs(dy)) / (0.06 * face.side))
    ratio = face.side / shown.side
    side = face.side if not 0.8 < ratio < 1.25 else shown.side + 0.1 * (face.side - shown.side)
    return _Square(shown.x + gain * dx, shown.y + gain * dy, side, face.hits)
