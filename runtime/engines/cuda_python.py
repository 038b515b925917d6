"""CUDA through cuda-python, its driver API only: nothing but the board's own libcuda.so.1 is needed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..errors import EngineError
from .arrays import one_line
from .cuda import Device, fix_of


class CudaPython:
    """See `sage_edge.runtime.engines.cuda.Driver`. Holds the primary context of the first device until `close`."""

    def __init__(self) -> None:
        try:
            import cuda.bindings
            from cuda.bindings import driver
        except ImportError as error:
            raise EngineError(f"cuda-python cannot be loaded ({one_line(error)}): pip install 'sage-edge[tensorrt]'") from None
        self._cuda: Any = driver
        self.name = f"cuda-python {cuda.bindings.__version__}"
        self._call("start CUDA", "cuInit", 0)
        self._device = self._call("find a GPU", "cuDeviceGet", 0)
        self.device = self._describe()
        self._context: Any = self._call(f"open {self.device.name}", "cuDevicePrimaryCtxRetain", self._device)

    def push(self) -> None:
        self._call("use the GPU's context", "cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._call("leave the GPU's context", "cuCtxPopCurrent")

    def alloc(self, size: int) -> Any:
        return self._call(f"allocate {size} bytes on {self.device.name}", "cuMemAlloc", size)

    def free(self, memory: Any) -> None:
        self._call("free memory on the GPU", "cuMemFree", memory)

    def pinned(self, size: int) -> tuple[Any, int]:
        address = int(self._call(f"pin {size} bytes of host memory", "cuMemHostAlloc", size, 0))
        return address, address

    def free_pinned(self, memory: Any) -> None:
        self._call("free pinned memory", "cuMemFreeHost", memory)

    def copy_in(self, address: int, host: NDArray[Any], stream: Any) -> None:
        self._call(f"copy {host.nbytes} bytes to the GPU", "cuMemcpyHtoDAsync", address, _address(host), host.nbytes, stream)

    def copy_out(self, host: NDArray[Any], address: int, stream: Any) -> None:
        self._call(f"copy {host.nbytes} bytes from the GPU", "cuMemcpyDtoHAsync", _address(host), address, host.nbytes, stream)

    def stream(self) -> tuple[Any, int]:
        handle = self._call("make a stream", "cuStreamCreate", int(self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        return handle, int(handle)

    def synchronise(self, stream: Any) -> None:
        self._call("wait for the GPU", "cuStreamSynchronize", stream)

    def free_stream(self, stream: Any) -> None:
        self._call("free a stream", "cuStreamDestroy", stream)

    def event(self) -> Any:
        return self._call("make an event", "cuEventCreate", 0)

    def record(self, event: Any, stream: Any) -> None:
        self._call("record an event", "cuEventRecord", event, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call("time two events", "cuEventElapsedTime", start, end))

    def free_event(self, event: Any) -> None:
        self._call("free an event", "cuEventDestroy", event)

    def begin_capture(self, stream: Any) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("begin a CUDA graph", "cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        captured = self._call("end a CUDA graph", "cuStreamEndCapture", stream)
        try:
            graph = self._call("make a CUDA graph", "cuGraphInstantiate", captured, 0)
        except EngineError:
            self._cuda.cuGraphDestroy(captured)
            raise
        try:
            self._call("free what a CUDA graph was made from", "cuGraphDestroy", captured)
        except EngineError:
            self._cuda.cuGraphExecDestroy(graph)
            raise
        return graph

    def abandon_capture(self, stream: Any) -> None:
        idle = self._cuda.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
        if self._call("ask for a capture", "cuStreamIsCapturing", stream) != idle:
            captured = self._call("end a CUDA graph", "cuStreamEndCapture", stream)
            self._call("free half a CUDA graph", "cuGraphDestroy", captured)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("launch a CUDA graph", "cuGraphLaunch", graph, stream)

    def free_graph(self, graph: Any) -> None:
        self._call("free a CUDA graph", "cuGraphExecDestroy", graph)

    def close(self) -> None:
        self._call("let go of the GPU's context", "cuDevicePrimaryCtxRelease", self._device)

    def _describe(self) -> Device:
        kinds = self._cuda.CUdevice_attribute
        parts = (kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        name = self._call("read the GPU's name", "cuDeviceGetName", 256, self._device)
        sm = ".".join(str(self._call("read the GPU's compute capability", "cuDeviceGetAttribute", part, self._device)) for part in parts)
        version = int(self._call("read the driver's version", "cuDriverGetVersion"))
        memory = int(self._call("read the GPU's memory", "cuDeviceTotalMem", self._device))
        return Device(name.split(b"\0")[0].decode(errors="replace").strip(), sm, f"{version // 1000}.{version % 1000 // 10}", memory)

    def _call(self, doing: str, name: str, *arguments: Any) -> Any:
        """The value of a call, or its error as one line."""
        try:
            code, *values = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:  # no driver, or one without this call
            if type(error).__name__ == "DynamicLibNotFoundError" or "libcuda" in str(error):
                raise EngineError("no CUDA driver (libcuda.so.1) on this machine; install NVIDIA's driver, or choose another backend") from None
            raise EngineError(f"cannot {doing}: {name}: {one_line(error)}; update NVIDIA's driver") from None
        if int(code):
            raise EngineError(f"cannot {doing}: {name} says {getattr(code, 'name', code)}; {fix_of(str(getattr(code, 'name', code)))}")
        return values[0] if values else None


def _address(array: NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise EngineError(f"an array of shape {array.shape} and strides {array.strides} cannot be copied to or from a GPU; make it contiguous")
    return int(array.ctypes.data)
