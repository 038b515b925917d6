"""ONNX Runtime on the CPU: arrays bound once, nothing copied by `run`, threads set and never spinning.

Spinning worker threads would take whole cores while they wait for the next hop; without it an idle session costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..ort import load

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(bool)": np.dtype(np.bool_),
}
_ALIGN = 64


class OnnxRuntimeEngine:
    """See `sage_edge.runtime.engines.Engine`."""

    def __init__(self, path: Path, batch: int, threads: int) -> None:
        try:
            ort = load()
        except ImportError as error:
            raise EngineError(f"onnxruntime cannot be loaded ({_line(error)}): pip install onnxruntime") from None
        if not path.is_file():
            raise EngineError(f"{path} does not exist; compile the bundle again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Planning one block for all activations ahead costs an eighth more memory (110 instead of 97 MB for `tiny`, 1026 instead of
        # 889 MB for `base`) and saves no measurable time; doing without the arena is slower at the larger sizes.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._path, self._threads = path, threads
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._binding: Any = self._session.io_binding()
            self._inputs = {arg.name: self._allocate(arg.name, arg.type, self._shape(arg, batch)) for arg in self._session.get_inputs()}
            for name, array in self._inputs.items():
                self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._outputs = {arg.name: self._allocate(arg.name, arg.type, self._shape(arg, batch)) for arg in self._session.get_outputs()}
            for name, array in self._outputs.items():
                self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises its own classes, RuntimeError and ValueError alike
            raise EngineError(f"{path} cannot be loaded by onnxruntime {ort.__version__} ({_line(error)}); compile the bundle again") from None

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
        if self._session is None:
            raise EngineError(f"{self._path.name} was closed; open it again")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # see above
            raise EngineError(f"{self._path} failed to run ({_line(error)}); check it with sage-edge verify") from None

    def close(self) -> None:
        self._binding = self._session = None

    def _shape(self, arg: Any, batch: int) -> tuple[int, ...]:
        shape = tuple(batch if i == 0 and not isinstance(size, int) else size for i, size in enumerate(arg.shape))
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise EngineError(f"{self._path}: {arg.name} has shape {list(arg.shape)}, only the first size may be open; export the graph again")
        if shape and shape[0] != batch:
            raise EngineError(f"{self._path}: {arg.name} is made for batches of {shape[0]}, not {batch}; export the graph again")
        return shape

    def _allocate(self, name: str, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if kind not in _DTYPES:
            raise EngineError(f"{self._path}: {name} has type {kind}, one of {', '.join(_DTYPES)} is needed; export the graph again")
        return aligned_zeros(shape, _DTYPES[kind])


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that start on a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + size].view(dtype).reshape(shape)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
