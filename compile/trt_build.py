"""One ONNX graph -> one TensorRT plan, by the same calls from TensorRT 10.3 to 11.4: strongly typed, explicit Q/DQ, no precision flags.

    builder = PlanBuilder(trt.load(), workspace_mb=1024)
    built = builder.build(Path("visual.int8-trt.onnx"), Batches(1, 1, 32), "visual int8")

A build runs in a thread of its own: TensorRT lets go of Python while it works, so Ctrl-C reaches the waiting thread, and the build ends with
the step it is at.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sage_edge.runtime.errors import CompileError, EngineError
from sage_edge.runtime.progress import Progress
from sage_edge.runtime.trt import line, logger

from .timing_cache import TimingCache
from .trt_progress import Phases, monitor

if TYPE_CHECKING:
    import tensorrt as trt

WORKSPACE_MB = 1024
"""Scratch memory that one layer may take. TensorRT's own default is all of the GPU's memory, which on a board is everybody's."""
_MAX_REASONS = 3
_BEGIN_S = 5.0
"""A thread that has not begun by then was interrupted before it was made."""

T = TypeVar("T")


class BuildError(CompileError):
    """TensorRT refused a graph or could not build it; the message is its reason."""


@dataclass(frozen=True)
class Batches:
    """Items per run that an engine takes, and the number its kernels are chosen for."""

    least: int = 1
    best: int = 1
    most: int = 1

    def __str__(self) -> str:
        return f"{self.least}..{self.most}"


@dataclass(frozen=True)
class Built:
    """A plan that loads. `layers` after TensorRT's fusions; `precisions` counts them by the type of their first output; `warnings` are TensorRT's."""

    plan: bytes = field(repr=False)
    seconds: float
    layers: int
    precisions: dict[str, int]
    warnings: tuple[str, ...] = ()


