"""A `Driver` of `runtime.engines.cuda` whose device memory is the host's: what the stand-in computes with. It captures no graphs."""

from __future__ import annotations

import ctypes
from typing import Any

import standin
from numpy.typing import NDArray

from sage_edge.runtime.engines import cuda
from sage_edge.runtime.errors import EngineError


class HostDriver:
    """The GPU that the stand-in's script names."""

    name = "host"

    def __init__(self) -> None:
        self.device = cuda.Device(standin._script.gpu, "8.7", "12.6", 8 << 30)
        self._blocks: dict[int, Any] = {}

    def push(self) -> None: ...
    def pop(self) -> None: ...

    def alloc(self, size: int) -> int:
        block = (ctypes.c_uint8 * (size + 256))()
        address = -(-ctypes.addressof(block) // 256) * 256
        self._blocks[address] = block
        return address

    def free(self, memory: int) -> None:
        del self._blocks[memory]

    def pinned(self, size: int) -> tuple[int, int]:
        address = self.alloc(size)
        return address, address

    free_pinned = free

    def copy_in(self, address: int, host: NDArray[Any], stream: Any) -> None:
        ctypes.memmove(address, host.ctypes.data, host.nbytes)

    def copy_out(self, host: NDArray[Any], address: int, stream: Any) -> None:
        ctypes.memmove(host.ctypes.data, address, host.nbytes)

    def stream(self) -> tuple[int, int]:
        return 1, 1

    def synchronise(self, stream: Any) -> None: ...
    def free_stream(self, stream: Any) -> None: ...

    def event(self) -> float:
        return 0.0

    def record(self, event: Any, stream: Any) -> None: ...

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return 0.0

    def free_event(self, event: Any) -> None: ...

    def begin_capture(self, stream: Any) -> None:
        raise EngineError("this driver captures nothing")

    def end_capture(self, stream: Any) -> Any:
        raise EngineError("this driver captures nothing")

    def abandon_capture(self, stream: Any) -> None: ...
    def launch(self, graph: Any, stream: Any) -> None: ...
    def free_graph(self, graph: Any) -> None: ...

    def close(self) -> None:
        assert not self._blocks, f"{len(self._blocks)} blocks were not freed"


def open_cuda(which: str = "auto") -> cuda.Cuda:
    """Instead of `cuda.open_cuda`."""
    return cuda.Cuda(HostDriver())


def modules() -> list[str]:
    """The modules that open a GPU under this name."""
    return [f"sage_edge.runtime.engines.{name}" for name in ("cuda", "tensorrt")]
