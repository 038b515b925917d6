"""A stand-in for the module `tensorrt`, for machines without a GPU: its surface is TensorRT's (a contract test holds it to the real bindings), its
"engines" are ONNX graphs that ONNX Runtime computes at the addresses it is given, and `_script` says what goes wrong.

It parses with the real `onnx` package and knows nothing of what TensorRT fuses, refuses or takes long at: that is scripted, test by test.
Names with a leading underscore are the script's; all others are TensorRT's.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

__version__ = "10.3.0"


@dataclass
class _Script:
    """What the next builds and runs do."""

    gpu: str = "Orin"
    lacks: set[str] = field(default_factory=set)
    """Operators that the parser does not know."""
    refuse: Callable[[onnx.ModelProto], str | None] = lambda model: None
    """Reason why a graph does not build, told as an error in the log; the build then returns None."""
    raises: Callable[[onnx.ModelProto], Exception | None] = lambda model: None
    """What building a graph raises."""
    spoil: Callable[[onnx.ModelProto, str, Any], Any] = lambda model, name, value: value
    """What becomes of an output of an engine."""
    at_step: Callable[[str, int], None] = lambda phase, step: None
    """Called before a step is reported."""
    warnings: list[str] = field(default_factory=list)
    """Told in the log during each build."""
    starts: bool = True
    """Whether Builder and Runtime can be made, which they cannot without a GPU."""
    steps: int = 3
    built: list[INetworkDefinition] = field(default_factory=list)
    """Networks that were built or refused, in order."""
    configs: list[IBuilderConfig] = field(default_factory=list)
    measured: int = 0
    """Kernels that were timed because the timing cache did not know them."""
    cancelled: int = 0
    live: int = 0
    """Engines that were not let go."""
    disorder: int = 0
    """Engines that outlived the runtime they came from."""


_script = _Script()


def _reset(version: str = "10.3.0") -> _Script:
    """A fresh script, for the next test; this TensorRT has `version`."""
    global _script, __version__
    _script, __version__ = _Script(), version
    return _script


class _Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = _Severity
    INTERNAL_ERROR = _Severity.INTERNAL_ERROR
    ERROR = _Severity.ERROR
    WARNING = _Severity.WARNING
    INFO = _Severity.INFO
    VERBOSE = _Severity.VERBOSE

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: _Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IProfiler:
    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class LayerInformationFormat(enum.IntEnum):
    ONELINE = 0
    JSON = 1


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8
    INT4 = 9


class Dims(tuple[int, ...]):
    pass


_DTYPES = {
    1: (DataType.FLOAT, np.float32),
    10: (DataType.HALF, np.float16),
    3: (DataType.INT8, np.int8),
    6: (DataType.INT32, np.int32),
    7: (DataType.INT64, np.int64),
    9: (DataType.BOOL, np.bool_),
}


def nptype(trt_type: DataType) -> Any:
    return next(kind for value, kind in _DTYPES.values() if value == trt_type)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = onnx.ModelProto()
        self._parser: weakref.ref[OnnxParser] | None = None

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def shape(self) -> Dims:
        return _dims(self._value)


def _dims(value: onnx.ValueInfoProto) -> Dims:
    return Dims(size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim)


class ParserError:
    def __init__(self, node: onnx.NodeProto | None, text: str) -> None:
        self._node, self._text = node, text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return str(self._node.name) if self._node is not None else ""

    def node_operator(self) -> str:
        return str(self._node.op_type) if self._node is not None else ""


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger, self._errors = network, logger, list[ParserError]()
        network._parser = weakref.ref(self)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            self._network._model = onnx.load_from_string(bytes(model))
        except Exception:
            self._errors.append(ParserError(None, "Failed to parse the ONNX model."))
            return False
        for node in self._network._model.graph.node:
            if node.op_type in _script.lacks:
                self._errors.append(ParserError(node, f"No importer registered for op: {node.op_type}.\nAttempting to import as plugin."))
        for error in self._errors:
            self._logger.log(ILogger.ERROR, error.desc())
        return not self._errors

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as stream:
            return self.parse(stream.read())

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:  # the real one gives its bytes through the buffer protocol
        return self._data

    @property
    def nbytes(self) -> int:
        return len(self._data)


class ITimingCache:
    """`_times` is what was measured; the file starts with whose it is."""

    _MAGIC = b"standin timing cache "

    def __init__(self, owner: str, times: dict[str, float]) -> None:
        self._owner, self._times = owner, times

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache._owner != self._owner:
            return False
        self._times = {**input_cache._times, **self._times}
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._MAGIC + json.dumps([self._owner, self._times], sort_keys=True).encode())


def _owner() -> str:
    return f"{__version__} {_script.gpu}"


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [tuple(min), tuple(opt), tuple(max)]
        if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError("Shape values are not min <= opt <= max")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:
        return [Dims(shape) for shape in self._shapes[input]]


class IBuilderConfig:
    def __init__(self) -> None:
        self._pools: dict[MemoryPoolType, int] = {}
        self._flags = {BuilderFlag.TF32}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._monitor: IProgressMonitor | None = None
        self._verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache(_owner(), {})
        try:
            owner, times = json.loads(data.removeprefix(ITimingCache._MAGIC))
        except ValueError:
            return None
        return ITimingCache(owner, times)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._owner != _owner() and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, value: ProfilingVerbosity) -> None:
        self._verbosity = value

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, value: IProgressMonitor) -> None:
        self._monitor = value


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = _usable(logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        _script.configs.append(IBuilderConfig())
        return _script.configs[-1]

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        _script.built.append(network)
        model = network._model
        assert network._flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED, "a weakly typed network"
        assert network._parser is None or network._parser() is not None, "the parser is gone, and the network's weights with it"
        for text in _script.warnings:
            self._logger.log(ILogger.WARNING, text)
        if any(-1 in ITensor(value).shape for value in model.graph.input) and not config._profiles:
            self._logger.log(ILogger.ERROR, "Network has dynamic or shape inputs, but no optimization profile has been defined.")
            return None
        if not _phases(config._monitor):
            _script.cancelled += 1
            self._logger.log(ILogger.ERROR, "Build was cancelled by the progress monitor.")
            return None
        if (error := _script.raises(model)) is not None:
            raise error
        if (reason := _script.refuse(model)) is not None:
            self._logger.log(ILogger.ERROR, reason)
            return None
        if config._cache is not None:
            for node in model.graph.node:
                kernel = hashlib.sha256(node.SerializeToString()).hexdigest()[:8]
                if kernel not in config._cache._times:
                    config._cache._times[kernel] = 1.0
                    _script.measured += 1
        head = {"version": __version__, "gpu": _script.gpu, "detailed": config._verbosity == ProfilingVerbosity.DETAILED}
        head["shapes"] = config._profiles[0]._shapes if config._profiles else {}
        return IHostMemory(json.dumps(head).encode() + b"\0" + model.SerializeToString())


def _phases(monitor: IProgressMonitor | None) -> bool:
    """A root phase of two steps with a phase of `steps` inside each; returns whether the build goes on."""
    if monitor is None:
        return True
    going = True
    monitor.phase_start("Building Engine", None, 2)
    for i, name in enumerate(("Timing graph nodes", "Serializing plan")):
        monitor.phase_start(name, "Building Engine", _script.steps)
        for step in range(_script.steps):
            _script.at_step(name, step)
            going = going and monitor.step_complete(name, step)
            if not going:
                break
        monitor.phase_finish(name)
        going = going and monitor.step_complete("Building Engine", i)
        if not going:
            break
    monitor.phase_finish("Building Engine")
    return going


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = _usable(logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        head, _, graph = bytes(serialized_engine).partition(b"\0")
        try:
            about = json.loads(head)
            model = onnx.load_from_string(graph)
        except Exception:
            self._logger.log(ILogger.ERROR, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.")
            return None
        if about["version"] != __version__ or about["gpu"] != _script.gpu:
            self._logger.log(ILogger.ERROR, "The engine plan file is not compatible with this version of TensorRT or this GPU.")
            return None
        return ICudaEngine(about, model, self)


class ICudaEngine:
    def __init__(self, about: dict[str, Any], model: onnx.ModelProto, runtime: Runtime) -> None:
        self._about, self._model, self._runtime = about, model, weakref.ref(runtime)
        self._values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        self._inputs = {value.name for value in model.graph.input}
        _script.live += 1

    def __del__(self) -> None:
        _script.live -= 1
        _script.disorder += self._runtime() is None

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    @property
    def num_optimization_profiles(self) -> int:
        return 1

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name not in self._values:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _DTYPES[self._values[name].type.tensor_type.elem_type][0]

    def get_tensor_shape(self, name: str) -> Dims:
        return _dims(self._values[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        fixed = tuple(self.get_tensor_shape(name))
        return [Dims(shape) for shape in self._about["shapes"].get(name, [fixed] * 3)]

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        nodes = self._engine._model.graph.node
        if not self._engine._about["detailed"]:
            return json.dumps({"Layers": [node.name for node in nodes], "Bindings": []})
        fed_by_dq = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in self._engine._model.graph.initializer)

        def kind(node: onnx.NodeProto) -> str:
            return "Int8" if fed_by_dq & set(node.input) else "Half" if half else "Row major linear FP32"

        return json.dumps({"Layers": [{"Name": node.name, "Outputs": [{"Format/Datatype": kind(node)}]} for node in nodes], "Bindings": []})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._session = engine, None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profiler: IProfiler | None = None
        self._runs = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(least) or not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._inputs if -1 in self._engine.get_tensor_shape(name) and name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        shape = self._shapes.get(name, self._engine.get_tensor_shape(name))
        if -1 in shape and self._shapes:  # only the first size is open, and it is the batch
            shape = (next(iter(self._shapes.values()))[0], *shape[1:])
        return Dims(shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = int(memory)
        return name in self._engine._values

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index == 0

    @property
    def profiler(self) -> IProfiler | None:
        return self._profiler

    @profiler.setter
    def profiler(self, value: IProfiler) -> None:
        self._profiler = value

    @property
    def engine(self) -> ICudaEngine:
        return self._engine

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, model = self._engine, self._engine._model
        if set(self._addresses) != set(engine._values) or self.infer_shapes():
            return False
        if self._session is None:
            self._session = _session(model)
        feeds = {name: self._array(name).copy() for name in engine._inputs}
        for value, result in zip(model.graph.output, self._session.run(None, feeds), strict=True):
            self._array(value.name)[...] = _script.spoil(model, value.name, result)
        self._runs += 1
        if self._profiler is not None:
            for node in model.graph.node:
                self._profiler.report_layer_time(node.name, 0.5)
        return True

    def _array(self, name: str) -> Any:
        """The memory at a tensor's address, which is the host's: no GPU is here."""
        shape = tuple(self.get_tensor_shape(name))
        kind = np.dtype(nptype(self._engine.get_tensor_dtype(name)))
        raw = (ctypes.c_byte * (math.prod(shape) * kind.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(raw, kind).reshape(shape)


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    # with it, this ONNX Runtime computes convolutions with FP16 scales wrongly
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )


def _usable(logger: ILogger) -> ILogger:
    if not getattr(logger, "_made", False):
        raise TypeError("tensorrt.ILogger.__init__() must be called when overriding __init__")
    if not _script.starts:
        logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35.")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return logger
