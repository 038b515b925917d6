"""crop and resize equal their NumPy twins, for every format, box and layout; wrong use is refused in one line."""

from __future__ import annotations

import ctypes
import threading

import native_twins as twins
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage_edge.runtime import native
from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native.library import Box, load

FORMATS = list(native.FORMATS)


def frame(format: str, width: int, height: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    shape = {"rgb": (height, width, 3), "bgr": (height, width, 3), "nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}[format]
    return rng.integers(0, 256, shape, dtype=np.uint8)


def cropped(pixels: native.Pixels, box: tuple[float, float, float, float], width: int, height: int, format: str) -> NDArray[np.float32]:
    out = np.full((3, height, width), np.nan, np.float32)
    native.crop(pixels, box, out, twins.MEAN, twins.STD, format)
    return out


def relative(a: NDArray[np.float32], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@settings(max_examples=150, deadline=None)
@given(
    format=st.sampled_from(FORMATS),
    half=st.tuples(st.integers(1, 70), st.integers(1, 50)),
    place=st.tuples(st.floats(-0.6, 1.4), st.floats(-0.6, 1.4)),
    size=st.tuples(st.floats(0.01, 2.0), st.floats(0.01, 2.0)),
    out=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    whole=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_crop_is_its_twin(
    format: str,
    half: tuple[int, int],
    place: tuple[float, float],
    size: tuple[float, float],
    out: tuple[int, int],
    whole: bool,
    seed: int,
) -> None:
    width, height = 2 * half[0], 2 * half[1]
    pixels = frame(format, width, height, seed)
    box = (place[0] * width, place[1] * height, size[0] * width, size[1] * height)
    if whole:
        box = (float(round(box[0])), float(round(box[1])), float(max(round(box[2]), 1)), float(max(round(box[3]), 1)))
    error = relative(cropped(pixels, box, *out, format), twins.crop(pixels, box, *out, format))
    assert error <= 1e-6, f"relative difference {error:.2e} for {format} {width}x{height}, box {box} -> {out}"


def test_a_cropper_gives_what_crop_gives_whatever_frames_come() -> None:
    rng = np.random.default_rng(0)
    out, like = np.empty((3, 9, 7), np.float32), np.empty((3, 9, 7), np.float32)
    cropper = native.Cropper(out, twins.MEAN, twins.STD)
    for turn in range(400):
        format = FORMATS[turn // 7 % 4]
        width, height = (2 * int(side) for side in rng.integers(2, 6, 2))
        pixels = frame(format, width, height, turn)
        lies = turn % 5
        if lies == 1:
            pixels.flags.writeable = False
        elif lies == 2:  # rows with something behind them
            pixels = np.concatenate((pixels, pixels), axis=1)[:, :width]
        elif lies == 3:
            pixels = np.asfortranarray(pixels)
        box = (*rng.uniform(-4, 8, 2).tolist(), *rng.uniform(1, 20, 2).tolist())
        cropper(pixels, box, format)
        native.crop(pixels, box, like, twins.MEAN, twins.STD, format)
        np.testing.assert_array_equal(out, like)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("side", "size"), [(120, 48), (200, 48), (333, 48), (400, 112), (96, 48), (30, 40), (719, 1)])
def test_faces_of_720p_frames(format: str, side: int, size: int) -> None:
    pixels = frame(format, 1280, 720, side)
    for x, y in ((311.0, 1.0), (200.37, 0.625), (-side / 3, 719 - side / 2)):
        box = (x, y, float(side), float(side))
        error = relative(cropped(pixels, box, size, size, format), twins.crop(pixels, box, size, size, format))
        assert error <= 1e-6, f"relative difference {error:.2e} at box {box} -> {size}"


def test_every_instruction_set_agrees() -> None:
    pixels = frame("rgb", 640, 480, 3)
    image, _alive = native._image(pixels, "rgb")
    norm = native._norm(twins.MEAN, twins.STD)
    found = [bit for bit in (1, 2, 4) if load().sage_crop_variants() & bit]
    assert 1 in found
    for box in ((100.5, 50.25, 333, 333), (10, 10, 96, 96), (600, 400, 100, 20.5), (5, 5, 7, 7)):
        results = []
        for bit in found:
            out = np.empty((3, 48, 48), np.float32)
            assert load().sage_crop_with(bit, image, Box(*box), norm, out.ctypes.data, 48, 48) == 0
            results.append(out)
        for other in results[1:]:
            assert relative(other, results[0].astype(np.float64)) <= 1e-6


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(FORMATS),
    place=st.tuples(st.floats(-30, 90), st.floats(-30, 60)),
    side=st.floats(1, 120),
    size=st.integers(1, 48),
    seed=st.integers(0, 1000),
)
def test_resize_rounds_the_same_average(format: str, place: tuple[float, float], side: float, size: int, seed: int) -> None:
    pixels = frame(format, 96, 64, seed)
    exact = twins.mean_colours(pixels, (*place, side, side), size, size, format)
    found = native.resize(pixels, (*place, side, side), size, format)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
    assert np.array_equal(found[clear], np.floor(exact + 0.5)[clear])
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6, 10])
def test_resize_is_exact_on_whole_cells(factor: int) -> None:
    pixels = frame("rgb", 12 * factor, 12 * factor, factor) % 4
    sums = pixels.reshape(12, factor, 12, factor, 3).astype(int).sum(axis=(1, 3))
    expected = (2 * sums + factor * factor) // (2 * factor * factor)  # half up, in integers
    assert np.array_equal(native.resize(pixels, (0, 0, 12 * factor, 12 * factor), 12), expected)


def test_crop_then_store_or_store_then_crop() -> None:
    """The inner 40 / 48 of a box cropped to 40 is the centre of that box resized to 48: one pixel pitch for training and run time."""
    pixels = frame("bgr", 640, 360, 8)
    x, y, side = 101.5, 40.25, 187.0
    store = native.resize(pixels, (x, y, side, side), 48, "bgr")[4:44, 4:44]
    inner = (x + side * 4 / 48, y + side * 4 / 48, side * 40 / 48, side * 40 / 48)
    out = np.empty((3, 40, 40), np.float32)
    native.crop(pixels, inner, out, (0, 0, 0), (1 / 255,) * 3, "bgr")
    assert np.abs(out.transpose(1, 2, 0) - store).max() <= 0.5 + 1e-3


def test_layouts_are_read_as_they_lie() -> None:
    """Strided rows, a pair of planes, and what cannot be read in place all give the plain frame's crop."""
    box = (3.5, 2.25, 40.0, 30.0)
    for format in FORMATS:
        pixels = frame(format, 64, 48, 4)
        plain = cropped(pixels, box, 9, 9, format)
        wide = np.zeros((pixels.shape[0], pixels.shape[1] + 6, *pixels.shape[2:]), np.uint8)
        wide[:, 4:-2] = pixels
        assert np.array_equal(cropped(wide[:, 4:-2], box, 9, 9, format), plain)
        assert np.array_equal(cropped(np.asfortranarray(pixels), box, 9, 9, format), plain)
        assert np.array_equal(cropped(np.ascontiguousarray(pixels[::-1])[::-1], box, 9, 9, format), plain)
    pixels = frame("nv12", 64, 48, 4)
    plain = cropped(pixels, box, 9, 9, "nv12")
    assert np.array_equal(cropped((pixels[:48], pixels[48:]), box, 9, 9, "nv12"), plain)
    assert np.array_equal(cropped((pixels[:48], pixels[48:].reshape(24, 32, 2)), box, 9, 9, "nv12"), plain)


def test_nv12_and_yuyv_look_like_opencv() -> None:
    """An independent conversion: OpenCV's, which rounds each pixel; smooth colours well inside the range, so that nothing clips."""
    import cv2

    rng = np.random.default_rng(2)
    bgr = cv2.resize(rng.integers(60, 190, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    i420 = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    nv12 = np.vstack([i420[:48], np.stack([i420[48:60].reshape(24, 32), i420[60:].reshape(24, 32)], -1).reshape(24, 64)])
    yuyv = np.empty((48, 64, 2), np.uint8)
    yuyv[..., 0] = i420[:48]
    yuyv[:, 0::2, 1] = i420[48:60].reshape(24, 32).repeat(2, axis=0)
    yuyv[:, 1::2, 1] = i420[60:].reshape(24, 32).repeat(2, axis=0)
    expected = native.resize(cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12), (0, 0, 64, 48), 12).astype(int)
    assert np.abs(native.resize(nv12, (0, 0, 64, 48), 12, "nv12") - expected).max() <= 1
    expected = native.resize(cv2.cvtColor(yuyv, cv2.COLOR_YUV2RGB_YUY2), (0, 0, 64, 48), 12).astype(int)
    assert np.abs(native.resize(yuyv, (0, 0, 64, 48), 12, "yuyv") - expected).max() <= 1


def test_threads_do_not_meet() -> None:
    pixels = frame("rgb", 320, 240, 6)
    boxes = [(float(k), k / 3, 100 + k, 120.5 + k) for k in range(8)]
    expected = [cropped(pixels, box, 40, 40, "rgb") for box in boxes]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(200):
            if not np.array_equal(cropped(pixels, boxes[k], 40, 40, "rgb"), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _refusals() -> list[tuple[str, tuple[object, ...], str]]:
    good, out = np.zeros((8, 8, 3), np.uint8), np.zeros((3, 4, 4), np.float32)
    box = (0, 0, 8, 8)
    return [
        ("unknown format", (good, box, out, "rgba"), "unknown pixel format 'rgba'"),
        ("float pixels", (good.astype(np.float32), box, out, "rgb"), "expected uint8"),
        ("grey", (good[..., 0], box, out, "rgb"), "expected uint8"),
        ("odd nv12", (np.zeros((10, 8), np.uint8), box, out, "nv12"), "H even"),
        ("odd yuyv", (np.zeros((8, 7, 2), np.uint8), box, out, "yuyv"), "SAGE_E_SIZE"),
        ("chroma of another frame", ((np.zeros((8, 8), np.uint8), np.zeros((4, 6), np.uint8)), box, out, "nv12"), "UV plane"),
        ("planes of rgb", ((good, good), box, out, "rgb"), "planes"),
        ("empty frame", (good[:0], box, out, "rgb"), "SAGE_E_SIZE"),
        ("empty box", (good, (0, 0, 0, 8), out, "rgb"), "SAGE_E_BOX"),
        ("box of nan", (good, (float("nan"), 0, 8, 8), out, "rgb"), "SAGE_E_BOX"),
        ("float64 out", (good, box, out.astype(np.float64), "rgb"), "crop into float64"),
        ("strided out", (good, box, np.zeros((3, 4, 8), np.float32)[..., ::2], "rgb"), "C-contiguous"),
        ("four channels", (good, box, np.zeros((4, 4, 4), np.float32), "rgb"), "[3, h, w]"),
    ]


@pytest.mark.parametrize(("what", "arguments", "says"), _refusals(), ids=[case[0] for case in _refusals()])
def test_wrong_use_is_one_line(what: str, arguments: tuple[object, ...], says: str) -> None:
    pixels, box, out, format = arguments
    with pytest.raises(NativeError) as caught:
        native.crop(pixels, box, out, twins.MEAN, twins.STD, format)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_norm_and_size() -> None:
    pixels, out = np.zeros((8, 8, 3), np.uint8), np.zeros((3, 4, 4), np.float32)
    with pytest.raises(NativeError, match="SAGE_E_NORM") as caught:
        native.crop(pixels, (0, 0, 8, 8), out, twins.MEAN, (0.2, 0.0, 0.2))
    assert caught.value.code == -5
    with pytest.raises(NativeError, match="three values"):
        native.crop(pixels, (0, 0, 8, 8), out, (0.5,), twins.STD)
    with pytest.raises(NativeError, match="expected 1 to 32768"):
        native.resize(pixels, (0, 0, 8, 8), 0)
    out.flags.writeable = False
    with pytest.raises(NativeError, match="writeable"):
        native.crop(pixels, (0, 0, 8, 8), out, twins.MEAN, twins.STD)


def test_no_copy_of_a_frame_that_can_be_read() -> None:
    pixels = frame("rgb", 64, 48, 1)
    image, _alive = native._image(pixels[2:, 3:], "rgb")
    assert image.data == pixels[2:, 3:].ctypes.data
    assert image.stride == 64 * 3
    assert ctypes.sizeof(image) == 48
