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
from .arrays import aligned_zeros, check_items, check_like, one_line, static_shape

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
        self._path, self._batch, self._threads = path, batch, threads
        try:
            model = core.read_model(path)
            fixed = all(port.partial_shape.is_static for port in model.inputs)
            shapes = {port: static_shape(path, port.any_name, _sizes(port), batch) for port in model.inputs}
            # For one item all sizes are settled, which is faster; the first of a larger batch stays open.
            first = openvino.Dimension(1, batch)
            model.reshape({port: shape if fixed or batch == 1 else openvino.PartialShape([first, *shape[1:]]) for port, shape in shapes.items()})
            compiled = core.compile_model(model, "CPU", _options(threads, hint))
            self._inputs = {port.any_name: self._array(port, batch) for port in compiled.inputs}
            self._outputs = {port.any_name: self._array(port, batch) for port in compiled.outputs}
            self._ports = {port.any_name: port for port in (*compiled.inputs, *compiled.outputs)}
            self._read = {**self._inputs}
            self._items = [batch if fixed else items for items in range(1, batch + 1)]
            self._requests: list[Any] = [self._request(compiled, items) for items in self._items]
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

    def read_from(self, name: str, array: NDArray[Any]) -> None:
        if array is not self._read.get(name):
            check_like(self._path, name, array, self._inputs.get(name))
            for items, request in zip(self._items, self._requests, strict=True):
                self._place(request, name, array, items)
            self._read[name] = array

    def run(self, items: int | None = None) -> None:
        if not self._requests:
            raise EngineError(f"{self._path.name} was closed; open it again")
        request = self._requests[-1 if items is None else check_items(self._path, items, self._batch) - 1]
        try:
            request.infer(share_outputs=True)
        except Exception as error:  # see above
            raise EngineError(f"{self._path} failed to run ({one_line(error)}); check it with sage-edge verify") from None

    def close(self) -> None:
        self._items, self._requests = [], []

    def _request(self, compiled: Any, items: int) -> Any:
        """A request over the first `items` of the arrays; all requests of a graph share its memory for what is in between."""
        request = compiled.create_infer_request()
        for name, array in (*self._inputs.items(), *self._outputs.items()):
            self._place(request, name, array, items)
        return request

    def _place(self, request: Any, name: str, array: NDArray[Any], items: int) -> None:
        request.set_tensor(self._ports[name], ov.load().Tensor(array[:items] if array.ndim else array, shared_memory=True))

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
