"""TensorRT behind Engine: a plan that was built on this machine, pinned arrays, one stream per session, and a CUDA graph after the first run.

    sage-edge compile NAME.sage --target tensorrt                       # builds the plans, once per machine
    visual = TensorRTEngine(Path("NAME.sage/onnx/visual.int8-trt.onnx"), batch=1)
    audio = TensorRTEngine(Path("NAME.sage/onnx/audio.int8-trt.onnx"), batch=1, beside=visual)      # on the same stream

One path for TensorRT 10.3 to 11.4. Inputs and outputs are float32. A run copies all inputs in as one block, computes, copies all outputs out as
one block and waits; from the second run on the three are one launch of a CUDA graph. Where capturing is not possible it runs without, and says so.
A run of another number of items than the one before begins anew with that: shapes, a run without a graph, a capture.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..trt import line, load, logger
from . import plans
from .arrays import check_items, check_like, static_shape
from .cuda import Cuda, Graph, open_cuda

if TYPE_CHECKING:
    import tensorrt as trt

_ALIGN = 256
"""Bytes that TensorRT wants tensors to start on."""


@dataclass(frozen=True)
class Layer:
    """One layer of an engine and its median time."""

    name: str
    ms: float


class Lane:
    """A GPU and one stream, for engines that take turns; the last to leave closes both."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self._users, self._said = cuda, 1, False
        try:
            with cuda.current():
                self.stream = cuda.stream()
        except BaseException:
            cuda.close()
            raise

    def join(self) -> Lane:
        """One user more."""
        self._users += 1
        return self

    def leave(self) -> None:
        """One user less. Raises EngineError, and counts as not done, where the GPU's context is out of reach."""
        if self._users == 1:
            self.cuda.close()
        self._users -= 1

    def say_once(self, text: str) -> None:
        """One line for all who share the lane."""
        if not self._said:
            self._said = True
            print(f"note: {text}", file=sys.stderr, flush=True)


