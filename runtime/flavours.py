"""What `precision=` means on a backend: which of the bundle's graphs, and how its engine takes them.

    flavour("int8-bf16", "openvino")        # Flavour(name="int8-bf16", graphs="int8-cpu", hint="bf16")

`int8-cpu` graphs are for ONNX Runtime and OpenVINO on a CPU, `int8-trt` ones for TensorRT; neither is ever given to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .engines import check_backend
from .errors import UsageError

REDUCED_TOLERANCE = 0.05
"""How far bf16 may lie from FP32 on a golden window: what INT8 is allowed."""

LADDERED = "int8-trt"
"""Graphs that TensorRT may have built in a finer precision than they are in."""


@dataclass(frozen=True)
class Flavour:
    """`name` as `hello` gives it, `graphs` the bundle's precision, `hint` the engine's (see `engines.HINTS`)."""

    name: str
    graphs: str
    hint: str | None = None

    def tolerance(self, of: Mapping[str, float]) -> float:
        """The greatest difference to a golden window, from a manifest's `tolerance`."""
        own = of.get(self.graphs, REDUCED_TOLERANCE)
        return max(own, REDUCED_TOLERANCE) if self.hint == "bf16" else own


FLAVOURS: dict[str, dict[str, Flavour]] = {
    "onnxruntime": {
        "fp32": Flavour("fp32", "fp32", "cpu"),
        "int8": Flavour("int8-cpu", "int8-cpu", "cpu"),
        "fp32-cuda": Flavour("fp32-cuda", "fp32", "cuda"),
    },
    "openvino": {
        "fp32": Flavour("fp32", "fp32", "f32"),
        "int8": Flavour("int8-cpu", "int8-cpu", "f32"),
        "bf16": Flavour("bf16", "fp32", "bf16"),
        "int8-bf16": Flavour("int8-bf16", "int8-cpu", "bf16"),
    },
    "tensorrt": {"fp32": Flavour("fp32", "fp32"), "int8": Flavour("int8-trt", "int8-trt")},
}
"""Backend -> what may be asked of it."""


def flavour(precision: str, backend: str) -> Flavour:
    """The flavour of `precision`, as people ask for it or as `Flavour.name`, on `backend`. Raises UsageError."""
    check_backend(backend)
    known = FLAVOURS[backend]
    for asked, found in known.items():
        if precision in (asked, found.name):
            return found
    raise UsageError(f"precision {precision!r} is unknown to {backend}; one of {', '.join(known)}, auto")
