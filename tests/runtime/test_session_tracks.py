"""Several faces at once: each track has the window it would have alone, and a hop gives one estimate for each face that is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pytest
from feeding import SECOND, Event, by_time, events, make_clip, run
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage_edge.runtime import Bundle, Session, UsageError, ticks
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.faces import FaceBox
from sage_edge.runtime.native import resize

TICK = ticks.tick_time_ns
RNG = np.random.default_rng(3)
FACES = RNG.integers(0, 255, (6, 48, 48, 3), np.uint8)
NOISE = (0.1 * RNG.standard_normal(160_000)).astype(np.float32)
PICTURE = np.kron(RNG.integers(30, 220, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)


def feed(session: Session, tracks: dict[int, Sequence[bool]], only: int | None = None, ahead: int = 0) -> list[Estimate]:
    """Push frame by frame the faces of `tracks` (number -> whether it is there), each track with a face of its own that changes, and sound that is
    pushed `ahead` frames before those of its time, or behind them."""
    for k in range(len(next(iter(tracks.values())))):
        for j in range(ahead + 1) if k == 0 else (k + ahead,) if k + ahead >= 0 else ():
            session.push_audio(NOISE[j * 533 : j * 533 + 533], j * 533 * 62_500)
        there = [track for track, seen in tracks.items() if seen[k] and only in (None, track)]
        for track in there:
            session.push_face(np.roll(FACES[track % 6], k, axis=0), TICK(k), track=track)
        if not there:
            session.push_face(None, TICK(k))
    session.finish()
    return session.poll()


def test_one_face_is_read_as_the_largest_is(bundle: Bundle) -> None:
    order: list[Event] = by_time(*events(make_clip(5, seed=8)))
    outcomes = []
    for follow in ("largest", "all"):
        with Session(bundle, precision="fp32", t0_ns=0, follow=follow) as session:
            outcomes.append(run(session, order))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_each_track_has_the_window_it_would_have_alone(bundle: Bundle, data: st.DataObject) -> None:
    frames = 70
    numbers = data.draw(st.lists(st.integers(-3, 10**12), min_size=1, max_size=3, unique=True))
    stays = st.lists(st.booleans(), min_size=frames // 10, max_size=frames // 10)
    tracks = {number: np.repeat(data.draw(stays), 10).tolist() for number in numbers}
    hop = data.draw(st.sampled_from([4, 15]))
    thread = data.draw(st.booleans())
    with Session(bundle, precision="fp32", t0_ns=0, hop=hop, follow="all", most_faces=3, hop_thread=thread) as session:
        together = feed(session, tracks)
        assert session.stages["audio"].count == session.stages["fusion"].count == len({e.t_ns for e in together})
    alone: dict[tuple[int, int], Estimate] = {}
    for number in tracks:
        with Session(bundle, precision="fp32", t0_ns=0, hop=hop) as session:
            alone |= {(number, e.t_ns): e for e in feed(session, tracks, number)}
    for k in range(hop - 1, frames, hop):
        here = [e for e in together if e.t_ns == TICK(k)]
        there = [number for number in tracks if tracks[number][k]]
        assert [e.face and e.face.track for e in here] == (there or [None])
        for estimate, number in zip(here, there, strict=False):
            single = alone[number, TICK(k)]
            assert np.abs(np.subtract(estimate.trail, single.trail)).max() <= 1e-6
            assert (estimate.face, estimate.age_ms, estimate.audio) == (single.face, single.age_ms, single.audio)
            assert estimate.reliability.temporal == pytest.approx(single.reliability.temporal, abs=1e-5)
        if not there:
            before = (
                [max((j, -list(tracks).index(n), n) for n in tracks for j in range(k) if tracks[n][j])]
                if any(any(t[:k]) for t in tracks.values())
                else []
            )
            for _, _, number in before:
                assert np.abs(np.subtract(here[0].trail, alone[number, TICK(k)].trail)).max() <= 1e-6, "the window of the track seen last"


def test_who_is_ahead_frames_or_sound_changes_nothing(bundle: Bundle) -> None:
    tracks = {1: [k < 40 for k in range(70)], 2: [k >= 20 for k in range(70)], 3: [k % 30 < 15 for k in range(70)]}
    outcomes = []
    for ahead in (0, 25, -25):
        with Session(bundle, precision="fp32", t0_ns=0, hop=7, follow="all", most_faces=3) as session:
            outcomes.append([e for e in feed(session, tracks, ahead=ahead) if e.t_ns <= TICK(40)])
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0]) > 10


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("int8", 2e-2)])
def test_openvino_gives_what_onnxruntime_gives(bundle: Bundle, precision: str, most: float) -> None:
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    tracks = {1: [True] * 45, 2: [k >= 10 for k in range(45)], 3: [20 <= k < 32 for k in range(45)]}
    outcomes = []
    for backend in ("onnxruntime", "openvino"):
        with Session(bundle, backend, precision, t0_ns=0, threads=1, follow="all", most_faces=3, hop_thread=True) as session:
            outcomes.append(feed(session, tracks))
    assert [(e.t_ns, e.face) for e in outcomes[0]] == [(e.t_ns, e.face) for e in outcomes[1]]
    assert max(np.abs(np.subtract(a.trail, b.trail)).max() for a, b in zip(*outcomes, strict=True)) <= most


def test_nobody_is_one_estimate_without_a_face(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, follow="all") as session:
        session.advance(SECOND)
        estimates = session.poll()
    assert [e.t_ns for e in estimates] == [TICK(14), TICK(29)]
    assert all(e.face is None and e.age_ms is None for e in estimates)


class Crowd:
    """A finder that sees `boxes`, the same in every frame."""

    def __init__(self, boxes: list[tuple[float, float, float, float]]) -> None:
        self.boxes, self.asked = boxes, 0

    def find_all(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> list[FaceBox]:
        self.asked += 1
        return [FaceBox(box, 0.9, 10 + i) for i, box in enumerate(self.boxes)]


def test_faces_of_a_frame_are_found_once_and_read_in_one_batch(bundle: Bundle) -> None:
    boxes = [(40.0, 30.0, 120.0, 120.0), (150.0, 100.0, 60.0, 60.0), (-30.0, -20.0, 100.0, 100.0), (200.0, 10.0, 50.0, 50.0)]
    crowd = Crowd(boxes)
    with Session(bundle, precision="fp32", t0_ns=0, follow="all", most_faces=3, faces=crowd) as session:
        for k in range(15):
            session.push_frame(PICTURE, TICK(k))
        session.finish()
        estimates = session.poll()
        assert crowd.asked == session.stages["visual"].count == session.stages["crop"].count == 15
    assert [e.face and (e.face.track, e.face.box) for e in estimates] == [(10 + i, box) for i, box in enumerate(boxes[:3])]
    with Session(bundle, precision="fp32", t0_ns=0, follow="all", most_faces=3) as session:
        for k in range(15):
            for i, box in enumerate(boxes[:3]):
                session.push_face(resize(PICTURE, box, 48), TICK(k), track=i)
        session.finish()
        pushed = session.poll()
    for found, given_ in zip(estimates, pushed, strict=True):
        assert (found.valence, found.arousal) == pytest.approx((given_.valence, given_.arousal), abs=2e-3)


def test_a_face_given_again_replaces_itself_and_none_removes_all(bundle: Bundle) -> None:
    def outcome(*pushes: tuple[int | None, int]) -> list[tuple[object, float]]:
        with Session(bundle, precision="fp32", t0_ns=0, follow="all", most_faces=2) as session:
            for face, track in pushes:
                session.push_face(None if face is None else FACES[face], 0, track=track)
            session.finish()
            return [(e.face and e.face.track, e.valence) for e in session.poll()]

    assert outcome((0, 1), (1, 2), (2, 1)) == outcome((2, 1), (1, 2))
    assert outcome((0, 1), (None, 0), (1, 2)) == outcome((1, 2))
    assert [track for track, _ in outcome((0, 1), (None, 0))] == [None]


def test_more_faces_than_there_is_room_for_are_refused(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, follow="all", most_faces=2) as session:
        for track in (1, 2, 1):
            session.push_face(FACES[track], 0, track=track)
        with pytest.raises(UsageError, match="more than 2 faces; push the largest ones, or raise most_faces"):
            session.push_face(FACES[3], 0, track=3)
        session.finish()
        assert [e.face and e.face.track for e in session.poll()] == [1, 2]


def test_a_face_that_comes_after_its_tick_is_read_for_the_next(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", t0_ns=0, hop=1, follow="all") as session:
        session.push_face(FACES[0], 0, track=1)
        session.advance(TICK(1))
        session.push_face(FACES[1], 0, track=2)
        session.advance(TICK(2))
        assert [(e.t_ns, e.face and e.face.track) for e in session.poll()] == [(0, 1), (TICK(1), 1), (TICK(1), 2)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"follow": "al"}, "follow is 'al', must be one of largest, all"),
        ({"follow": "all", "most_faces": 0}, "most_faces is 0, must be a whole number from 1"),
        ({"follow": "all", "most_faces": True}, "most_faces is True"),
        ({"follow": "all", "faces": object()}, "needs a finder with find_all, object has none"),
        ({"faces": Crowd([])}, "needs a finder with find, Crowd has none"),
    ],
)
def test_wrong_options(bundle: Bundle, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Session(bundle, precision="fp32", **options)  # type: ignore[arg-type]
