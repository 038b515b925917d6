"""What tensors of a float32 ONNX graph do on real clips: their span, their histogram, the greatest value of each channel.

In: the path of a graph and feeds (dicts of arrays, one at a time). Every feed is reduced to a few numbers per tensor before the next one is
made, so that memory holds the tensors of one feed, however long the set is. A value that is not finite ends it at once, with the name of
the first tensor in graph order that shows one: ONNX Runtime's ReduceMin and ReduceMax skip NaN, which is why sums are taken as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError, SageError

BINS = 2048
_CHUNK = 1 << 18

Feed: TypeAlias = dict[str, NDArray[Any]]
Feeds: TypeAlias = Callable[[], Iterable[Feed]]
Spans: TypeAlias = dict[str, tuple[float, float]]
Where: TypeAlias = Callable[[], str]
"""Says in words which clip the feed in hand is of, for errors."""


def nowhere() -> str:
    """Nothing is known of the feed in hand."""
    return "a feed"


def spans(graph: Path, feeds: Feeds, tensors: Collection[str], where: Where = nowhere) -> Spans:
    """Tensor -> (least, greatest value) over all of `feeds`. Raises CompileError as `collect` of `ranges` does."""
    least: dict[str, float] = {}
    greatest: dict[str, float] = {}
    for low, high in _extremes(graph, feeds, tensors, {}, where):
        for name in tensors:
            least[name] = min(least.get(name, np.inf), float(low[name]))
            greatest[name] = max(greatest.get(name, -np.inf), float(high[name]))
    return {name: (least[name], greatest[name]) for name in tensors}


def channel_spans(
    graph: Path, feeds: Feeds, axes: Mapping[str, int], where: Where = nowhere
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Tensor -> float32 [C], [C]: least and greatest value of each channel over all of `feeds`; `axes` is tensor -> its channel axis, below zero."""
    found: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for low, high in _extremes(graph, feeds, list(axes), axes, where):
        for name in axes:
            least, greatest = found.get(name, (low[name], high[name]))
            found[name] = np.minimum(least, low[name]), np.maximum(greatest, high[name])
    return found


class Histogram:
    """Counts of values in `BINS` equal bins over (-span, span); `low` and `high` are the least and the greatest value."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        # One step wider than the data: a second pass may differ in the last bit.
        self.span = max(abs(low), abs(high)) * 1.0001
        self.counts = np.zeros(BINS, np.int64)

    @property
    def edges(self) -> NDArray[np.float64]:
        """float64 [BINS + 1]; the one in the middle is zero."""
        return np.linspace(-self.span, self.span, BINS + 1)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count `values`, of any shape; zero belongs to the first bin above the middle."""
        flat, per_unit = values.reshape(-1), np.float32(BINS / (2 * self.span))
        for start in range(0, flat.size, _CHUNK):
            places = np.floor(flat[start : start + _CHUNK] * per_unit).astype(np.int32) + BINS // 2
            self.counts += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def histograms(graph: Path, feeds: Feeds, spans: Spans, where: Where = nowhere) -> dict[str, Histogram]:
    """Histograms of the tensors in `spans` (from a first pass over the same feeds) that take more than one value."""
    found = {name: Histogram(low, high) for name, (low, high) in spans.items() if low < high}
    if not found:
        return {}
    for values in outputs(graph, feeds, list(found), where):
        for name, value in values.items():
            found[name].add(value)
    return found


