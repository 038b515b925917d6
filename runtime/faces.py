"""Find the face to read: a detector now and then, a template tracker in between, one smoothed square box per frame.

Pixels: uint8, "rgb" or "bgr" [H, W, 3], "nv12" [H * 3 / 2, W] or (Y, UV), "yuyv" [H, W, 2]; the cascade searches the YUV formats in their own Y
plane. Boxes: float pixels of the whole frame, square, `MARGIN` included, possibly reaching beyond the frame. The largest face wins; `crowd.py`
follows all of them. Everything depends on the pixels and the stamps alone: the same frames give the same boxes.

Cost: a tracked frame is one small template match (0.3 ms of one core at 640 x 480), the cascade near the face five times a second (2 ms), in the
whole frame once a second or, while there is no face, ten times (10 ms, 25 in a picture full of texture): 1.2 ms a frame on the average.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cascade import Cascade
from .following import Detector, Follower, Square, Track
from .native import Pixels
from .view import View

MARGIN = 0.25
"""The box is the detector's square grown by this fraction of its side, about its centre. The crops that a model is trained on are cut the
same way, and `face.margin` in a bundle says which value was used."""

_MS = 1_000_000
_WHOLE_NS = 1_000 * _MS  # the whole frame is searched for a larger face this often
_SEARCH_NS = 100 * _MS  # while there is none
SAME_NS = 1_000 * _MS
"""A face that is found again within this time, near its last place, is the same track."""

LARGER = 1.4
"""Another face takes over when its side is so many times that of the tracked one."""


@dataclass(frozen=True)
class FaceBox:
    """A square in float pixels of the frame: box = (x, y, side, side). `score` in 0 .. 1 is the detector's support, of the cascade hits /
    (hits + 3), times the correlation with what it confirmed last. `track` counts up from 1; it stays with a face that is found again within a
    second."""

    box: tuple[float, float, float, float]
    score: float
    track: int


def face_box(face: Square, margin: float, correlation: float, number: int) -> FaceBox:
    """The box of a square, `margin` included."""
    side = face.side * (1.0 + margin)
    return FaceBox((face.x - side / 2, face.y - side / 2, side, side), face.score * min(1.0, max(0.0, correlation)), number)


class FaceFinder:
    """Follows the largest face through a stream of frames; one finder per stream, not thread-safe.

    `detector` is the cascade when None. Raises EngineError where OpenCV has no cascade file (it is gone from OpenCV 5).
    """

    def __init__(self, margin: float = MARGIN, detector: Detector | None = None) -> None:
        import cv2

        self._cv2, self._margin = cv2, margin
        self._detector = detector or Cascade(cv2)
        self._follower = Follower(cv2, self._detector)
        self.reset()

    def reset(self) -> None:
        """Forget every face; the next track is number 1."""
        self._track: Track | None = None
        self._last: tuple[int, Square, int] | None = None  # number, face, when it was lost
        self._tracks = self._searches = 0
        self._size: tuple[int, int] | None = None
        self._whole_ns: int | None = None

    def detect(self, pixels: Pixels, format: str = "rgb") -> FaceBox | None:
        """The largest face of one picture, whatever came before and without a trace after; `track` is 0."""
        found = self._detector.study(View(self._cv2, pixels, format))
        return face_box(found[0], self._margin, 1.0, 0) if found else None

    def find(self, pixels: Pixels, format: str, t_ns: int) -> FaceBox | None:
        """The face in the frame of time `t_ns`, None where there is none. Frames come in the order of their stamps."""
        view = View(self._cv2, pixels, format)
        if view.size != self._size:
            self._lose(t_ns)
            self._size, self._whole_ns = view.size, None
        if self._track is not None and not self._follower.follow(view, self._track, t_ns, _largest):
            self._lose(t_ns)
        every_ns = _SEARCH_NS if self._track is None else _WHOLE_NS
        if self._whole_ns is None or not 0 <= t_ns - self._whole_ns < every_ns:
            self._whole_ns = t_ns
            self._searches += 1
            found = self._detector.search(view, self._searches)
            if found:
                self._take(view, found[0], t_ns)
        track = self._track
        return None if track is None else face_box(track.shown, self._margin, track.correlation, track.number)

    def _take(self, view: View, found: Square, t_ns: int) -> None:
        """What a search of the whole frame found: the tracked face, a larger one that takes over, or a new one."""
        track = self._track
        if track is not None:
            if found.near(track.face):
                self._follower.agree(view, track, found, t_ns)
                return
            if found.side < LARGER * track.face.side:
                return
            self._last = None
        number = 0
        if self._last is not None:
            known, face, lost_ns = self._last
            if 0 <= t_ns - lost_ns <= SAME_NS and found.near(face):
                number = known
        if not number:
            self._tracks += 1
            number = self._tracks
        self._track = self._follower.begin(view, number, found, t_ns)

    def _lose(self, t_ns: int) -> None:
        if self._track is not None:
            self._last = (self._track.number, self._track.face, t_ns)
            self._track, self._whole_ns = None, None if self._whole_ns is None else min(self._whole_ns, t_ns - _SEARCH_NS)


def _largest(found: list[Square], track: Track) -> Square | None:
    return found[0] if found else None
