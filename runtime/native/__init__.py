"""libsage through ctypes: face crop, audio ring and capture, clock, frame slot, histogram, feature window. `include/sage.h` is the manual.

Pixels: uint8, rows may be strided, what is inside a row may not. `rgb`, `bgr` [H, W, 3]; `nv12` [H * 3 / 2, W] (Y rows, then UV rows)
or a pair (Y [H, W], UV [H / 2, W]); `yuyv` [H, W, 2]. Boxes: (x, y, width, height) in pixels, real numbers, may leave the frame.
Samples: float32 mono, addressed by their absolute index. Every failure is a `NativeError`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native.capture import INPUT_OVERFLOW, INPUT_UNDERFLOW, AudioCapture, CaptureStats, ClockFit, SampleClock
from sage_edge.runtime.native.handle import Handle, address, check
from sage_edge.runtime.native.histogram import LatencyHistogram
from sage_edge.runtime.native.library import Box, Image, Norm, load
from sage_edge.runtime.native.slot import FrameSlot, NewestFrame

__all__ = [
    "INPUT_OVERFLOW",
    "INPUT_UNDERFLOW",
    "AudioCapture",
    "AudioRing",
    "CaptureStats",
    "ClockFit",
    "Cropper",
    "FeatureWindow",
    "FrameSlot",
    "LatencyHistogram",
    "NewestFrame",
    "SampleClock",
    "crop",
    "resize",
]

FORMATS = {"rgb": 0, "bgr": 1, "nv12": 2, "yuyv": 3}
Pixels = NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.uint8]]
Rectangle = Sequence[float]


def _rows(array: NDArray[np.uint8], pixel: int, what: str) -> NDArray[np.uint8]:
    """`array` [H, W] or [H, W, pixel] if libsage can read it as it lies, else the NativeError that says what is wrong."""
    shape, strides = array.shape, array.strides
    if array.dtype != np.uint8 or (array.ndim != 2 if pixel == 1 else array.ndim != 3 or shape[2] != pixel):
        raise NativeError(f"{what} of shape {shape}, {array.dtype}: expected uint8 {'[H, W]' if pixel == 1 else f'[H, W, {pixel}]'}")
    if strides[1] == pixel and strides[-1] == 1 and strides[0] >= shape[1] * pixel:
        return array
    return np.ascontiguousarray(array)


def _image(pixels: Pixels, format: str) -> tuple[Image, object]:
    """The C view of `pixels`, and what must stay alive while it is used."""
    kind = FORMATS.get(format)
    if kind is None:
        raise NativeError(f"unknown pixel format {format!r}: one of {', '.join(FORMATS)}", -3)
    if kind == 2:
        if isinstance(pixels, tuple):
            luma, chroma = pixels
            chroma = chroma.reshape(chroma.shape[0], -1) if chroma.ndim == 3 else chroma
        else:
            height = pixels.shape[0] * 2 // 3
            if pixels.shape[0] % 3:
                raise NativeError(f"nv12 frame of shape {pixels.shape}: expected [H * 3 / 2, W] with H even, or a pair (Y, UV)", -2)
            luma, chroma = pixels[:height], pixels[height:]
        luma, chroma = _rows(luma, 1, "nv12 Y plane"), _rows(chroma, 1, "nv12 UV plane")
        height, width = luma.shape
        if chroma.shape != (height // 2, width):
            raise NativeError(f"nv12 UV plane of shape {chroma.shape} with a Y plane of {luma.shape}: expected {(height // 2, width)}", -2)
        return Image(address(luma), address(chroma), luma.strides[0], chroma.strides[0], width, height, kind), (luma, chroma)
    if isinstance(pixels, tuple):
        raise NativeError(f"{format} frame given as {len(pixels)} planes: expected one array")
    array = _rows(pixels, 2 if kind == 3 else 3, f"{format} frame")
    return Image(address(array), None, array.strides[0], 0, array.shape[1], array.shape[0], kind), array


@lru_cache(maxsize=32)
def _norm(mean: tuple[float, ...], std: tuple[float, ...]) -> Norm:
    if len(mean) != 3 or len(std) != 3:
        raise NativeError(f"mean {mean} and std {std}: expected three values each, in the order R, G, B", -5)
    return Norm((ctypes.c_float * 3)(*mean), (ctypes.c_float * 3)(*std))


def crop(pixels: Pixels, box: Rectangle, out: NDArray[np.float32], mean: Sequence[float], std: Sequence[float], format: str = "rgb") -> None:
    """Average `box` of a frame into `out`: float32 [3, h, w] C-contiguous, RGB planar, (level / 255 - mean) / std.

    The mean of each of the w x h equal cells of the box is exact (within 1e-6) for any real box, larger or smaller than the output; outside
    the frame the nearest edge pixel continues. `mean`, `std`: of values in 0 .. 1, in the order R, G, B. Thread-safe; raises NativeError.
    """
    image, _alive = _image(pixels, format)
    _check_out(out)
    x, y, width, height = box
    code = load().sage_crop(image, Box(x, y, width, height), _norm(tuple(mean), tuple(std)), address(out), out.shape[2], out.shape[1])
    if code:
        check(code, f"crop of box {tuple(box)} from a {image.width}x{image.height} {format} frame")


class Cropper:
    """`crop` of one frame after another into the same array: what stays the same is looked at once. For one thread at a time."""

    def __init__(self, out: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> None:
        self._out = _check_out(out)
        self._like: object = None  # format, shape, strides and type of the frames that _image describes
        self._image, box, self._norm = Image(), Box(), _norm(tuple(mean), tuple(std))
        # single numbers are written faster there
        self._box, self._places = memoryview(box).cast("B").cast("d"), memoryview(self._image).cast("B").cast("q")
        self._chroma: int | None = None  # how far behind the luma it lies, where there is any
        # without declared arguments, and with ctypes' own: nothing to convert, which would take as long as a small crop
        function = load()["sage_crop"]
        function.restype = ctypes.c_int32
        references = (ctypes.byref(each) for each in (self._image, box, self._norm))
        sides = ctypes.c_int32(out.shape[2]), ctypes.c_int32(out.shape[1])
        self._call: Callable[[], int] = partial(function, *references, ctypes.c_void_p(address(out)), *sides)

    def __call__(self, pixels: NDArray[np.uint8], box: Rectangle, format: str) -> None:
        """As `crop`. Raises NativeError."""
        image, here, places = self._image, self._box, self._places
        here[0], here[1], here[2], here[3] = box
        like, alive = (format, pixels.shape, pixels.strides, pixels.dtype), None
        if like == self._like:
            places[0] = data = address(pixels)
            if self._chroma is not None:
                places[1] = data + self._chroma
        else:
            found, alive = _image(pixels, format)
            ctypes.pointer(image)[0] = found
            self._like = like if _as_it_lies(found, pixels) else None
            self._chroma = found.chroma - found.data if found.chroma else None
        code = self._call()
        if code:
            check(code, f"crop of box {tuple(box)} from a {image.width}x{image.height} {format} frame")
        del alive


def _as_it_lies(image: Image, pixels: NDArray[np.uint8]) -> bool:
    """Whether `image` is of `pixels` themselves, not of a copy that libsage can read."""
    return bool(image.data == address(pixels))


def _check_out(out: NDArray[np.float32]) -> NDArray[np.float32]:
    if out.dtype != np.float32 or out.ndim != 3 or out.shape[0] != 3 or not out.flags.c_contiguous or not out.flags.writeable:
        raise NativeError(f"crop into {out.dtype} {out.shape}: expected writeable C-contiguous float32 [3, h, w]")
    return out


def resize(pixels: Pixels, box: Rectangle, size: int, format: str = "rgb") -> NDArray[np.uint8]:
    """The same average as uint8 RGB [size, size, 3], rounded half up. Thread-safe; raises NativeError."""
    image, _alive = _image(pixels, format)
    if not 1 <= size <= 32768:
        raise NativeError(f"resize to {size} pixels: expected 1 to 32768", -2)
    out = np.empty((size, size, 3), np.uint8)
    x, y, width, height = box
    code = load().sage_resize(image, Box(x, y, width, height), address(out), size, size)
    check(code, f"resize of box {tuple(box)} from a {image.width}x{image.height} {format} frame")
    return out


class AudioRing:
    """The newest `capacity` samples of a stream, by absolute index. One thread may push while one other reads; neither waits.

    A push overwrites the oldest samples; samples that the reader has not asked for by then are an overrun, which `push` counts.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._handle = Handle("sage_ring_create", "sage_ring_destroy", capacity)
        self._pointer = self._handle.pointer

    def push(self, samples: NDArray[np.float32]) -> int:
        """Append float32 [n]; returns how many unread samples were lost by it."""
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise NativeError(f"push of samples {samples.dtype} {samples.shape}: expected float32 [n]")
        samples = np.ascontiguousarray(samples)
        return check(load().sage_ring_push(self._pointer, address(samples), len(samples)), "push of samples")

    def skip(self, n: int) -> int:
        """Append `n` zeros; returns how many unread samples were lost by it."""
        return check(load().sage_ring_push(self._pointer, None, n), f"skip of {n} samples")

    def read(self, start: int, out: NDArray[np.float32]) -> int:
        """Copy samples start .. start + n - 1 to `out` float32 [n]; what the ring does not hold is zero. Returns how many it held.

        `start` may be negative. Everything pushed so far and before start + n then counts as read.
        """
        if out.dtype != np.float32 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
            raise NativeError(f"read into {out.dtype} {out.shape}: expected writeable C-contiguous float32 [n]")
        return check(load().sage_ring_read(self._pointer, start, address(out), len(out)), f"read of samples from {start}")

    @property
    def written(self) -> int:
        """Samples pushed so far: the index of the next one."""
        return check(load().sage_ring_written(self._pointer), "samples written")


