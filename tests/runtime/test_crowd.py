"""Several drawn people at once: each keeps a track of its own, however they move, hide and come back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from moving_face import Person, Room, Spot

from sage_edge.runtime.crowd import CrowdFinder
from sage_edge.runtime.faces import FaceBox, FaceFinder
from sage_edge.runtime.following import Square
from sage_edge.runtime.view import View

FRAME_NS = 33_333_333
SIZE = (480, 270)


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return [Person(seed) for seed in (3, 8, 1)]


@pytest.fixture(scope="module")
def room() -> Room:
    return Room(SIZE)


def spots(i: int) -> list[Spot]:
    """Three people who sway, the largest first."""
    t = i / 30
    return [
        Spot(110 + 15 * np.sin(2.0 * t), 140 + 8 * np.sin(1.3 * t), 75),
        Spot(280 + 12 * np.sin(1.5 * t + 1), 130, 58),
        Spot(405 + 10 * np.sin(2.3 * t + 2), 150 + 6 * np.sin(t), 44),
    ]


def middle(found: FaceBox) -> tuple[float, float]:
    x, y, w, h = found.box
    return x + w / 2, y + h / 2


def whose(found: FaceBox, i: int) -> int:
    """Which of the three it is."""
    return int(np.argmin([np.hypot(middle(found)[0] - spot.x, middle(found)[1] - spot.y) / spot.half for spot in spots(i)]))


def follow(finder: CrowdFinder, room: Room, people: list[Person], frames: int, there=lambda i, k: True) -> list[dict[int, FaceBox]]:
    """Person -> box for each frame."""
    seen = []
    for i in range(frames):
        here = [(people[k], spot) for k, spot in enumerate(spots(i)) if there(i, k)]
        found = finder.find_all(room.shot(i, here), "rgb", i * FRAME_NS)
        assert [face.box[2] for face in found] == sorted((face.box[2] for face in found), reverse=True)
        assert len({face.track for face in found}) == len(found)
        seen.append({whose(face, i): face for face in found})
        assert len(seen[-1]) == len(found), "two boxes on one face"
    return seen


def test_each_face_is_followed_closely_with_a_track_of_its_own(room: Room, people: list[Person]) -> None:
    seen = follow(CrowdFinder(), room, people, 50)
    assert [len(frame) for frame in seen[20:]] == [3] * 30
    for k in range(3):
        assert len({frame[k].track for frame in seen if k in frame}) == 1
        place = np.array(
            [
                [(middle(f[k])[0] - spots(i)[k].x) / spots(i)[k].half, (middle(f[k])[1] - spots(i)[k].y) / spots(i)[k].half]
                for i, f in enumerate(seen)
                if k in f
            ]
        )
        assert np.abs(place - place.mean(axis=0)).max() < 0.15, place


@pytest.mark.parametrize(("away", "same"), [(18, True), (45, False)])
def test_who_is_back_within_a_second_keeps_the_track_and_the_others_keep_theirs_anyway(
    away: int, same: bool, room: Room, people: list[Person]
) -> None:
    seen = follow(CrowdFinder(), room, people, 42 + away, lambda i, k: not (k == 1 and 22 <= i < 22 + away))
    assert all(1 not in frame for frame in seen[27 : 22 + away])
    assert (seen[-1][1].track == seen[21][1].track) is same
    for k in (0, 2):
        assert len({frame[k].track for frame in seen if k in frame}) == 1
        assert all(k in frame for frame in seen[20:])


def test_no_more_than_asked_for_and_then_the_largest(room: Room, people: list[Person]) -> None:
    seen = follow(CrowdFinder(most=2), room, people, 40, lambda i, k: k > 0 or i >= 15)
    assert max(len(frame) for frame in seen) == 2
    assert set(seen[14]) == {1, 2}
    assert set(seen[-1]) == {0, 1}, "a much larger face takes the place of the smallest"


def test_alone_it_is_where_the_finder_of_the_largest_sees_it(room: Room, people: list[Person]) -> None:
    single = FaceFinder()
    for i, frame in enumerate(follow(CrowdFinder(), room, people, 25, lambda i, k: k == 0)):
        face = single.find(room.shot(i, [(people[0], spots(i)[0])]), "rgb", i * FRAME_NS)
        assert face is not None
        assert np.abs(np.subtract(frame[0].box, face.box)).max() < 0.05 * face.box[2]
        assert frame[0].track == face.track == 1


def test_people_who_pass_each_other_never_have_two_boxes_on_one_face(room: Room, people: list[Person]) -> None:
    finder = CrowdFinder()
    for i in range(40):
        near, far = Spot(100 + 7 * i, 140, 70), Spot(380 - 7 * i, 130, 50)
        found = finder.find_all(room.shot(i, [(people[1], far), (people[0], near)]), "rgb", i * FRAME_NS)
        assert len(found) <= 2
        if len(found) == 2:
            (ax, ay), (bx, by) = (middle(face) for face in found)
            assert max(abs(ax - bx), abs(ay - by)) > min(face.box[2] for face in found) / 2.5
    assert len(found) == 2


def test_same_frames_same_boxes_and_another_size_begins_anew(room: Room, people: list[Person]) -> None:
    finder = CrowdFinder()
    first = follow(finder, room, people, 25, lambda i, k: k < 2 and not 8 <= i < 14)
    finder.reset()
    assert follow(finder, room, people, 25, lambda i, k: k < 2 and not 8 <= i < 14) == first
    large = Room((960, 540))
    (face,) = finder.find_all(large.shot(0, [(people[0], Spot(500, 270, 150))]), "rgb", 25 * FRAME_NS)
    assert middle(face) == pytest.approx((500, 270), abs=40)
    assert face.track == 3


class Knowing:
    """A detector that knows where the faces are, and sees whichever have their middle in what it looks at."""

    def __init__(self) -> None:
        self.faces: list[Square] = []

    def search(self, view: View, turn: int) -> list[Square]:
        return sorted(self.faces, key=lambda face: -face.side)

    def study(self, view: View) -> list[Square]:
        return self.search(view, 0)

    def confirm(self, view: View, face: Square) -> list[Square]:
        return [other for other in self.search(view, 0) if max(abs(other.x - face.x), abs(other.y - face.y)) <= 1.2 * face.side]


def patterned(faces: list[Square]) -> np.ndarray:
    """Each face with the same pattern, on gray."""
    picture = np.full((*SIZE[::-1], 3), 120, np.uint8)
    pattern = np.kron(np.random.default_rng(5).integers(0, 256, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    for face in faces:
        size, x, y = int(face.side), int(face.x - face.side / 2), int(face.y - face.side / 2)
        picture[y : y + size, x : x + size] = cv2.resize(pattern, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    return picture


def test_a_face_is_confirmed_by_itself_and_not_by_a_larger_one_beside_it() -> None:
    detector = Knowing()
    finder = CrowdFinder(0.0, detector)
    detector.faces = [Square(150, 130, 84, 0.9), Square(226, 130, 64, 0.9)]
    for i in range(30):
        found = finder.find_all(patterned(detector.faces), "rgb", i * FRAME_NS)
        assert [(face.track, *middle(face)) for face in found] == [pytest.approx((1, 150, 130), abs=3), pytest.approx((2, 226, 130), abs=3)]
        assert found[1].box[2] == pytest.approx(64, abs=1)


def test_two_tracks_that_have_come_to_one_place_are_one_the_older() -> None:
    detector = Knowing()
    finder = CrowdFinder(0.0, detector)
    for i in range(45):
        apart = max(0, 120 - 4 * i)
        detector.faces = [Square(200, 130, 64, 0.9), *([Square(200 + apart, 130, 64, 0.9)] if apart else [])]
        found = finder.find_all(patterned(detector.faces), "rgb", i * FRAME_NS)
        centres = [middle(face)[0] for face in found]
        assert len(found) == 1 or abs(centres[0] - centres[1]) > 28, i
    assert [face.track for face in found] == [1]
