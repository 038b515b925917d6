"""Frames that are given together: the bits of one by one, as few engine runs as can be, and a clean state after an error."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_bundle import write_manifest

from sage_edge.runtime import Bundle, EngineError, Session, UsageError, graphs, ticks
from sage_edge.runtime.bundle import graph_path
from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.faces import FaceBox
from sage_edge.runtime.sources import FrameEvent

TICK = ticks.tick_time_ns
RNG = np.random.default_rng(5)
PICTURES = RNG.integers(20, 230, (40, 60, 80, 3), np.uint8)
NOISE = (0.1 * RNG.standard_normal(80_000)).astype(np.float32)


class Crowd:
    """Faces that follow from the frame's number alone: none to three of them, not always the same tracks."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def find_all(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> list[FaceBox]:
        self.asked.append(t_ns)
        k = int(pixels[0, 0, 0])
        return [FaceBox((4.0 * track + k % 9, 3.0 + k % 5, 30.0 - 7 * track, 30.0 - 7 * track), 0.9, track) for track in range(k % 4)]

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> FaceBox | None:
        return next(iter(self.find_all(pixels, format, t_ns)), None)


class Middle:
    """One face, always there."""

    box = (10.0, 10.0, 40.0, 40.0)

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> FaceBox:
        return FaceBox(self.box, 0.9, 1)


def frames(count: int, rate_hz: float = 30.0) -> Iterator[FrameEvent]:
    for k in range(count):
        pixels = PICTURES[k % 40].copy()
        yield FrameEvent(
            round(k / rate_hz * 1e9), pixels if k % 3 else pixels.reshape(-1)[: 60 * 80 * 2].reshape(60, 80, 2), "bgr" if k % 3 else "yuyv"
        )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_frames_given_together_are_as_frames_given_one_by_one(bundle: Bundle, data: st.DataObject) -> None:
    rate_hz, hop = data.draw(st.sampled_from([11.0, 30.0, 47.0, 90.0])), data.draw(st.sampled_from([1, 4, 15]))
    given = list(frames(round(2.2 * rate_hz), rate_hz))
    cuts = sorted({0, len(given), *data.draw(st.lists(st.integers(1, len(given)), max_size=12))})
    options: dict[str, Any] = {"precision": "fp32", "hop": hop, "t0_ns": 0, "follow": data.draw(st.sampled_from(["largest", "all"]))}
    outcomes: list[tuple[list[Estimate], list[int], int]] = []
    for together in (False, True):
        finder = Crowd()
        with Session(bundle, faces=finder, hop_thread=together, **options) as session:
            for low, high in itertools.pairwise(cuts):
                group = given[low:high]
                if together:
                    session.push_frames(group)
                else:
                    for event in group:
                        session.push_frame(event.pixels, event.t_ns, event.format)
                first, end = (round(at / rate_hz * 16_000) for at in (low, high))
                session.push_audio(NOISE[first:end], first * 62_500)
            session.finish()
            outcomes.append((session.poll(), finder.asked, session.stages["visual"].count))
    assert outcomes[0][0]
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize(("room", "together", "expected"), [(15, True, [6]), (4, True, [4, 2]), (4, False, [1] * 6)])
def test_frames_that_waited_are_as_few_engine_runs_as_there_is_room_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, room: int, together: bool, expected: list[int]
) -> None:
    monkeypatch.setattr(graphs, "TOGETHER", room)
    given = list(frames(8))
    with Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as session, Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as other:
        assert session._graphs is not None
        assert session._graphs.visual.inputs["faces"].shape[0] == room
        session._encoder._together = together
        session.push_frames(given[:2])
        run, runs = session._graphs.visual.run, []

        def counted(items: int | None = None) -> None:
            assert items is not None
            run(items)
            runs.append(items)

        session._graphs.visual.run = counted  # type: ignore[method-assign]
        session.push_frames(given[2:])
        assert runs == expected, "the newest frame waits for the next"
        assert session.stages["visual"].count == session.stages["crop"].count == 7
        for event in given:
            other.push_frame(event.pixels, event.t_ns, event.format)
        for mine, its in zip(_windows(session), _windows(other), strict=True):
            assert np.array_equal(mine, its)


