"""Whole frames through a session: the finder is asked once per frame that a tick takes, and its box decides the crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from feeding import SECOND
from numpy.typing import NDArray

from sage_edge.runtime import Bundle, EngineError, Session, ticks
from sage_edge.runtime.faces import FaceBox

RNG = np.random.default_rng(11)
SMOOTH = np.kron(RNG.integers(30, 220, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)  # 240 x 320


@dataclass
class FixedFinder:
    """A finder that knows where the face is, and remembers what it was asked."""

    box: tuple[float, float, float, float] | None
    asked: list[tuple[tuple[int, ...], str, int]]

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> FaceBox | None:
        self.asked.append((pixels.shape, format, t_ns))
        return None if self.box is None else FaceBox(self.box, 0.9, 3)


def last(bundle: Bundle, finder: FixedFinder | None, pixels: NDArray[np.uint8], format: str = "rgb", face: bool = False) -> object:
    with Session(bundle, precision="fp32", t0_ns=0, faces=finder) as session:
        for k in range(15):
            if face:
                session.push_face(pixels, ticks.tick_time_ns(k))
            else:
                session.push_frame(pixels, ticks.tick_time_ns(k), format)
        session.finish()
        (estimate,) = session.poll()
        return estimate


@pytest.mark.parametrize("box", [(40.0, 30.0, 120.0, 120.0), (12.5, 7.25, 96.5, 96.5), (-30.0, -20.0, 100.0, 100.0)])
def test_box_is_cropped_as_the_whole_crop_would_be(bundle: Bundle, box: tuple[float, float, float, float]) -> None:
    from sage_edge.runtime.native import resize

    finder = FixedFinder(box, [])
    framed = last(bundle, finder, SMOOTH)
    pushed = last(bundle, None, resize(SMOOTH, box, 48), face=True)
    assert framed.face.box == box
    assert (framed.face.track, framed.face.score) == (3, 0.9)
    assert pushed.face.box is None
    # the crop was rounded to bytes once more on one of the two ways
    assert framed.valence == pytest.approx(pushed.valence, abs=2e-3)
    assert framed.arousal == pytest.approx(pushed.arousal, abs=2e-3)
    assert [len(finder.asked), finder.asked[0]] == [15, ((240, 320, 3), "rgb", 0)]
    elsewhere = last(bundle, FixedFinder((150.0, 100.0, 60.0, 60.0), []), SMOOTH)
    assert abs(elsewhere.valence - framed.valence) > 5e-3


def test_every_format(bundle: Bundle) -> None:
    import cv2

    box = (40.0, 20.0, 160.0, 160.0)
    rgb = last(bundle, FixedFinder(box, []), SMOOTH)
    assert last(bundle, FixedFinder(box, []), np.ascontiguousarray(SMOOTH[..., ::-1]), "bgr").valence == rgb.valence
    assert last(bundle, FixedFinder(box, []), SMOOTH[..., ::-1], "bgr").valence == rgb.valence
    i420 = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_I420)
    u, v = i420[240:].reshape(2, 120, 160)
    nv12 = np.concatenate([i420[:240], np.stack([u, v], -1).reshape(120, 320)])
    yuyv = np.stack([nv12[:240], nv12[240:].reshape(120, 160, 2).repeat(2, 0).reshape(240, 320)], -1)
    for pixels, format in ((nv12, "nv12"), (yuyv, "yuyv")):
        assert last(bundle, FixedFinder(box, []), pixels, format).valence == pytest.approx(rgb.valence, abs=1e-2)


def test_no_face_in_the_frame(bundle: Bundle) -> None:
    estimate = last(bundle, FixedFinder(None, []), SMOOTH)
    assert estimate.face is None
    assert estimate.age_ms is None


def test_only_frames_that_a_tick_takes_are_searched(bundle: Bundle) -> None:
    finder = FixedFinder((10.0, 10.0, 50.0, 50.0), [])
    with Session(bundle, precision="fp32", t0_ns=0, faces=finder) as session:
        for k in range(120):
            session.push_frame(SMOOTH, k * SECOND // 120)
        session.finish()
    taken = [t_ns for _, _, t_ns in finder.asked]
    assert len(taken) == pytest.approx(30, abs=1)
    assert taken == sorted(set(taken))
    assert session.stages.summary()["find"].count == session.stages.summary()["crop"].count == len(taken)


def test_built_in_finder_sees_no_face_in_blocks(bundle: Bundle) -> None:
    estimate = last(bundle, None, SMOOTH)
    assert estimate.face is None


def test_not_finite_outputs_are_an_error_that_names_the_graph(bundle: Bundle) -> None:
    for graph in ("visual", "audio", "fusion"):
        with Session(bundle, precision="fp32", t0_ns=0) as session:
            session.push_face(np.full((48, 48, 3), 9, np.uint8), 0)
            assert session._graphs is not None
            engine = getattr(session._graphs, graph)
            run = engine.run

            def overflow(items=None, run=run, engine=engine) -> None:
                run(items)
                for array in engine.outputs.values():
                    array[0].flat[-1] = np.inf

            engine.run = overflow
            session.push_audio(np.ones(9000, np.float32), 0)
            with pytest.raises(EngineError, match=f"the {graph} graph in fp32 left .* non-finite"):
                session.finish()
            assert session.poll() == []