class FeatureWindow:
    """The newest `rows` rows of float32 [dim], always one contiguous block, oldest first; rows not yet pushed are zeros.

    Views stay valid memory for ever but change with the next row. For one thread at a time.
    """

    def __init__(self, rows: int, dim: int) -> None:
        self.rows, self.dim = rows, dim
        self._handle = Handle("sage_window_create", "sage_window_destroy", rows, dim)
        self._pointer = self._handle.pointer
        memory = (ctypes.c_float * (2 * rows * dim)).from_address(load().sage_window_buffer(self._pointer))
        memory._handle = self._handle  # type: ignore[attr-defined]
        self._buffer: NDArray[np.float32] = np.ctypeslib.as_array(memory).reshape(2 * rows, dim)

    def push(self, row: NDArray[np.float32]) -> None:
        """Append one row, float32 [dim]."""
        if row.dtype != np.float32 or row.size != self.dim or not row.flags.c_contiguous:
            raise NativeError(f"row of {row.dtype} {row.shape}: expected C-contiguous float32 of {self.dim} elements")
        check(load().sage_window_push(self._pointer, address(row), self.dim), "push of a row")

    def push_from(self, source: NDArray[np.float32]) -> Callable[[int, int], None]:
        """What appends one row at each call: `push(n, at)` takes `n` floats of what is in `source` then, float32 [items, width], from item `at` on,
        and zeros."""
        if source.dtype != np.float32 or source.ndim != 2 or not source.flags.c_contiguous:
            raise NativeError(f"rows from {source.dtype} {source.shape}: expected C-contiguous float32 [items, width]")
        items, width = source.shape
        # without declared arguments, as in Cropper
        call: Callable[[ctypes.c_void_p, int], int] = partial(load()["sage_window_push"], self._pointer)
        places = [ctypes.c_void_p(address(source) + 4 * width * item) for item in range(items)]

        def push(n: int, at: int, alive: object = (self._handle, source)) -> None:
            if not 0 <= at < items or n > (items - at) * width:
                raise NativeError(f"push of {n} floats from item {at} of {items}, {width} wide each: there are no such")
            if code := call(places[at], n):
                check(code, f"push of {n} floats to a window of {self.dim} wide rows")

        return push

    def skip(self, n: int = 1) -> None:
        """Append `n` rows of zeros."""
        check(load().sage_window_skip(self._pointer, n), f"skip of {n} rows")

    def view(self) -> NDArray[np.float32]:
        """The newest rows, float32 [rows, dim], without a copy."""
        start = load().sage_window_start(self._pointer)
        return self._buffer[start : start + self.rows]