class _Block:
    """Float32 arrays in one piece of pinned memory, and their places on the GPU."""

    def __init__(self, cuda: Cuda, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._offsets, size = dict[str, int](), 0
        for name, shape in shapes.items():
            self._offsets[name] = size
            size += -(-int(np.prod(shape)) * 4 // _ALIGN) * _ALIGN
        self.memory = cuda.alloc(size)
        self.host = cuda.pinned(size)
        self.arrays: dict[str, NDArray[Any]] = {
            name: self.host[at : at + int(np.prod(shapes[name])) * 4].view(np.float32).reshape(shapes[name]) for name, at in self._offsets.items()
        }

    def address(self, name: str) -> int:
        """Where the GPU has it."""
        return self.memory.address + self._offsets[name]


class _Runner:
    """A TensorRT context with its shapes, for `items` of the batch, and addresses set. Raises EngineError."""

    def __init__(self, engine: trt.ICudaEngine, blocks: list[_Block], items: int, profiler: Any = None) -> None:
        self._blocks = blocks
        self._context = engine.create_execution_context()
        try:
            self._set_up(engine, items, profiler)
        except BaseException:
            self.close()
            raise

    def enqueue(self, lane: Lane) -> bool:
        """Put copies and computation on the stream; whether TensorRT took it."""
        inputs, outputs = self._blocks
        lane.cuda.copy_in(inputs.memory.address, inputs.host, lane.stream)
        taken = bool(self._context.execute_async_v3(lane.stream.number))
        lane.cuda.copy_out(outputs.host, outputs.memory.address, lane.stream)
        return taken

    def close(self) -> None:
        """Let go of the context."""
        self._context = None

    def take(self, engine: trt.ICudaEngine, items: int) -> None:
        """Compute the first `items` of the batch from now on."""
        inputs, outputs = ({name: (items, *array.shape[1:]) for name, array in block.arrays.items()} for block in self._blocks)
        for name, shape in inputs.items():
            if not self._context.set_input_shape(name, shape):
                least, _, most = (list(shape) for shape in engine.get_tensor_profile_shape(name, 0))
                raise EngineError(f"its engine takes {name} of {least} to {most}, not {list(shape)}")
        if missing := self._context.infer_shapes():
            raise EngineError(f"it needs values for {', '.join(missing)}")
        for name, shape in {**inputs, **outputs}.items():
            if (found := tuple(self._context.get_tensor_shape(name))) != shape:
                raise EngineError(f"{name} is {list(found)}, not {list(shape)}")

    def _set_up(self, engine: trt.ICudaEngine, items: int, profiler: Any) -> None:
        if self._context is None:
            raise EngineError("there is no room on the GPU to run it; close what else uses the GPU")
        if profiler is not None:
            self._context.profiler = profiler
        self.take(engine, items)
        for block in self._blocks:
            for name in block.arrays:
                if not self._context.set_tensor_address(name, block.address(name)):
                    raise EngineError(f"it takes no address for {name}")


class TensorRTEngine:
    """See `sage_edge.runtime.engines.Engine`. `path` is the bundle's ONNX file; its plan is found in the user's cache folder.

    `beside` is an engine whose GPU and stream are shared; a `plan` that is given is one that its builder has not stored yet. The attribute `plan`
    says what was opened. Raises EngineError.
    """

    def __init__(self, path: Path, batch: int, beside: TensorRTEngine | None = None, plan: plans.Plan | None = None) -> None:
        self._path, self._batch, self._items, self._fixed = path, batch, batch, False
        self._trt = load()
        self._runtime: Any = None
        self._engine: Any = None
        self._runner: _Runner | None = None
        self._blocks: list[_Block] = []
        self._graph: Graph | None = None
        self._runs = 0
        self._lane: Lane | None = beside._open_lane().join() if beside else Lane(open_cuda())
        try:
            device = self._lane.cuda.device
            self.plan = plan or plans.find(path, str(self._trt.__version__), device.sm, device.name)
            with self._lane.cuda.current():
                self._load(self.plan.read())
                self._runner = self._prepared()
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        return self._blocks[0].arrays if self._blocks else {}

    @property
    def outputs(self) -> dict[str, NDArray[Any]]:
        return self._blocks[1].arrays if self._blocks else {}

    @property
    def threads(self) -> int:
        """One: the host only starts the work and waits."""
        return 1

    def read_from(self, name: str, array: NDArray[Any]) -> None:
        self._open_lane()
        own = self.inputs.get(name)
        if array is not own:
            check_like(self._path, name, array, own)
            np.copyto(self.inputs[name], array)

    def run(self, items: int | None = None) -> None:
        lane = self._open_lane()
        items = self._batch if items is None else check_items(self._path, items, self._batch)
        with lane.cuda.current():
            if items != self._items and not self._fixed:
                self._take(lane, items)
            if self._graph:
                self._graph.launch(lane.stream)
            else:
                self._enqueue()
            lane.stream.synchronise()
            self._runs += 1
            # TensorRT may still allocate in its first run, which no graph can hold.
            if self._runs == 1:
                try:
                    self._graph = lane.cuda.capture(lane.stream, self._enqueue)
                except EngineError as error:
                    lane.say_once(f"{self._path.name} runs without a CUDA graph, which costs some time per run: {error}")

    def profile(self, runs: int = 10) -> list[Layer]:
        """The median time of each layer over `runs` runs on what `inputs` holds, in the order of the engine. Graphs are not used for it."""
        lane, times, base = self._open_lane(), dict[str, list[float]](), self._trt.IProfiler

        class Times(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)
                self.now: dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.now[layer_name] = self.now.get(layer_name, 0.0) + ms

        profiler = Times()
        with lane.cuda.current():
            runner = self._prepared(profiler)
            try:
                for run in range(1 + runs):
                    profiler.now = {}
                    self._enqueue(runner)
                    lane.stream.synchronise()
                    for name, ms in profiler.now.items() if run else ():
                        times.setdefault(name, []).append(ms)
            finally:
                # also after an error nothing may go that the GPU still works on
                with contextlib.suppress(EngineError):
                    lane.stream.synchronise()
                runner.close()
        return [Layer(name, statistics.median(values)) for name, values in times.items()]

    def close(self) -> None:
        if (lane := self._lane) is None:
            return
        try:
            with lane.cuda.current():
                if self._runner:
                    try:
                        lane.stream.synchronise()
                    except EngineError as error:
                        lane.cuda.unfreed.append(str(error))
                lane.cuda.free(*([self._graph] if self._graph else []))
                # in this order, and while the GPU's context is current
                if self._runner:
                    self._runner.close()
                self._runner = None
                self._engine = None
                self._runtime = None
                lane.cuda.free(*(block.memory for block in self._blocks))
                self._graph, self._blocks = None, []
            lane.leave()
        except EngineError as error:
            lane.cuda.unfreed.append(str(error))
        else:
            self._lane = None

    def _open_lane(self) -> Lane:
        if self._lane is None:
            raise EngineError(f"{self._path.name} was closed; open it again")
        return self._lane

    def _load(self, plan: bytes) -> None:
        log = logger(self._trt)
        mark = log.mark()
        try:
            self._runtime = self._trt.Runtime(log)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        except Exception as error:  # pybind11 has several classes
            raise self._broken("its engine cannot be loaded", mark, error) from None
        if self._engine is None:
            raise self._broken("its engine cannot be loaded", mark)
        kinds: dict[str, dict[str, tuple[int, ...]]] = {"INPUT": {}, "OUTPUT": {}}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            dtype = self._engine.get_tensor_dtype(name)
            if dtype != self._trt.DataType.FLOAT:
                raise EngineError(f"{self._path}: {name} is {dtype} in its engine, only float32 is passed in and out; export the graph again")
            sizes = [size if size >= 0 else "n" for size in self._engine.get_tensor_shape(name)]
            self._fixed = self._fixed or (bool(sizes) and sizes[0] != "n")
            shape = static_shape(self._path, name, sizes, self._batch)
            kinds["INPUT" if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT else "OUTPUT"][name] = shape
        cuda = self._open_lane().cuda
        for shapes in kinds.values():
            self._blocks.append(_Block(cuda, shapes))

    def _take(self, lane: Lane, items: int) -> None:
        """Go over to `items` of the batch: the graph is of the count before."""
        mark = logger(self._trt).mark()
        lane.cuda.free(*([self._graph] if self._graph else []))
        self._graph, self._runs, self._items = None, 0, 0
        try:
            if self._runner:
                self._runner.take(self._engine, items)
        except EngineError as error:
            raise self._broken(str(error), mark) from None
        self._items = items

    def _prepared(self, profiler: Any = None) -> _Runner:
        mark = logger(self._trt).mark()
        try:
            return _Runner(self._engine, self._blocks, self._items or self._batch, profiler)
        except EngineError as error:
            problem = str(error)
        # Not from there: a traceback that somebody keeps would keep TensorRT's objects in its frames, and they must not outlive the GPU's context.
        raise self._broken(problem, mark)

    def _enqueue(self, runner: _Runner | None = None) -> None:
        runner, mark = runner or self._runner, logger(self._trt).mark()
        if runner is None or not runner.enqueue(self._open_lane()):
            raise self._broken("it failed to run", mark)

    def _broken(self, what: str, mark: int, error: BaseException | None = None) -> EngineError:
        """What happened ("fact" or "fact; fix"), with what TensorRT said of it."""
        said = [text for severity, text in logger(self._trt).since(mark) if severity == "error"]
        reason = said[-1] if said else line(error) if error else ""
        what, _, fix = what.partition("; ")
        because = f" ({reason})" if reason else ""
        fix = fix or f"build it again with {plans.build_command(self._path)}"
        return EngineError(f"{self._path}: {what}{because} with TensorRT {self._trt.__version__}; {fix}")
