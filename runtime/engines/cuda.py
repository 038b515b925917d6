"""The little of CUDA that an engine needs, over cuda-python or pycuda: memory, pinned arrays, copies, streams, events, graphs.

    cuda = open_cuda()
    with cuda.current():
        stream, memory, host = cuda.stream(), cuda.alloc(4096), cuda.pinned(4096)
        cuda.copy_in(memory.address, host, stream)
        stream.synchronise()
    cuda.close()

All calls but `close` belong inside `with cuda.current()`, which makes the device's context the thread's. Whatever was made is freed by its own
`close`, by `Cuda.free` or by `Cuda.close`, whichever comes first; pinned memory goes with the last array that looks at it, so that no array ever
looks at memory that is gone. Copies only start; `Stream.synchronise` waits. Every error is an EngineError: what was being done, what the driver says.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, UsageError

BINDINGS = {"cuda-python": "cuda.bindings", "pycuda": "pycuda"}
"""Name of a binding -> the module to look for; in order of preference, pycuda has no graphs."""


@dataclass(frozen=True)
class Device:
    """A GPU. `sm` is its compute capability as "8.7", `driver` the newest CUDA that its driver knows, as "13.0"."""

    name: str
    sm: str
    driver: str
    memory_bytes: int


class Driver(Protocol):
    """What a binding has to offer. Handles are whatever it uses; sizes are bytes; every failure is an EngineError."""

    name: str
    """Package and version."""
    device: Device

    def push(self) -> None:
        """Make the device's context that of the calling thread."""

    def pop(self) -> None:
        """Give the thread back the context it had."""

    def alloc(self, size: int) -> Any: ...
    def free(self, memory: Any) -> None: ...
    def pinned(self, size: int) -> tuple[Any, int]:
        """Page-locked host memory: handle and address."""

    def free_pinned(self, memory: Any) -> None: ...
    def copy_in(self, address: int, host: NDArray[Any], stream: Any) -> None: ...
    def copy_out(self, host: NDArray[Any], address: int, stream: Any) -> None: ...
    def stream(self) -> tuple[Any, int]:
        """A stream that waits for no other: handle, and the number that TensorRT knows it by."""

    def synchronise(self, stream: Any) -> None: ...
    def free_stream(self, stream: Any) -> None: ...
    def event(self) -> Any: ...
    def record(self, event: Any, stream: Any) -> None: ...
    def elapsed_ms(self, start: Any, end: Any) -> float: ...
    def free_event(self, event: Any) -> None: ...
    def begin_capture(self, stream: Any) -> None: ...
    def end_capture(self, stream: Any) -> Any:
        """What was put on the stream since `begin_capture`, ready to launch."""

    def abandon_capture(self, stream: Any) -> None:
        """End a capture if there is one, and forget what was captured."""

    def launch(self, graph: Any, stream: Any) -> None: ...
    def free_graph(self, graph: Any) -> None: ...
    def close(self) -> None:
        """Let go of the device's context."""


class Resource:
    """Something of the device that is freed once."""

    def __init__(self, cuda: Cuda, handle: Any, free: Callable[[Any], None]) -> None:
        self.cuda, self.handle, self._free = cuda, handle, free
        cuda.live[id(self)] = self

    def close(self) -> None:
        """Free it; calling it again does nothing."""
        self.cuda.free(self)

    def release(self) -> None:
        """As `close`, inside `current` and with what the driver says of it."""
        if self.cuda.live.pop(id(self), None) is not None:
            self._free(self.handle)


class Memory(Resource):
    """Device memory: `size` bytes from `address`."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        handle = cuda.driver.alloc(size)
        super().__init__(cuda, handle, cuda.driver.free)
        self.address, self.size = int(handle), size


class _Pinned(Resource):
    """Pinned memory that arrays look at: freed once they are gone, and the device stays open until then."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        handle, self.address = cuda.driver.pinned(size)
        super().__init__(cuda, handle, cuda.driver.free_pinned)
        del cuda.live[id(self)]
        cuda.hold()

    def forgotten(self) -> None:
        """No array looks at it any more."""
        self.cuda.live[id(self)] = self
        # where the context is out of reach, the next close frees it
        with contextlib.suppress(EngineError):
            self.close()

    def release(self) -> None:
        held = id(self) in self.cuda.live
        try:
            super().release()
        finally:
            if held:
                self.cuda.let_go()


class Stream(Resource):
    """Work that is done in the order it was put here. `number` is what TensorRT takes."""

    def __init__(self, cuda: Cuda) -> None:
        handle, self.number = cuda.driver.stream()
        super().__init__(cuda, handle, cuda.driver.free_stream)

    def synchronise(self) -> None:
        """Wait until all that was put here is done; errors of that work surface here."""
        self.cuda.driver.synchronise(self.handle)


class Event(Resource):
    """A mark in a stream."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda, cuda.driver.event(), cuda.driver.free_event)

    def record(self, stream: Stream) -> None:
        """Put the mark behind what is on the stream by now."""
        self.cuda.driver.record(self.handle, stream.handle)

    def ms_since(self, start: Event) -> float:
        """Milliseconds on the device from `start` to this one. Both have to be past."""
        return self.cuda.driver.elapsed_ms(start.handle, self.handle)


class Graph(Resource):
    """Captured work, launched as one."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:
        super().__init__(cuda, handle, cuda.driver.free_graph)

    def launch(self, stream: Stream) -> None:
        """Put all of it on the stream."""
        self.cuda.driver.launch(self.handle, stream.handle)


