"""Inference behind one small interface: named NumPy arrays in, named NumPy arrays out, allocated once.

engine = open_engine(bundle.graph("visual", "fp32"))
engine.inputs["faces"][...] = faces        # float32 [1, 3, H, W], written in place (libsage writes into it directly)
engine.run()
engine.outputs["visual"]                   # float32 [1, d], overwritten by the next run

An engine of a larger batch computes its first items only where it is told to: `engine.run(2)`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import UsageError
from ..machine import cores

BACKENDS = ("onnxruntime", "openvino", "tensorrt")
HINTS: dict[str, tuple[str, ...]] = {"onnxruntime": ("cpu", "cuda"), "openvino": ("f32", "bf16"), "tensorrt": ()}
"""What `hint` may be, the default first: ONNX Runtime's provider, and the precision of what an OpenVINO graph leaves in floating point."""


class Engine(Protocol):
    """One loaded graph. The arrays of `inputs` and `outputs` live as long as the engine and are never replaced; not thread-safe."""

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Write here, in place."""

    @property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Read here after `run`; the next `run` overwrites it."""

    @property
    def threads(self) -> int:
        """Threads that one `run` uses."""

    def read_from(self, name: str, array: NDArray[Any]) -> None:
        """Take the input `name` from `array` from now on, where it lies: like `inputs[name]` in shape and type, C-contiguous, on a cache line.

        It must stay as it is during `run`. Nothing is copied but by TensorRT, whose memory the GPU reads: `inputs[name]` holds it then.
        Raises EngineError.
        """

    def run(self, items: int | None = None) -> None:
        """Compute `outputs` from `inputs`: of the first `items` of the batch, of all when None; the outputs behind them are undefined then.

        Memory is as for the whole batch, whatever the count. TensorRT captures its CUDA graph again when the count has changed. Raises EngineError.
        """

    def close(self) -> None:
        """Free the graph; calling it again does nothing."""


def open_engine(
    path: str | os.PathLike[str],
    backend: str = "onnxruntime",
    batch: int = 1,
    threads: int | None = None,
    hint: str | None = None,
    beside: Engine | None = None,
) -> Engine:
    """Load the ONNX graph at `path` for inputs of `batch` items. `threads` None means `default_threads()`, `hint` None the first of `HINTS`.

    `beside` is an engine that takes turns with this one, in the same thread: on TensorRT they share a stream.
    Raises UsageError for an unknown backend or hint, a batch or thread count below 1, and EngineError for a backend that is not there and for a
    graph that cannot be loaded.
    """
    check_backend(backend)
    if batch < 1:
        raise UsageError(f"batch is {batch}, must be at least 1")
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}, must be at least 1; leave it out for {default_threads()}")
    if hint is not None and hint not in HINTS[backend]:
        raise UsageError(f"hint {hint!r} is unknown to {backend}; " + (f"one of {', '.join(HINTS[backend])}" if HINTS[backend] else "it takes none"))
    path, threads = Path(path), default_threads() if threads is None else threads
    if backend == "openvino":
        from .openvino import OpenVINOEngine

        return OpenVINOEngine(path, batch, threads, hint or "f32")
    if backend == "tensorrt":
        from .tensorrt import TensorRTEngine

        return TensorRTEngine(path, batch, beside if isinstance(beside, TensorRTEngine) else None)
    from .onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, batch, threads, hint or "cpu")


def check_backend(backend: str) -> None:
    """Raise UsageError unless `backend` is one of `BACKENDS`."""
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        raise UsageError(f"unknown backend {backend!r}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(BACKENDS)}"))


def default_threads() -> int:
    """The cores this process may use, at most 4: small boards have 4 to 8 and the capture loop needs one of them."""
    return min(cores(), 4)
