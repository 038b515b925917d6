"""OpenVINO on the CPU: arrays shared with the compiled graph, nothing copied by `run`, one stream, threads set and pinned nowhere.

`hint` is the precision of what the graph leaves in floating point: "f32", or "bf16" on a processor that has it. OpenVINO would choose bf16
by itself where it can; here it is what the caller says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ov
from ..errors import EngineError
from .arrays import aligned_zeros, one_line, static_shape

INSTALL = "pip install 'sage-edge[openvino]'"
_DTYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "f64": np.dtype(np.float64),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "u8": np.dtype(np.uint8),
    "i8": np.dtype(np.int8),
    "boolean": np.dtype(np.bool_),
}


class OpenVINOEngine:
    """See `sage_edge.runtime.engines.Engine`."""

    def __init__(self, path: Path, batch: int, threads: int, hint: str = "f32") -> None:
        try:
            openvino = ov.load()
            core = ov.core()
        except ImportError as error:
            raise EngineError(f"openvino cannot be loaded ({one_line(error)}): {INSTALL}") from None
        except Exception as error:  # openvino raises RuntimeError and classes of its own
            raise EngineError(f"openvino {ov.version()} cannot find its plugins ({one_line(error)}): {INSTALL}") from None
        if not path.is_file():
            raise EngineError(f"{path} does not exist; compile the bundle again")
        if hint == "bf16" and not has_bf16():
            raise EngineError("this processor computes no bf16, OpenVINO would take float32 instead; choose precision fp32 or int8")
        self._path, self._threads = path, threads
        try:
            model = core.read_model(path)
            model.reshape({port: static_shape(path, port.any_name, _sizes(port), batch) for port in model.inputs})
            compiled = core.compile_model(model, "CPU", _options(threads, hint))
            self._request: Any = compiled.create_infer_request()
            self._inputs = {port.any_name: self._array(port, batch) for port in compiled.inputs}
            self._outputs = {port.any_name: self._array(port, batch) for port in compiled.outputs}
            for port in (*compiled.inputs, *compiled.outputs):
                array = (self._inputs if port in compiled.inputs else self._outputs)[port.any_name]
                self._request.set_tensor(port, openvino.Tensor(array, shared_memory=True))
        except EngineError:
            raise
        except Exception as error:  # see above
            raise EngineError(f"{path} cannot be loaded by openvino {ov.version()} ({one_line(error)}); compile the bundle again") from None

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        return self._inputs

    @property
    def outputs(self) -> dict[str, NDArray[Any]]:
        return self._outputs

    @property
    def threads(self) -> int:
        return self._threads

    def run(self) -> None:
        if self._request is None:
            raise EngineError(f"{self._path.name} was closed; open it again")
        try:
            self._request.infer(share_outputs=True)
        except Exception as error:  # see above
            raise EngineError(f"{self._path} failed to run ({one_line(error)}); check it with sage-edge verify") from None

    def close(self) -> None:
        self._request = None

    def _array(self, port: Any, batch: int) -> NDArray[Any]:
        name, kind = port.any_name, port.element_type.get_type_name()
        if kind not in _DTYPES:
            raise EngineError(f"{self._path}: {name} has type {kind}, one of {', '.join(_DTYPES)} is needed; export the graph again")
        return aligned_zeros(static_shape(self._path, name, _sizes(port), batch), _DTYPES[kind])


def has_bf16() -> bool:
    """Whether the CPU plugin computes bf16 with instructions of its own. Raises ImportError without openvino."""
    return "BF16" in ov.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _options(threads: int, hint: str) -> dict[str, Any]:
    return {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
        # Pinned workers would share their core with the capture loop for good.
        "ENABLE_CPU_PINNING": False,
        "ENABLE_CPU_RESERVATION": False,
    }


def _sizes(port: Any) -> list[object]:
    return [size.get_length() if size.is_static else str(size) for size in port.partial_shape]
