"""Find libsage, check that it fits, and declare its functions: the C side of the binding, as ctypes sees it.

The library lies beside this file in a wheel and after `make native`; an editable install puts it into site-packages, where the
package's other search locations lead.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path

from sage_edge.runtime.errors import NativeError

ABI_VERSION = 4
NAME = "libsage.dylib" if sys.platform == "darwin" else "libsage.so"


class Image(ctypes.Structure):
    """sage_image: `data` and `chroma` are addresses, strides are in bytes."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("chroma_stride", ctypes.c_int64),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("format", ctypes.c_int32),
    )


class Box(ctypes.Structure):
    """sage_box, in pixels."""

    _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_double), ("width", ctypes.c_double), ("height", ctypes.c_double))


class Norm(ctypes.Structure):
    """sage_norm, in the order R, G, B."""

    _fields_ = (("mean", ctypes.c_float * 3), ("std", ctypes.c_float * 3))


class ClockState(ctypes.Structure):
    """sage_clock_state."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("since", "resets", "settled", "known", "drift_ppb"))


class HistogramTotals(ctypes.Structure):
    """sage_histogram_totals."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("count", "total_ns", "max_ns"))


class CaptureStatistics(ctypes.Structure):
    """sage_capture_statistics."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("calls", "samples", "overruns", "input_overflows", "input_underflows")),
        *((name, ctypes.c_int64) for name in ("last_call_ns", "longest_gap_ns", "lateness_p50_ns", "lateness_p99_ns")),
    )


class SlotFrame(ctypes.Structure):
    """sage_slot_frame: `data` is an address."""

    _fields_ = (("data", ctypes.c_void_p), ("t_ns", ctypes.c_int64), ("tag", ctypes.c_int64), ("replaced", ctypes.c_int64))


_HANDLE, _I32, _I64, _ADDRESS = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
_OUT = ctypes.POINTER(ctypes.c_void_p)
_OUT_I64, _OUT_DOUBLE = ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double)
_STATE, _TOTALS, _STATISTICS, _FRAME = map(ctypes.POINTER, (ClockState, HistogramTotals, CaptureStatistics, SlotFrame))
_IMAGE, _BOX, _NORM = ctypes.POINTER(Image), ctypes.POINTER(Box), ctypes.POINTER(Norm)
_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "sage_strerror": (ctypes.c_char_p, (_I32,)),
    "sage_ring_create": (_I32, (_I64, _OUT)),
    "sage_ring_destroy": (None, (_HANDLE,)),
    "sage_ring_push": (_I64, (_HANDLE, _ADDRESS, _I64)),
    "sage_ring_read": (_I64, (_HANDLE, _I64, _ADDRESS, _I64)),
    "sage_ring_written": (_I64, (_HANDLE,)),
    "sage_clock_create": (_I32, (_I32, _OUT)),
    "sage_clock_destroy": (None, (_HANDLE,)),
    "sage_clock_add": (_I32, (_HANDLE, _I64, _I64)),
    "sage_clock_time": (_I32, (_HANDLE, _I64, _OUT_I64)),
    "sage_clock_read": (_I32, (_HANDLE, _STATE)),
    "sage_histogram_create": (_I32, (_OUT,)),
    "sage_histogram_destroy": (None, (_HANDLE,)),
    "sage_histogram_add": (_I32, (_HANDLE, _I64)),
    "sage_histogram_clear": (_I32, (_HANDLE,)),
    "sage_histogram_read": (_I32, (_HANDLE, _TOTALS)),
    "sage_histogram_percentile": (_I32, (_HANDLE, ctypes.c_double, _OUT_DOUBLE)),
    "sage_percentiles": (_I32, (_ADDRESS, _ADDRESS, _I64, _OUT_DOUBLE, _I32, _OUT_DOUBLE)),
    "sage_capture_create": (_I32, (_I32, _I32, _I32, _I64, _OUT)),
    "sage_capture_destroy": (None, (_HANDLE,)),
    "sage_capture_callback": (ctypes.c_int, (_ADDRESS, _ADDRESS, ctypes.c_ulong, _ADDRESS, ctypes.c_ulong, _HANDLE)),
    "sage_capture_feed": (_I64, (_HANDLE, _ADDRESS, _I64, ctypes.c_uint64, _I64)),
    "sage_capture_read": (_I64, (_HANDLE, _I64, _ADDRESS, _I64)),
    "sage_capture_written": (_I64, (_HANDLE,)),
    "sage_capture_time": (_I32, (_HANDLE, _I64, _OUT_I64)),
    "sage_capture_clock": (_I32, (_HANDLE, _STATE)),
    "sage_capture_stats": (_I32, (_HANDLE, _STATISTICS)),
    "sage_slot_create": (_I32, (_I64, _OUT)),
    "sage_slot_destroy": (None, (_HANDLE,)),
    "sage_slot_begin": (_ADDRESS, (_HANDLE,)),
    "sage_slot_commit": (_I32, (_HANDLE, _I64, _I64)),
    "sage_slot_take": (_I32, (_HANDLE, _FRAME)),
    "sage_window_create": (_I32, (_I32, _I32, _OUT)),
    "sage_window_destroy": (None, (_HANDLE,)),
    "sage_window_buffer": (_ADDRESS, (_HANDLE,)),
    "sage_window_start": (_I32, (_HANDLE,)),
    "sage_window_slot": (_I32, (_HANDLE,)),
    "sage_window_commit": (_I32, (_HANDLE,)),
    "sage_window_push": (_I32, (_HANDLE, _ADDRESS, _I32)),
    "sage_window_skip": (_I32, (_HANDLE, _I64)),
    "sage_crop": (_I32, (_IMAGE, _BOX, _NORM, _ADDRESS, _I32, _I32)),
    "sage_resize": (_I32, (_IMAGE, _BOX, _ADDRESS, _I32, _I32)),
    "sage_crop_variants": (_I32, ()),
    "sage_crop_with": (_I32, (_I32, _IMAGE, _BOX, _NORM, _ADDRESS, _I32, _I32)),
}


def _candidates() -> list[Path]:
    package = sys.modules[__package__ or __name__]
    folders = [Path(__file__).parent, *map(Path, getattr(package, "__path__", []))]
    folders += [Path(entry) / "sage_edge" / "runtime" / "native" for entry in sys.path if entry]
    return [path for path in dict.fromkeys(folder / NAME for folder in folders) if path.is_file()]


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """The library, opened and checked once; NativeError when there is none that fits."""
    refused = ""
    for path in _candidates():
        try:
            library = ctypes.CDLL(str(path))
            library.sage_abi_version.restype = ctypes.c_int32
            version = int(library.sage_abi_version())
        except (OSError, AttributeError) as error:
            refused = f"{path}: {error}"
            continue
        if version != ABI_VERSION:
            refused = f"{path} speaks version {version}, this binding {ABI_VERSION}"
            continue
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return library
    raise NativeError((refused or f"{NAME} is not installed") + ": run `make native` in a checkout, or reinstall sage-edge")