class Cuda:
    """A device and what was made on it. Threads may take turns."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.live = driver, dict[int, Resource]()
        self.unfreed: list[str] = []
        """What the driver said where it did not free something."""
        self._lock, self._holders, self._closed = threading.RLock(), 1, False

    @property
    def device(self) -> Device:
        """The GPU."""
        return self.driver.device

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Everything inside talks to this device; may be nested."""
        self.driver.push()
        try:
            yield
        finally:
            self.driver.pop()

    def alloc(self, size: int) -> Memory:
        """`size` bytes on the device."""
        return Memory(self, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes of host memory that the device copies from and to by itself, zeroed. They go with the last array that looks at them."""
        memory = _Pinned(self, size)
        block = (ctypes.c_uint8 * size).from_address(memory.address)
        weakref.finalize(block, memory.forgotten)
        array: NDArray[np.uint8] = np.ctypeslib.as_array(block)
        array[...] = 0
        return array

    def copy_in(self, address: int, host: NDArray[Any], stream: Stream) -> None:
        """Start copying an array to the device. It must stay as it is until the stream was waited for."""
        self.driver.copy_in(address, host, stream.handle)

    def copy_out(self, host: NDArray[Any], address: int, stream: Stream) -> None:
        """Start copying from the device into an array, which holds the values once the stream was waited for."""
        self.driver.copy_out(host, address, stream.handle)

    def stream(self) -> Stream:
        """A new stream."""
        return Stream(self)

    def event(self) -> Event:
        """A new event."""
        return Event(self)

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """What `work` puts on the stream, as a graph; none of it runs. `work` must not wait or allocate.

        Raises EngineError where the binding or the work allows no capture; the stream is as before then.
        """
        try:
            self.driver.begin_capture(stream.handle)
            work()
            return Graph(self, self.driver.end_capture(stream.handle))
        except BaseException:
            with contextlib.suppress(EngineError):
                self.driver.abandon_capture(stream.handle)
            raise

    def free(self, *resources: Resource) -> None:
        """Free these, what is free already is passed over. Raises EngineError, with all of them kept, only where the context is out of reach."""
        if any(id(each) in self.live for each in resources):
            with self.current():
                for each in resources:
                    try:
                        each.release()
                    except EngineError as error:
                        self.unfreed.append(str(error))

    def close(self) -> None:
        """Free all that was made, newest first; calling it again does nothing. It belongs outside of `current`."""
        self.free(*reversed(list(self.live.values())))
        if not self._closed:
            self._closed = True
            self.let_go()

    def hold(self) -> None:
        """Keep the device's context, also beyond `close`, until `let_go`."""
        with self._lock:
            self._holders += 1

    def let_go(self) -> None:
        """The last to let go lets go of the device's context."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        try:
            self.driver.close()
        except EngineError as error:
            self.unfreed.append(str(error))
        if self.unfreed:
            count = len(self.unfreed)
            print(f"note: {self.unfreed[0]}, and so for {count} thing(s) of the GPU; they go when this process ends", file=sys.stderr, flush=True)


def open_cuda(which: str = "auto") -> Cuda:
    """The first GPU (CUDA_VISIBLE_DEVICES counts), through "cuda-python", "pycuda" or "auto": the first of them that is installed.

    Raises EngineError where there is no binding, driver or GPU, and UsageError for another name.
    """
    if which != "auto" and which not in BINDINGS:
        raise UsageError(f"no binding to CUDA is called {which!r}; one of {', '.join(BINDINGS)}, auto")
    installed = [name for name, module in BINDINGS.items() if which in (name, "auto") and _installed(module)]
    if not installed:
        if which == "auto":
            raise EngineError(f"none of {', '.join(BINDINGS)} is installed, CUDA is out of reach: pip install 'sage-edge[tensorrt]'")
        raise EngineError(f"{which} is not installed: pip install {which}")
    if installed[0] == "pycuda":
        from .cuda_pycuda import PyCuda

        return Cuda(PyCuda())
    from .cuda_python import CudaPython

    return Cuda(CudaPython())


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def fix_of(error: str) -> str:
    """What to do about a driver's error, by its name or text."""
    for words, fix in _FIXES:
        if any(word in error for word in words):
            return fix
    return "open it again; if it stays, start the process anew"


_FIXES = (
    (("OUT_OF_MEMORY", "out of memory"), "close what else uses the GPU"),
    (("NO_DEVICE", "INVALID_DEVICE", "no CUDA-capable device", "no device", "invalid device"), "check that a GPU is visible (CUDA_VISIBLE_DEVICES)"),
    (("INSUFFICIENT_DRIVER", "SYSTEM_DRIVER_MISMATCH", "NOT_FOUND"), "update NVIDIA's driver"),
    (("CAPTURE",), "it runs without a graph"),
)
