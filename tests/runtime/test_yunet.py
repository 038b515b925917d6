"""YuNet by file: OpenCV runs a network of its form, whose faces are red squares."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from red_faces import HEIGHT, make_yunet

from sage_edge.runtime import Bundle, Session, UsageError, ticks
from sage_edge.runtime.crowd import CrowdFinder
from sage_edge.runtime.faces import FaceFinder
from sage_edge.runtime.finders import open_finder

FRAME_NS = 33_333_333


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"yunet:{make_yunet(tmp_path_factory.mktemp('yunet') / 'red.onnx')}"


def picture(*corners: tuple[int, int], size: tuple[int, int] = (640, 480), side: int = 64) -> NDArray[np.uint8]:
    """Light gray with red squares at these left upper corners, in RGB."""
    pixels = np.full((size[1], size[0], 3), 200, np.uint8)
    for x, y in corners:
        pixels[y : y + side, x : x + side] = (255, 0, 0)
    return pixels


def test_a_face_is_found_where_it_is_in_every_format(spec: str) -> None:
    rgb = picture((256, 192))
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    u, v = i420[480:].reshape(2, 240, 320)
    nv12 = np.concatenate([i420[:480], np.stack([u, v], -1).reshape(240, 640)])
    for pixels, format in ((rgb, "rgb"), (np.ascontiguousarray(rgb[..., ::-1]), "bgr"), (nv12, "nv12")):
        finder = open_finder(spec, 0.25)
        assert isinstance(finder, FaceFinder)
        found = finder.find(pixels, format, 0)
        assert found is not None
        x, y, width, height = found.box
        assert (x + width / 2, y + height / 2) == pytest.approx((288, 224), abs=1)
        assert width == height == pytest.approx(2 * HEIGHT * 1.25, rel=0.01), "the longer side of its box, and the margin"
        assert found.score > 0.9


def test_it_is_followed_between_its_searches_and_lost_when_it_is_gone(spec: str) -> None:
    finder = open_finder(spec, 0.0)
    assert isinstance(finder, FaceFinder)
    for i in range(20):
        found = finder.find(picture((256 + 2 * i, 192 + i)), "rgb", i * FRAME_NS)
        assert found is not None
        assert found.track == 1
        assert found.box[0] + found.box[2] / 2 == pytest.approx(288 + 2 * i, abs=24), "within the square; this network knows places by its cells only"
    assert [finder.find(picture(), "rgb", i * FRAME_NS) for i in range(20, 30)][-5:] == [None] * 5


def test_each_of_several_has_a_track(spec: str) -> None:
    finder = open_finder(spec, 0.0, most=4)
    assert isinstance(finder, CrowdFinder)
    for i in range(12):
        found = finder.find_all(picture((64 + 2 * i, 64), (384 - 2 * i, 320)), "rgb", i * FRAME_NS)
        centres = {face.track: round(face.box[0] + face.box[2] / 2) for face in found}
        assert len(centres) == 2
        assert sorted(centres.values()) == pytest.approx([96 + 2 * i, 416 - 2 * i], abs=16)
    assert set(centres) == {1, 2}


def test_a_tall_picture_is_searched_to_its_end(spec: str) -> None:
    finder = open_finder(spec, 0.0)
    found = finder.find(picture((128, 512), size=(240, 640)), "rgb", 0)  # type: ignore[union-attr]
    assert found is not None
    assert found.box[1] + found.box[3] / 2 == pytest.approx(544, abs=1)


def test_a_session_reads_what_it_finds(spec: str, bundle: Bundle) -> None:
    finder = open_finder(spec, bundle.manifest.face.margin, most=3)
    with Session(bundle, precision="fp32", t0_ns=0, follow="all", most_faces=3, faces=finder) as session:
        for k in range(15):
            session.push_frame(picture((64, 64), (384, 320)), ticks.tick_time_ns(k))
        session.finish()
        estimates = session.poll()
    assert sorted(e.face.track for e in estimates if e.face) == [1, 2]


def test_wrong_files_and_specs_are_one_line(spec: str, bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "empty.onnx").write_bytes(b"")
    graphs = [bundle.graph(graph, "fp32") for graph in ("visual", "audio", "fusion")]
    for file in (tmp_path / "text.onnx", tmp_path / "empty.onnx", *graphs):
        with pytest.raises(UsageError, match=r"is no YuNet face detector .*; get face_detection_yunet_2023mar\.onnx") as caught:
            open_finder(f"yunet:{file}", 0.25)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    for wrong, words in (
        (f"yunet:{tmp_path}/none.onnx", "none.onnx is no file; get face_detection_yunet"),
        (f"yunet:{tmp_path}", "is no file"),
        ("yunet", "names no file; write yunet:FILE"),
        ("yunet:", "names no file; write yunet:FILE"),
        ("yunnet:x", "did you mean yunet:FILE"),
        ("haar", "one of cascade, yunet:FILE"),
        ("cascade:x.xml", "takes no file"),
    ):
        with pytest.raises(UsageError) as caught:
            open_finder(wrong, 0.25)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "OpenCV's own lines are kept back"
    assert type(open_finder(None, 0.25)) is type(open_finder("cascade", 0.25)) is FaceFinder