def _extremes(
    graph: Path, feeds: Feeds, tensors: Collection[str], axes: Mapping[str, int], where: Where
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """Of each feed the least and the greatest value of each tensor, over all axes or all but the one in `axes`; every value was finite."""
    from onnx import TensorProto, helper

    wanted = set(tensors)
    order: list[str] = []

    def extend(model: Any) -> list[str]:
        order.extend(name for name in _names(model) if name in wanted)
        ranks = _ranks(model, set(axes))
        for name in order:
            over: list[str] = []
            if name in axes:
                over = [f"{name}.sage_axes"]
                others = [axis for axis in range(-ranks[name], 0) if axis != axes[name]]
                model.graph.initializer.append(helper.make_tensor(over[0], TensorProto.INT64, [len(others)], others))
            for op, inputs in (("ReduceMin", [name, *over]), ("ReduceMax", [name, *over]), ("ReduceSum", [name])):
                model.graph.node.append(helper.make_node(op, inputs, [f"{name}.sage_{op}"], keepdims=0, name=f"{name}.sage_{op}"))
        return [f"{name}.sage_{op}" for name in order for op in ("ReduceMin", "ReduceMax", "ReduceSum")]

    with _Session(graph, wanted, extend) as session:
        for values in session.run(feeds, where):
            for name in order:
                if not np.isfinite(values[f"{name}.sage_ReduceSum"]):
                    raise CompileError(f"{Path(graph).stem}: tensor {name!r} is not finite in {where()}; the model overflows, train it anew")
            low, high = ({name: values[f"{name}.sage_{op}"] for name in order} for op in ("ReduceMin", "ReduceMax"))
            yield low, high


def outputs(graph: Path, feeds: Feeds, tensors: Collection[str], where: Where = nowhere) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Of each feed the whole `tensors`."""
    wanted = set(tensors)
    with _Session(graph, wanted, lambda model: [name for name in _names(model) if name in wanted]) as session:
        yield from session.run(feeds, where)


class _Session:
    """An ONNX Runtime session over a copy of a graph whose outputs are what `extend` returns; the copy goes away at the end."""

    def __init__(self, graph: Path, tensors: set[str], extend: Callable[[Any], list[str]]) -> None:
        self._graph, self._tensors, self._extend = Path(graph), tensors, extend

    def __enter__(self) -> _Session:
        import onnx

        onnxruntime = ort.load()
        try:
            model = onnx.load(self._graph)
            names = _names(model)
            if missing := sorted(self._tensors - set(names)):
                raise CompileError(f"tensor {missing[0]!r} is not in the graph ({len(missing)} missing); the ranges belong to another export")
            self._inputs = {value.name for value in model.graph.input}
            self.wanted = self._extend(model)
            del model.graph.output[:]
            outputs = [name for name in self.wanted if name not in self._inputs]
            model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            with tempfile.TemporaryDirectory(prefix="sage-ranges-") as folder:
                path = Path(folder) / "graph.onnx"
                onnx.save(model, path)
                del model
                self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._outputs = outputs
        except (SageError, OSError):
            raise
        except Exception as error:  # onnx, protobuf and ONNX Runtime raise classes of their own
            raise self._failed(error) from error
        return self

    def run(self, feeds: Feeds, where: Where) -> Iterator[dict[str, NDArray[Any]]]:
        """The wanted tensors of each feed. Raises CompileError when there is no feed or an input is not finite."""
        seen = 0
        for feed in feeds():
            for name, value in feed.items():
                if not np.isfinite(value).all():
                    raise CompileError(
                        f"{self._graph.stem}: its input {name!r} is not finite in {where()}; prepare the corpus again, or train the model anew"
                    )
            try:
                values = self._session.run(self._outputs, feed) if self._outputs else []
            except Exception as error:  # ONNX Runtime raises classes of its own
                raise self._failed(error) from error
            yield {**dict(zip(self._outputs, values, strict=True)), **{name: feed[name] for name in self.wanted if name in self._inputs}}
            seen += 1
        if not seen:
            raise CompileError("no calibration data: the training split gave no window; check the store with `sage-edge evaluate`")

    def _failed(self, error: Exception) -> CompileError:
        first = "".join(str(error).strip().splitlines()[:1])
        return CompileError(
            f"ONNX Runtime cannot calibrate {self._graph.name} ({type(error).__name__}: {first}); "
            f"see whether {tempfile.gettempdir()} has room for a copy of it"
        )

    def __exit__(self, *_: object) -> None:
        del self._session


def _names(model: Any) -> list[str]:
    """All tensors that a feed gives a value to, in graph order."""
    return [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output if name]


def _ranks(model: Any, tensors: set[str]) -> dict[str, int]:
    """Tensor -> number of axes, for all of `tensors`."""
    from onnx import shape_inference

    found: dict[str, int] = {}
    for graph in (model.graph, None):
        if not tensors <= set(found):
            graph = graph or shape_inference.infer_shapes(model).graph
            infos = [*graph.input, *graph.value_info, *graph.output]
            found.update({info.name: len(info.type.tensor_type.shape.dim) for info in infos if info.type.tensor_type.HasField("shape")})
    return found
