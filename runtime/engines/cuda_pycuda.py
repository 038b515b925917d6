"""CUDA through pycuda, for boards that have it: all that cuda-python gives but graphs, which pycuda has no calls for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .arrays import one_line
from .cuda import Device, fix_of

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING; pycuda does not name it."""


class PyCuda:
    """See `sage_edge.runtime.engines.cuda.Driver`. Holds the primary context of the first device until `close`.

    pycuda frees streams and events when they are forgotten, which has to happen before the context goes. Their handles are lists of one, emptied to
    free it: a traceback that somebody keeps holds the list and not what was in it.
    """

    def __init__(self) -> None:
        try:
            import pycuda
            import pycuda.driver as driver
        except ImportError as error:
            if "libcuda" in str(error):
                raise EngineError("no CUDA driver (libcuda.so.1) on this machine; install NVIDIA's driver, or choose another backend") from None
            raise EngineError(f"pycuda cannot be loaded ({one_line(error)}): pip install pycuda") from None
        self._cuda: Any = driver
        self.name = f"pycuda {pycuda.VERSION_TEXT}"
        with self._saying("start CUDA"):
            driver.init()
        with self._saying("find a GPU"):
            device = driver.Device(0)
            major, minor = device.compute_capability()
            version = driver.get_driver_version()
            self.device = Device(device.name().strip(), f"{major}.{minor}", f"{version // 1000}.{version % 1000 // 10}", device.total_memory())
        with self._saying(f"open {self.device.name}"):
            self._context: Any = device.retain_primary_context()

    def push(self) -> None:
        with self._saying("use the GPU's context"):
            self._context.push()

    def pop(self) -> None:
        with self._saying("leave the GPU's context"):
            self._cuda.Context.pop()

    def alloc(self, size: int) -> Any:
        with self._saying(f"allocate {size} bytes on {self.device.name}"):
            return self._cuda.mem_alloc(size)

    def free(self, memory: Any) -> None:
        with self._saying("free memory on the GPU"):
            memory.free()

    def pinned(self, size: int) -> tuple[Any, int]:
        with self._saying(f"pin {size} bytes of host memory"):
            array = self._cuda.pagelocked_empty(size, np.uint8)
        return array.base, int(array.ctypes.data)

    def free_pinned(self, memory: Any) -> None:
        with self._saying("free pinned memory"):
            memory.free()

    def copy_in(self, address: int, host: NDArray[Any], stream: Any) -> None:
        with self._saying(f"copy {host.nbytes} bytes to the GPU"):
            self._cuda.memcpy_htod_async(address, host, stream[0])

    def copy_out(self, host: NDArray[Any], address: int, stream: Any) -> None:
        with self._saying(f"copy {host.nbytes} bytes from the GPU"):
            self._cuda.memcpy_dtoh_async(host, address, stream[0])

    def stream(self) -> tuple[Any, int]:
        with self._saying("make a stream"):
            stream = [self._cuda.Stream(_NON_BLOCKING)]
        return stream, int(stream[0].handle)

    def synchronise(self, stream: Any) -> None:
        with self._saying("wait for the GPU"):
            stream[0].synchronize()

    def free_stream(self, stream: Any) -> None:
        stream.clear()

    def event(self) -> Any:
        with self._saying("make an event"):
            return [self._cuda.Event()]

    def record(self, event: Any, stream: Any) -> None:
        with self._saying("record an event"):
            event[0].record(stream[0])

    def elapsed_ms(self, start: Any, end: Any) -> float:
        with self._saying("time two events"):
            return float(end[0].time_since(start[0]))

    def free_event(self, event: Any) -> None:
        event.clear()

    def begin_capture(self, stream: Any) -> None:
        raise EngineError(f"{self.name} has no CUDA graphs; pip install 'sage-edge[tensorrt]' for them")

    def end_capture(self, stream: Any) -> Any:
        raise AssertionError("nothing was begun")

    def abandon_capture(self, stream: Any) -> None:
        """Nothing was begun."""

    def launch(self, graph: Any, stream: Any) -> None:
        raise AssertionError("there is no graph")

    def free_graph(self, graph: Any) -> None:
        raise AssertionError("there is no graph")

    def close(self) -> None:
        # pycuda lets go of a context in another thread than the one that opened it only while it is current
        with self._saying("let go of the GPU's context"):
            self._context.push()
            self._context.detach()

    @contextlib.contextmanager
    def _saying(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise EngineError(f"cannot {doing}: {one_line(error)} ({self.name}); {fix_of(str(error))}") from None
