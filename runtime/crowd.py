"""Find every face to read, up to a number: as `faces.py` does it for the largest, with a track for each.

A face that is lost and found again within a second, near its last place, keeps its track; tracks are places in the picture that were followed, they
say nothing about who somebody is. A face that comes while others are followed has to be seen twice, in the whole frame and near its place: what
the cascade takes for a face by mistake is seldom taken for one at both scales.

Cost: that of `faces.py` for each face, and the whole frame twice a second, ten times while a face is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cascade import Cascade
from .faces import LARGER, MARGIN, SAME_NS, FaceBox, face_box
from .following import Detector, Follower, Square, Track
from .native import Pixels
from .view import View

_MS = 1_000_000
_WHOLE_NS = 500 * _MS  # the whole frame is searched for more faces this often
_SEARCH_NS = 100 * _MS  # while there is none, or one was lost within SAME_NS


@dataclass(frozen=True)
class _Lost:
    """A track that may come back."""

    number: int
    face: Square
    t_ns: int


class CrowdFinder:
    """Follows up to `most` faces through a stream of frames; one finder per stream, not thread-safe. `detector` and errors as of `FaceFinder`."""

    def __init__(self, margin: float = MARGIN, detector: Detector | None = None, most: int = 4) -> None:
        import cv2

        self._cv2, self._margin, self._most = cv2, margin, most
        self._detector = detector or Cascade(cv2)
        self._follower = Follower(cv2, self._detector)
        self.reset()

    def reset(self) -> None:
        """Forget every face; the next track is number 1."""
        self._tracks: list[Track] = []
        self._lost: list[_Lost] = []
        self._numbers = self._searches = 0
        self._size: tuple[int, int] | None = None
        self._whole_ns: int | None = None

    def find_all(self, pixels: Pixels, format: str, t_ns: int) -> list[FaceBox]:
        """The faces in the frame of time `t_ns`, largest first. Frames come in the order of their stamps."""
        view = View(self._cv2, pixels, format)
        self._lost = [lost for lost in self._lost if 0 <= t_ns - lost.t_ns <= SAME_NS]
        if view.size != self._size:
            for track in [*self._tracks]:
                self._lose(track, t_ns)
            self._size, self._whole_ns = view.size, None
        for track in [*self._tracks]:
            if not self._follower.follow(view, track, t_ns, self._own):
                self._lose(track, t_ns)
        self._part()
        every_ns = _SEARCH_NS if self._lost or not self._tracks else _WHOLE_NS
        if self._whole_ns is None or not 0 <= t_ns - self._whole_ns < every_ns:
            self._whole_ns = t_ns
            self._searches += 1
            self._take(view, self._detector.search(view, self._searches), t_ns)
        tracks = sorted(self._tracks, key=lambda track: (-track.shown.side, track.number))
        return [face_box(track.shown, self._margin, track.correlation, track.number) for track in tracks]

    def _own(self, found: list[Square], track: Track) -> Square | None:
        """The nearest of the faces that were found around a track's, but for those of the other tracks."""
        others = [other.face for other in self._tracks if other is not track]
        free = [face for face in found if not any(_between(face, other) < _between(face, track.face) for other in others)]
        return min(free, key=lambda face: _between(face, track.face), default=None)

    def _part(self) -> None:
        """Of two tracks on one face the older stays."""
        kept: list[Track] = []
        for track in sorted(self._tracks, key=lambda track: track.number):
            if not any(track.face.holds(other.face) and other.face.holds(track.face) for other in kept):
                kept.append(track)
        self._tracks = kept

    def _take(self, view: View, found: list[Square], t_ns: int) -> None:
        """What a search of the whole frame found: tracked faces, faces that are back, and new ones, largest first."""
        followed = [*self._tracks]
        for face in found:
            near = [track for track in followed if face.near(track.face)]
            if near:
                track = min(near, key=lambda track: _between(face, track.face))
                followed.remove(track)
                self._follower.agree(view, track, face, t_ns)
            elif not any(face.holds(track.face) or track.face.holds(face) for track in self._tracks):
                self._add(view, face, t_ns)

    def _add(self, view: View, face: Square, t_ns: int) -> None:
        if self._tracks and not self._detector.confirm(view, face):
            return
        if len(self._tracks) == self._most:
            smallest = min(self._tracks, key=lambda track: (track.face.side, -track.number))
            if face.side < LARGER * smallest.face.side:
                return
            self._tracks.remove(smallest)
        back = min((lost for lost in self._lost if face.near(lost.face)), key=lambda lost: _between(face, lost.face), default=None)
        if back is None:
            self._numbers += 1
        else:
            self._lost.remove(back)
        self._tracks.append(self._follower.begin(view, self._numbers if back is None else back.number, face, t_ns))

    def _lose(self, track: Track, t_ns: int) -> None:
        self._tracks.remove(track)
        self._lost.append(_Lost(track.number, track.face, t_ns))
        if self._whole_ns is not None:
            self._whole_ns = min(self._whole_ns, t_ns - _SEARCH_NS)


def _between(face: Square, other: Square) -> float:
    return max(abs(face.x - other.x), abs(face.y - other.y))
