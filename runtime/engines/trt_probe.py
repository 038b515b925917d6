"""A graph of one node through all of TensorRT: parsed, built, loaded and run on the GPU. Seconds, most of them TensorRT's own start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..trt import line, load, logger
from .cuda import Cuda, open_cuda

if TYPE_CHECKING:
    import tensorrt as trt


def run_one_node(onnx: bytes, x: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
    """TensorRT's version, and `y` of the graph `onnx` for `x`, of the same shape. Raises EngineError with the first thing that does not work."""
    trt = load()
    with contextlib.closing(open_cuda()) as cuda:
        try:
            with cuda.current():
                return str(trt.__version__), _execute(trt, _build(trt, onnx), cuda, x)
        except Exception as error:  # pybind11 has several classes
            problem = line(error)
    # Not from there: a traceback would keep TensorRT's objects in its frames, and they must not outlive the GPU's context.
    raise EngineError(problem)


def _build(trt: Any, onnx: bytes) -> bytes:
    log = logger(trt)
    mark = log.mark()
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:
        raise EngineError(f"its builder does not start ({_said(log.since(mark)) or line(error)})") from None
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        raise EngineError(f"its parser refuses a graph of one node ({_said(log.since(mark)) or 'no reason given'})")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise EngineError(f"it cannot build a graph of one node ({_said(log.since(mark)) or 'no reason given'})")
    return bytes(plan)


def _execute(trt: Any, plan: bytes, cuda: Cuda, x: NDArray[np.float32]) -> NDArray[np.float32]:
    log = logger(trt)
    mark = log.mark()
    stream, runtime = cuda.stream(), trt.Runtime(log)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    try:
        if context is None:
            raise EngineError(f"it cannot load what it has built ({_said(log.since(mark)) or 'no reason given'})")
        into, out = cuda.alloc(x.nbytes), cuda.alloc(x.nbytes)
        host = cuda.pinned(2 * x.nbytes).view(np.float32)
        host[: x.size] = x.ravel()
        cuda.copy_in(into.address, host[: x.size], stream)
        started = context.set_tensor_address("x", into.address) and context.set_tensor_address("y", out.address)
        if not started or not context.execute_async_v3(stream.number):
            raise EngineError(f"it does not run what it has built ({_said(log.since(mark)) or 'no reason given'})")
        cuda.copy_out(host[x.size :], out.address, stream)
        stream.synchronise()
        return np.array(host[x.size :].reshape(x.shape))
    finally:
        # nothing may go that the GPU still works on, and each goes before what it came from
        with contextlib.suppress(EngineError):
            stream.synchronise()
        del context, engine, runtime


def _said(messages: list[tuple[str, str]]) -> str:
    return "; ".join(text for severity, text in messages if severity == "error")