def test_a_run_that_fails_under_a_hop_leaves_it_its_window(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", faces=Middle(), hop=4, t0_ns=0, hop_thread=True) as session:
        assert session._graphs is not None
        given, begun, going = list(frames(12)), threading.Event(), threading.Event()
        fuse, read = session._graphs.fusion.run, []

        def slowly(items: int | None = None) -> None:
            before = session._graphs.fusion._read["visual"].copy()  # type: ignore[union-attr]
            begun.set()
            going.wait(30)
            read.append(np.array_equal(before, session._graphs.fusion._read["visual"]))  # type: ignore[union-attr]
            fuse(items)

        def fail(items: int | None = None) -> None:
            threading.Timer(0.2, going.set).start()
            raise EngineError("it failed")

        session._graphs.fusion.run = slowly  # type: ignore[method-assign]
        session.push_audio(NOISE[:4000], 0)
        session.push_frames(given[:6])
        assert begun.wait(30)
        session._graphs.visual.run = fail  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="it failed"):
            session.push_frames(given[6:])
        session._hops.rest()
        assert read == [True]


def test_frames_are_let_go_when_the_next_ones_have_come(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as session:
        given = list(frames(12))
        alive = [weakref.ref(event.pixels if event.pixels.base is None else event.pixels.base) for event in given]
        session.push_frames(given[:6])
        session.push_frames(given[6:])
        del given
        assert [at for at, pixels in enumerate(alive) if pixels() is not None] == [11]


def _windows(session: Session) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and mask of the newest window."""
    tracks = session._tracks
    visual, mask = np.empty((1, session.window, tracks._dim), np.float32), np.zeros((1, session.window), np.float32)
    features, _ = tracks.fill(0, visual, mask)
    return features[0].copy(), mask[0]


@pytest.mark.parametrize(("room", "runs"), [(15, 0), (2, 0), (2, 1), (2, 2), (1, 2), (15, None)])
def test_after_an_engine_has_failed_no_tick_holds_what_was_never_encoded(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, room: int, runs: int | None
) -> None:
    monkeypatch.setattr(graphs, "TOGETHER", room)
    given, together = list(frames(20)), runs is not None
    with Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as session, Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as other:
        assert session._graphs is not None
        session.push_frames(given[:6])
        run, left = session._graphs.visual.run, iter([True] * (runs or 0))

        def fail(items: int | None = None) -> None:
            if next(left, False):
                run(items)
            else:
                raise EngineError("it failed")

        session._graphs.visual.run = fail  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="it failed"):
            if together:
                session.push_frames(given[6:12])
            else:
                session.push_frame(given[6].pixels, given[6].t_ns, given[6].format)
        features, mask = _windows(session)
        assert not features.any()
        assert not mask.any()
        session._graphs.visual.run = run  # type: ignore[method-assign]
        session.push_frames(given[12:])
        other.push_frames(given[12:])
        mine, its = _windows(session), _windows(other)
        seen = mine[1] > 0
        assert seen[-7:].all()
        assert np.array_equal(mine[0][-7:], its[0][-7:])
        assert not mine[0][~seen].any()
        session.finish()
        assert session.poll()[-1].face is not None


@pytest.mark.parametrize("where", ["a row", "the wait for the hop"])
def test_ctrl_c_leaves_every_row_at_its_tick(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    given, left = list(frames(20)), iter([True] * 2)
    with Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as session:
        assert session._graphs is not None
        take = session._tracks.take

        def third(floats: int, at: int) -> None:
            if not next(left, False):
                raise KeyboardInterrupt
            take(floats, at)

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        session.push_frames(given[:6])
        with monkeypatch.context() as patch:
            if where == "a row":
                patch.setattr(session._tracks, "take", third)
            else:
                patch.setattr(session._graphs.visual, "run", interrupted)
                patch.setattr(session._encoder, "_rest", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.push_frames(given[6:12])
        session.push_frames(given[12:])
        features, mask = _windows(session)
        assert mask.any()
        assert np.array_equal(features.any(axis=1), mask > 0)


def test_a_session_that_nobody_holds_is_freed_at_once(bundle: Bundle) -> None:
    session = Session(bundle, precision="fp32", faces=Middle(), t0_ns=0)
    session.push_frames(list(frames(6)))
    gone = weakref.ref(session._graphs)
    gc.disable()
    try:
        del session
        assert gone() is None, "its engines wait for the garbage collector"
    finally:
        gc.enable()


@pytest.mark.parametrize("faces", [1, 3])
def test_a_graph_made_for_one_number_of_faces_is_run_for_that(bundle: Bundle, copy_of: Callable[[], Path], faces: int) -> None:
    path, given = copy_of(), list(frames(20))
    for name in ("visual", "fusion"):
        graph = onnx.load(path / graph_path(name, "fp32"))
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = faces
        onnx.save(graph, path / graph_path(name, "fp32"))
    write_manifest(path)
    options: dict[str, Any] = {"precision": "fp32", "t0_ns": 0, "follow": "largest" if faces == 1 else "all", "most_faces": faces}
    outcomes = []
    for each in (Bundle.open(path), bundle):
        with Session(each, faces=Crowd(), **options) as session:
            session.push_frames(given)
            session.push_audio(NOISE[:11_000], 0)
            session.finish()
            outcomes.append(session.poll())
    assert outcomes[0]
    for mine, its in zip(*outcomes, strict=True):
        assert mine.face == its.face
        assert np.allclose(mine.trail, its.trail, atol=1e-5, rtol=0)


def test_a_frame_whose_encoding_has_failed_in_a_hop_is_not_seen_by_the_next(bundle: Bundle) -> None:
    with Session(bundle, precision="fp32", faces=Middle(), hop=1, t0_ns=0) as session:
        assert session._graphs is not None
        run = session._graphs.visual.run

        def fail(items: int | None = None) -> None:
            raise EngineError("it failed")

        session.push_frame(PICTURES[0], 0)
        session._graphs.visual.run = fail  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="it failed"):
            session.advance(TICK(1))
        session._graphs.visual.run = run  # type: ignore[method-assign]
        session.advance(TICK(3))
        estimates = session.poll()
        assert estimates
        assert all(estimate.face is None for estimate in estimates)


def test_a_box_that_cannot_be_cropped_is_one_line(bundle: Bundle) -> None:
    finder = Middle()
    finder.box = (float("nan"), 0.0, 10.0, 10.0)
    with Session(bundle, precision="fp32", faces=finder, t0_ns=0) as session:
        with pytest.raises(NativeError, match=r"crop of box \(nan, .* from a 80x60 yuyv frame: ") as caught:
            session.push_frames(list(frames(3)))
        assert "\n" not in str(caught.value)
        finder.box = Middle.box
        session.push_frames([FrameEvent(TICK(k), PICTURES[k], "rgb") for k in range(3, 9)])
        session.finish()
        assert session.poll()[-1].face is not None


def test_pixels_of_the_wrong_kind_are_refused_before_anything_has_happened(bundle: Bundle) -> None:
    given = list(frames(4))
    with Session(bundle, precision="fp32", faces=Middle(), t0_ns=0) as session:
        with pytest.raises(UsageError, match="rgb pixels are float64"):
            session.push_frames([*given, FrameEvent(TICK(9), np.zeros((4, 4, 3)), "rgb")])  # type: ignore[arg-type]
        session.push_frames(given)
        session.finish()
        (estimate,) = session.poll()
        assert (estimate.drops.frames_stale, session.stages["visual"].count) == (0, 4)
