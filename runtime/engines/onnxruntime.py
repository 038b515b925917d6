"""ONNX Runtime on the CPU, or a float graph on CUDA: arrays bound once, threads set and never spinning. On the CPU nothing is copied by `run`.

Spinning worker threads would take whole cores while they wait for the next hop; without it an idle session costs nothing.
`int8-trt` graphs are TensorRT's; here they can be simulated on the CPU, to see what their numbers are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import cpu, onnx_file
from ..errors import EngineError
from ..native.handle import address
from ..ort import load
from .arrays import aligned_zeros, check_items, check_like, one_line, static_shape

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
_PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # by itself it would round float32 to 10 bits of mantissa on newer GPUs, which misses the tolerance of FP32
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}
CUDA_INSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


class OnnxRuntimeEngine:
    """See `sage_edge.runtime.engines.Engine`."""

    def __init__(self, path: Path, batch: int, threads: int, hint: str = "cpu") -> None:
        try:
            ort = load()
        except ImportError as error:
            from .probe import clash

            raise EngineError(clash() or f"onnxruntime cannot be loaded ({one_line(error)}): pip install onnxruntime") from None
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
        said = onnx_file.metadata(path)
        precision = said.get("precision")
        if cpu.saturates(cpu.features()) and said.get("weight_bits") != "7":
            # U8U8 kernels, whose products are added up in 32 bits; weights of 7 bits do not need them
            options.add_session_config_entry("session.x64quantprecision", "1")
        if hint == "cuda":
            _check_cuda(ort, path, precision)
        # what is bound is copied to the GPU then and there, and never again
        self._copied = hint == "cuda"
        self._path, self._batch, self._threads = path, batch, threads
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=_PROVIDERS[hint], disabled_optimizers=_spoils(precision))
            self._inputs = {arg.name: self._allocate(arg, batch) for arg in self._session.get_inputs()}
            self._outputs = {arg.name: self._allocate(arg, batch) for arg in self._session.get_outputs()}
            self._read = {**self._inputs}
            fixed = any(isinstance(arg.shape[0], int) for arg in (*self._session.get_inputs(), *self._session.get_outputs()) if arg.shape)
            self._items = [batch if fixed else items for items in range(1, batch + 1)]
            self._bindings: list[Any] = [self._bind(items) for items in self._items]
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises its own classes, RuntimeError and ValueError alike
            raise EngineError(f"{path} cannot be loaded by onnxruntime {ort.__version__} ({one_line(error)}); compile the bundle again") from None
        if hint == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise EngineError(f"onnxruntime {ort.__version__} found no usable GPU and would run on the CPU; see sage-edge doctor")

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
            for items, binding in zip(self._items, self._bindings, strict=True):
                _bind_array(binding.bind_input, name, array, items)
            self._read[name] = array

    def run(self, items: int | None = None) -> None:
        if self._session is None:
            raise EngineError(f"{self._path.name} was closed; open it again")
        at = (self._batch if items is None else check_items(self._path, items, self._batch)) - 1
        binding = self._bindings[at]
        try:
            if self._copied:
                for name, array in self._read.items():
                    _bind_array(binding.bind_input, name, array, self._items[at])
            self._session.run_with_iobinding(binding)
        except Exception as error:  # see above
            raise EngineError(f"{self._path} failed to run ({one_line(error)}); check it with sage-edge verify") from None

    def close(self) -> None:
        self._items, self._bindings, self._session = [], [], None

    def _bind(self, items: int) -> Any:
        """The first `items` of the arrays, for one run after another."""
        binding = self._session.io_binding()
        for bind, arrays in ((binding.bind_input, self._inputs), (binding.bind_output, self._outputs)):
            for name, array in arrays.items():
                _bind_array(bind, name, array, items)
        return binding

    def _allocate(self, arg: Any, batch: int) -> NDArray[Any]:
        if arg.type not in _DTYPES:
            raise EngineError(f"{self._path}: {arg.name} has type {arg.type}, one of {', '.join(_DTYPES)} is needed; export the graph again")
        return aligned_zeros(static_shape(self._path, arg.name, arg.shape, batch), _DTYPES[arg.type])


def _bind_array(bind: Any, name: str, array: NDArray[Any], items: int) -> None:
    bind(name, "cpu", 0, array.dtype, (items, *array.shape[1:]) if array.shape else (), address(array))


def _check_cuda(ort: Any, path: Path, precision: str | None) -> None:
    if precision is not None:
        raise EngineError(f"{path} is an {precision} graph, which is no work for onnxruntime on CUDA; choose precision fp32-cuda")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError(f"onnxruntime {ort.__version__} has no CUDA provider: {CUDA_INSTALL}")


def _spoils(precision: str | None) -> list[str] | None:
    """Optimizers to do without: this one computes a bias in 8 bits with an FP16 scale, which underflows (ONNX Runtime 1.31 on the CPU)."""
    return ["WeightBiasQuantization"] if precision == "int8-trt" else None