class PlanBuilder:
    """Builds graph after graph with TensorRT's module `trt`.

    `say` gets a line where the timing cache at `cache` cannot be used, and when a build is interrupted. Raises EngineError
    where the builder cannot start, which is what it does without a GPU.
    """

    def __init__(
        self, trt: Any, *, workspace_mb: int = WORKSPACE_MB, cache: Path | None = None, progress: bool = True, say: Callable[[str], None] = print
    ) -> None:
        self._trt, self._workspace_mb, self._progress, self._say = trt, workspace_mb, progress, say
        self._log = logger(trt)
        self._cache = TimingCache(cache, say)
        mark = self._log.mark()
        try:
            self._builder = trt.Builder(self._log)
        except (TypeError, RuntimeError) as error:  # what the bindings make of a factory that returns nothing
            why = _reasons(self._log.since(mark)) or line(error)
            raise EngineError(f"TensorRT {trt.__version__} cannot start its builder ({why}); check the GPU and its driver with nvidia-smi") from None

    def build(self, source: Path | bytes, batches: Batches, label: str) -> Built:
        """Build the graph in a file, or in the bytes of one. Raises BuildError; KeyboardInterrupt ends it with the current step."""
        trt, mark, start_s = self._trt, self._log.mark(), time.monotonic()
        with Progress(label, 100, "%", shown=self._progress) as bar:
            phases = Phases(bar)
            watch = monitor(trt, phases)

            def stop() -> None:
                phases.cancel()
                self._say("interrupted; TensorRT ends with the step it is at")

            try:
                network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
                parser = self._parse(network, source)
                config = self._config(network, batches)
                config.progress_monitor = watch
                self._cache.attach(config)
                serialized = _interruptible(lambda: self._builder.build_serialized_network(network=network, config=config), stop)
                del parser  # not before: it owns the weights of the network
            except (RuntimeError, TypeError, ValueError, MemoryError) as error:
                reason = "; ".join(filter(None, [line(error) or type(error).__name__, _reasons(self._log.since(mark))]))
                raise BuildError(reason) from error
            if serialized is None:
                raise BuildError(_reasons(self._log.since(mark)) or "TensorRT gave no engine and no reason")
            phases.finish()
        self._cache.keep(config)
        plan = bytes(serialized)
        layers, precisions = self._inspect(plan, mark)
        warnings = tuple(text for _, text in self._log.since(mark))
        return Built(plan, round(time.monotonic() - start_s, 3), layers, precisions, warnings)

    def _parse(self, network: trt.INetworkDefinition, source: Path | bytes) -> trt.OnnxParser:
        """Fill the network; raises BuildError with every error of the parser."""
        parser = self._trt.OnnxParser(network, self._log)
        mark = self._log.mark()
        if parser.parse_from_file(str(source)) if isinstance(source, Path) else parser.parse(source):
            return parser
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        texts = [_parser_error(error.node_operator(), error.node_name(), error.desc()) for error in errors]
        raise BuildError(
            "; ".join(dict.fromkeys(texts)) or _reasons(self._log.since(mark)) or "TensorRT's parser refuses the file and gives no reason"
        )

    def _config(self, network: trt.INetworkDefinition, batches: Batches) -> trt.IBuilderConfig:
        trt = self._trt
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, pool_size=self._workspace_mb << 20)
        # float32 that is rounded to 10 bits of mantissa would miss the tolerance of FP32
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        profile = self._builder.create_optimization_profile()
        open_inputs = 0
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            name, shape = tensor.name, tuple(tensor.shape)
            if -1 in shape[1:]:
                raise BuildError(f"input {name} has the shape {list(shape)}, only its first size may be open")
            if shape[:1] == (-1,):
                least, best, most = ((count, *shape[1:]) for count in (batches.least, batches.best, batches.most))
                profile.set_shape(name, min=least, opt=best, max=most)
                open_inputs += 1
        if open_inputs and config.add_optimization_profile(profile) < 0:
            raise BuildError(f"TensorRT refuses the batch sizes {batches}")
        return config

    def _inspect(self, plan: bytes, mark: int) -> tuple[int, dict[str, int]]:
        """Number of layers of a plan, and precision -> how many of them. Raises BuildError for a plan that cannot be loaded."""
        trt = self._trt
        runtime = trt.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError("the engine was built and cannot be loaded: " + (_reasons(self._log.since(mark)) or "TensorRT gives no reason"))
        inspector = engine.create_engine_inspector()
        found = engine.num_layers, precisions_of(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        # each goes before what it came from
        del inspector, engine, runtime
        return found


_TYPES = {
    "int8": re.compile(r"int8", re.IGNORECASE),
    "bf16": re.compile(r"bf16|bfloat16", re.IGNORECASE),
    "fp16": re.compile(r"half|fp16", re.IGNORECASE),
    "fp32": re.compile(r"float|fp32", re.IGNORECASE),
    "integer": re.compile(r"int|bool", re.IGNORECASE),
}
"""How the inspector's "Format/Datatype" reads: "Int8", "Half", or "Thirty-two wide channel vectorized row major Int8 format", by version."""


def precisions_of(information: str) -> dict[str, int]:
    """Precision -> number of layers whose first output has it, from what `EngineInspector.get_engine_information` says; empty where it does not."""
    try:
        layers = json.loads(information)["Layers"]
        formats = [str((layer.get("Outputs") or [{}])[0].get("Format/Datatype", "")) for layer in layers if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    counted = Counter(next((name for name, pattern in _TYPES.items() if pattern.search(text)), "other") for text in formats)
    return dict(sorted(counted.items()))


def _parser_error(operator: str, node: str, text: str) -> str:
    where = f"{operator} {node!r}" if operator and node else operator or node
    return f"{where}: {line(text)}" if where else line(text)


def _reasons(messages: list[tuple[str, str]]) -> str:
    """The last errors; empty where there are none."""
    return "; ".join([text for severity, text in messages if severity == "error"][-_MAX_REASONS:])


def _interruptible(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """The result of `work`, which runs in another thread; when this one is interrupted, `stop` is called, and `work` waited for."""
    results: list[T] = []
    errors: list[BaseException] = []
    begun, over = threading.Event(), threading.Event()

    def body() -> None:
        begun.set()
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    try:
        threading.Thread(target=body, name="TensorRT builder", daemon=True).start()
        over.wait()  # not Thread.join: one that is interrupted takes the thread for ended (bpo-45274)
    except BaseException:
        stop()
        if begun.wait(_BEGIN_S):
            over.wait()
        raise
    if errors:
        raise errors[0]
    return results[0]
