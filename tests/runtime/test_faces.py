"""The face finder on drawn people that move, hide, and come back."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from moving_face import Person, Room, Spot, path_of

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.faces import MARGIN, FaceBox, FaceFinder
from sage_edge.runtime.following import Square
from sage_edge.runtime.view import View

FRAME_NS = 33_333_333


def middle(found: FaceBox) -> tuple[float, float]:
    x, y, w, h = found.box
    return x + w / 2, y + h / 2


def follow(finder: FaceFinder, frames, first: int = 0) -> list[FaceBox | None]:
    return [finder.find(pixels, "rgb", (first + i) * FRAME_NS) for i, pixels in enumerate(frames)]


def in_format(rgb: np.ndarray, name: str) -> np.ndarray:
    if name == "bgr":
        return np.ascontiguousarray(rgb[..., ::-1])
    if name == "rgb":
        return rgb
    height, width = rgb.shape[:2]
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    if name == "nv12":
        return np.concatenate([planar[:height], np.moveaxis(chroma, 0, -1).reshape(height // 2, width)])
    yuyv = np.empty((height, width, 2), np.uint8)
    yuyv[..., 0] = planar[:height]
    yuyv[:, 0::2, 1], yuyv[:, 1::2, 1] = (np.repeat(plane, 2, axis=0) for plane in chroma)
    return yuyv


@pytest.fixture(scope="module")
def person() -> Person:
    return Person(3)


@pytest.fixture(scope="module")
def room() -> Room:
    return Room()


@pytest.mark.parametrize("seed", [1, 3, 8])
def test_a_swaying_face_is_followed_closely(seed: int) -> None:
    person, room = Person(seed), Room(seed=seed)
    spots = [path_of(i) for i in range(75)]
    found = follow(FaceFinder(), (room.shot(i, [(person, spot)]) for i, spot in enumerate(spots)))
    assert all(face is not None for face in found)
    assert {face.track for face in found if face} == {1}
    # Where the box sits on a face is the person's; that it stays there is the finder's.
    place = np.array([[(middle(f)[0] - s.x) / s.half, (middle(f)[1] - s.y) / s.half] for f, s in zip(found, spots, strict=True) if f])
    size = np.array([f.box[2] / s.half for f, s in zip(found, spots, strict=True) if f])
    assert np.abs(place - place.mean(axis=0)).max() < 0.06, place
    assert np.abs(place.mean(axis=0)).max() < 0.2
    assert np.abs(size / size.mean() - 1).max() < 0.15, size
    assert all(0.3 < face.score <= 1 for face in found if face)


def test_the_box_is_a_square_with_the_margin(person: Person, room: Room) -> None:
    picture = room.shot(0, [(person, path_of(0))])
    tight, wide, default = (FaceFinder(margin=m).detect(picture) for m in (0.0, 1.0, MARGIN))
    assert tight is not None
    assert wide is not None
    assert default is not None
    assert default == FaceFinder().detect(picture)
    for found, grown in ((tight, 1.0), (wide, 2.0), (default, 1.0 + MARGIN)):
        assert found.box[2] == found.box[3] == pytest.approx(tight.box[2] * grown)
        assert middle(found) == pytest.approx(middle(tight))


@pytest.mark.parametrize("name", ["bgr", "nv12", "yuyv"])
def test_formats_agree(name: str, person: Person, room: Room) -> None:
    reference, other = FaceFinder(), FaceFinder()
    for i in range(12):
        rgb = room.shot(i, [(person, path_of(i))])
        a, b = reference.find(rgb, "rgb", i * FRAME_NS), other.find(in_format(rgb, name), name, i * FRAME_NS)
        assert a is not None
        assert b is not None
        assert np.abs(np.subtract(a.box, b.box)).max() < 0.05 * a.box[2], (i, a, b)


def test_planes_of_nv12_may_come_apart(person: Person, room: Room) -> None:
    nv12 = in_format(room.shot(0, [(person, path_of(0))]), "nv12")
    height = nv12.shape[0] * 2 // 3
    assert FaceFinder().detect((nv12[:height], nv12[height:]), "nv12") == FaceFinder().detect(nv12, "nv12") is not None


def test_same_frames_same_boxes_and_detect_leaves_no_trace(person: Person, room: Room) -> None:
    frames = [room.shot(i, [(person, path_of(i))] if not 14 <= i < 20 else []) for i in range(30)]
    asked, finder = [], FaceFinder()
    for i, pixels in enumerate(frames):
        finder.detect(frames[-1 - i])
        asked.append(finder.find(pixels, "rgb", i * FRAME_NS))
    assert asked == follow(FaceFinder(), frames)
    finder.reset()
    assert asked == follow(finder, frames)


@pytest.mark.parametrize("hidden", ["covered", "dark", "gone"])
def test_a_hidden_face_is_lost_quickly_and_found_again(hidden: str, person: Person, room: Room) -> None:
    def shot(i: int) -> np.ndarray:
        spot = path_of(i)
        if not 20 <= i < 38:
            return room.shot(i, [(person, spot)])
        if hidden == "gone":
            return room.shot(i, [])
        return room.shot(i, [(person, spot)], light=0.03 if hidden == "dark" else 1.0, cover=spot if hidden == "covered" else None)

    found = follow(FaceFinder(), (shot(i) for i in range(50)))
    assert all(face is not None for face in found[:20])
    assert all(face is None for face in found[24:38]), [i for i, face in enumerate(found) if face is None]
    assert all(face is not None for face in found[42:])
    assert found[-1] is not None
    assert found[-1].track == 1, "found again within a second, the track is the same"


@pytest.mark.parametrize("seed", [1, 3, 8])
def test_a_face_without_its_mouth_is_lost_too(seed: int, room: Room) -> None:
    """What is left looks like the face before, but the cascade sees none: a few frames of doubt, then none."""
    person = Person(seed)

    def shot(i: int) -> np.ndarray:
        spot = path_of(i)
        return room.shot(i, [(person, spot)], cover=Spot(spot.x, spot.y + 0.3 * spot.half, 0.5 * spot.half) if i >= 10 else None)

    found = follow(FaceFinder(), (shot(i) for i in range(22)))
    assert all(face is not None for face in found[:10])
    assert all(face is None for face in found[14:])


def test_after_more_than_a_second_it_is_another_track(person: Person, room: Room) -> None:
    def shot(i: int) -> np.ndarray:
        return room.shot(i, [] if 5 <= i < 42 else [(person, path_of(i))])

    found = follow(FaceFinder(), (shot(i) for i in range(50)))
    assert found[4] is not None
    assert found[49] is not None
    assert (found[4].track, found[49].track) == (1, 2)


def test_an_empty_room_has_no_face(room: Room) -> None:
    assert follow(FaceFinder(), (room.shot(i, []) for i in range(40))) == [None] * 40


def test_the_largest_face_wins(person: Person, room: Room) -> None:
    near, far = Spot(440, 240, 150), Spot(150, 200, 70)
    other = Person(8)

    def frames(first: list, second: list) -> list:
        return [room.shot(i, first if i < 12 else second) for i in range(50)]

    both = follow(FaceFinder(), frames([(other, far), (person, near)], [(other, far), (person, near)]))
    assert all(face is not None and abs(middle(face)[0] - near.x) < 40 and face.track == 1 for face in both)
    joined = follow(FaceFinder(), frames([(other, far)], [(other, far), (person, near)]))
    assert joined[5] is not None
    assert abs(middle(joined[5])[0] - far.x) < 30
    assert joined[-1] is not None
    assert abs(middle(joined[-1])[0] - near.x) < 40, "a much larger face takes over"
    assert joined[-1].track == 2
    behind = follow(FaceFinder(), frames([(person, near)], [(other, far), (person, near)]))
    assert all(face is not None and face.track == 1 and abs(middle(face)[0] - near.x) < 40 for face in behind)


def test_a_face_at_the_edge_gives_a_box_beyond_it(person: Person, room: Room) -> None:
    found = follow(FaceFinder(), (room.shot(i, [(person, Spot(105 + i, 105, 100))]) for i in range(10)))
    assert all(face is not None for face in found)
    assert found[0] is not None
    assert min(found[0].box[:2]) < 0


def test_slow_cameras_and_another_size(person: Person) -> None:
    small, large, finder = Room((320, 240)), Room((1280, 720)), FaceFinder()
    slow = [finder.find(small.shot(i, [(person, Spot(160, 120, 60 + 0.2 * i))]), "rgb", i * 200_000_000) for i in range(10)]
    assert all(face is not None for face in slow)
    changed = finder.find(large.shot(0, [(person, Spot(640, 360, 180))]), "rgb", 2_000_000_000)
    assert changed is not None
    assert middle(changed) == pytest.approx((640, 360), abs=40)


def test_a_template_that_shows_nothing_moves_no_track() -> None:
    """Nothing correlates with it, or everything does: the place stays, and the detector is asked at once."""
    square, asked = Square(100.0, 100.0, 80.0, 1.0), []

    class Everywhere:
        def search(self, view: View, turn: int) -> list[Square]:
            return [square]

        study = search

        def confirm(self, view: View, face: Square) -> list[Square]:
            asked.append(face)
            return [face]

    picture = np.full((200, 200, 3), 250, np.uint8)
    cv2.rectangle(picture, (55, 55), (145, 145), (10, 10, 10), 3)
    finder = FaceFinder(0.0, Everywhere())
    found = [finder.find(picture, "rgb", i * FRAME_NS) for i in range(10)]
    assert {face.box for face in found if face} == {(60.0, 60.0, 80.0, 80.0)}
    assert len(asked) == 9


def test_what_cannot_be_searched(room: Room) -> None:
    with pytest.raises(UsageError, match="'yv12'; one of rgb, bgr, nv12, yuyv"):
        FaceFinder().find(room.shot(0, []), "yv12", 0)
    assert FaceFinder().detect(np.zeros((8, 8, 3), np.uint8)) is None
    assert FaceFinder().detect(np.full((1, 400, 3), 90, np.uint8)) is None


def test_importing_it_loads_no_opencv() -> None:
    code = "import sys, sage_edge.runtime.faces; sys.exit('cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
