"""Follow one face from frame to frame: a small template is matched near its last place, and now and then a detector confirms it.

Squares and sides are float pixels of the whole frame, without margin. Cost: a small template match a frame (0.3 ms of one core at 640 x 480), and
what the detector takes near the face five times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .view import View

_MS = 1_000_000
_CHECK_NS = 200 * _MS  # a tracked face is confirmed by the detector this often, near its last place
_UNSEEN_NS = 1_500 * _MS  # a tracked face that the detector cannot confirm for so long is lost

_SIDES = 11  # the side shown is the median of so many words of the detector: sizes are its noisiest

_TEMPLATE, _PATCH = 28, 44  # template and where it is looked for
_INNER = 0.75  # the template covers so much of the face's square: eyes to mouth, no background
_SURE, _LOST = 0.8, 0.5  # correlation below which the detector is asked at once, and below which its silence means lost
_DOUBTS = 3  # so many unsure frames in a row without the detector's word mean lost, too
_FLAT = 3.0  # standard deviation, of 255, below which a patch shows nothing


@dataclass(frozen=True)
class Square:
    """Centre and side of a face's square without margin; `score` in 0 .. 1 is the detector's support for it."""

    x: float
    y: float
    side: float
    score: float

    def near(self, other: Square) -> bool:
        """Whether the two could be the same face some moments apart."""
        side = max(self.side, other.side)
        return max(abs(self.x - other.x), abs(self.y - other.y)) < side and side < 2.0 * min(self.side, other.side)

    def holds(self, other: Square) -> bool:
        """Whether the centre of `other` lies in this one."""
        return max(abs(self.x - other.x), abs(self.y - other.y)) <= self.side / 2


class Detector(Protocol):
    """Finds faces in a frame, whatever came before; all lists are largest first."""

    def search(self, view: View, turn: int) -> list[Square]:
        """The faces of the whole frame; `turn` counts the searches, for a detector that looks for other sizes in turns."""

    def study(self, view: View) -> list[Square]:
        """As `search`, as well as it can, for a single picture."""

    def confirm(self, view: View, face: Square) -> list[Square]:
        """The faces of similar size around `face`."""


@dataclass
class Track:
    """A face that is followed. `face` is as tracked, `shown` as given out."""

    number: int
    face: Square
    shown: Square
    sides: list[float]  # what the detector said last
    template: NDArray[np.uint8] | None  # None where it shows nothing that could be found again
    offset: tuple[float, float]  # from the centre of the template to that of the face, frame pixels
    correlation: float
    doubts: int  # unsure frames in a row
    checked_ns: int  # when the detector was last asked
    seen_ns: int  # when it last agreed


Pick = Callable[[list[Square], Track], Square | None]
"""Which of the faces that were found around a track's is its face."""


class Follower:
    """What all tracks of a stream have in common."""

    def __init__(self, cv2: Any, detector: Detector) -> None:
        self._cv2, self._detector = cv2, detector

    def begin(self, view: View, number: int, found: Square, t_ns: int) -> Track:
        """A track of a face that was just found."""
        template, offset = self._template(view, found)
        return Track(number, found, found, [found.side], template, offset, 1.0, 0, t_ns, t_ns)

    def follow(self, view: View, track: Track, t_ns: int, pick: Pick) -> bool:
        """Move the track to where its face is in this frame; False when it is lost."""
        track.correlation = self._match(view, track)
        track.doubts = track.doubts + 1 if track.correlation < _SURE else 0
        if track.doubts or not 0 <= t_ns - track.checked_ns < _CHECK_NS:
            track.checked_ns = t_ns
            found = pick(self._detector.confirm(view, track.face), track)
            if found is not None:
                self.agree(view, track, found, t_ns)
            elif track.correlation < _LOST or track.doubts >= _DOUBTS or not 0 <= t_ns - track.seen_ns <= _UNSEEN_NS:
                return False
        track.shown = _smoothed(track.shown, track.face)
        return True

    def agree(self, view: View, track: Track, found: Square, t_ns: int) -> None:
        """The detector confirms the track: pull it towards `found`, and remember what it looks like now."""
        face = track.face
        pull = 0.3 if max(abs(found.x - face.x), abs(found.y - face.y)) < 0.15 * face.side else 1.0
        track.sides = [*track.sides[1 - _SIDES :], found.side]
        side = float(np.median(track.sides))
        track.face = Square(face.x + pull * (found.x - face.x), face.y + pull * (found.y - face.y), side, found.score)
        track.template, track.offset = self._template(view, track.face)
        track.correlation, track.doubts, track.checked_ns, track.seen_ns = 1.0, 0, t_ns, t_ns

    def _template(self, view: View, face: Square) -> tuple[NDArray[np.uint8] | None, tuple[float, float]]:
        patch, scale, x0, y0 = self._patch(view, face)
        edge = (_PATCH - _TEMPLATE) // 2
        middle = _PATCH / 2 * scale
        template = patch[edge : edge + _TEMPLATE, edge : edge + _TEMPLATE]
        return None if float(template.std()) < _FLAT else template.copy(), (face.x - x0 - middle, face.y - y0 - middle)

    def _match(self, view: View, track: Track) -> float:
        """Move `track.face` to the best match of its template near its last place; the correlation there, 0 where nothing can be seen."""
        if track.template is None:
            return 0.0
        patch, scale, x0, y0 = self._patch(view, track.face)
        if float(patch.std()) < _FLAT:
            return 0.0
        scores = self._cv2.matchTemplate(patch, track.template, self._cv2.TM_CCOEFF_NORMED)
        row, column = divmod(int(np.argmax(scores)), scores.shape[1])
        best = float(scores[row, column])
        if not np.isfinite(best):
            return 0.0
        x = x0 + (column + _peak(scores[row], column) + _TEMPLATE / 2) * scale + track.offset[0]
        y = y0 + (row + _peak(scores[:, column], row) + _TEMPLATE / 2) * scale + track.offset[1]
        width, height = view.size
        if 0 <= x < width and 0 <= y < height:
            track.face = replace(track.face, x=x, y=y)
            return best
        return 0.0

    def _patch(self, view: View, face: Square) -> tuple[NDArray[np.uint8], float, int, int]:
        """The inner face and what surrounds it, uint8 [44, 44]; frame pixels per patch pixel; left and top."""
        side = max(_PATCH // 4, round(face.side * _INNER * _PATCH / _TEMPLATE))
        x0, y0 = round(face.x - side / 2), round(face.y - side / 2)
        return view.gray(x0, y0, x0 + side, y0 + side, _PATCH, _PATCH), side / _PATCH, x0, y0


def _peak(scores: NDArray[np.float32], at: int) -> float:
    """Offset of the top of the parabola through the three scores around the largest, within half a step."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    left, top, right = (float(v) for v in scores[at - 1 : at + 2])
    bend = left - 2.0 * top + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _smoothed(shown: Square, face: Square) -> Square:
    """Small moves are mostly jitter and followed by a third, large ones at once; the side is followed slowly."""
    dx, dy = face.x - shown.x, face.y - shown.y
    gain = min(1.0, 0.33 + max(abs(dx), abs(dy)) / (0.06 * face.side))
    ratio = face.side / shown.side
    side = face.side if not 0.8 < ratio < 1.25 else shown.side + 0.1 * (face.side - shown.side)
    return Square(shown.x + gain * dx, shown.y + gain * dy, side, face.score)
