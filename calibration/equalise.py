"""Channel equalisation: make the channels of a quantized tensor equally wide, by factors folded into what makes it and what reads it.

    gains = equalise(Path("visual.onnx"), feeds, Path("equal.onnx"), quantized, emit)

A tensor with one range for all channels wastes levels on those that are narrow. Dividing channel j by s_j where the tensor is made and multiplying
the weights that read it by s_j leaves the float graph as it is: behind LayerNormalization (its scale and bias) in front of matrices
(SmoothQuant, arXiv 2211.10438, eq. 4), and between two convolutions with nothing but a ReLU or LeakyReLU in between (cross-layer
equalisation, arXiv 1906.04721). Both only where nothing else reads the tensor. s_j = max|X_j|^a / max|W_j|^(1-a), rounded to a power of two:
then no bit of the float graph's output changes. It is done only where it pays: at the places whose readers lose less to 8 bits with it, and
only when the whole graph then does, too, by more than chance. Factors come from every other feed, errors from the rest: a channel that is
narrow by chance would be widened, and cut off on other data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError

from .observe import Feeds, Where, channel_spans, nowhere, outputs
from .ranges import GraphRanges, collect

if TYPE_CHECKING:
    import onnx

ALPHAS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the burden that the weights take, tried one after the other; 1 makes all channels of the tensor as wide as each other."""
MIN_GAIN_DB = 0.5
"""A place that gains less is left alone."""
_MAX_EXPONENT = 8
_TINY = float(np.finfo(np.float32).tiny)
_ROWS, _PICTURES = 512, 4
"""Rows of the last axis in front of matrices, and entries of the first in front of convolutions, that are measured, at most, of each feed."""

Floats = NDArray[np.float32]
Exponents = NDArray[np.int32]
Emit: TypeAlias = "Callable[[Path, GraphRanges], onnx.ModelProto]"


@dataclass(frozen=True)
class Place:
    """A tensor whose channels can be rescaled: `maker` gives it its factors, `readers` take them back; `axis` is below zero."""

    tensor: str
    made: str
    """What `maker` puts out: the same tensor, or the one in front of the activation."""
    slope: float
    """Of the activation between the two, for negative values: 0 ReLU, 1 none."""
    maker: str
    readers: tuple[str, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Gain:
    """What equalising `place` does to the signal to quantization noise of its readers, in dB; `alpha` 0 where it was left alone."""

    place: Place
    alpha: float
    before_db: float
    after_db: float
    exponents: Exponents
    """log2 of the factors, int32 [C]."""


def candidates(model: onnx.ModelProto) -> list[Place]:
    """The places of `model` that can be equalised without changing what it computes, in graph order."""
    graph = model.graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    public = {value.name for value in graph.output}

    def own(node: Any, *places: int) -> bool:
        """Whether these inputs are weights that no other node reads."""
        return all(len(node.input) > i and node.input[i] in weights and uses[node.input[i]] == 1 for i in places)

    found = []
    for node in graph.node:
        tensor, slope = node.output[0], 1.0
        if node.op_type == "LayerNormalization" and own(node, 1, 2) and len(weights[node.input[1]]) == 1:
            kind, axis = "MatMul", -1
        elif node.op_type == "Conv" and own(node, 1, *([2] if len(node.input) > 2 else [])):
            kind, axis = "Conv", 1 - len(weights[node.input[1]])
            behind = readers.get(tensor, [])
            if len(behind) == 1 and behind[0].op_type in ("Relu", "LeakyRelu") and tensor not in public:
                tensor, slope = behind[0].output[0], _slope(behind[0])
        else:
            continue
        behind = readers.get(tensor, [])
        if behind and tensor not in public and all(_takes(each, tensor, kind) and own(each, 1) for each in behind):
            found.append(Place(tensor, node.output[0], slope, node.name, tuple(each.name for each in behind), axis))
    return found


def equalise(
    graph: Path, feeds: Feeds, out: Path, tensors: Collection[str], emit: Emit, method: str = "percentile", where: Where = nowhere
) -> list[Gain]:
    """Write the float graph at `graph` to `out` with those places equalised that gain by it; one entry for each place among `tensors`.

    `tensors` are those that `emit(path, ranges)` quantizes, with ranges by `method`. With fewer than six feeds nothing is done. Raises
    CompileError as `ranges.find` does.
    """
    import onnx

    work = _Work(onnx.load(graph))
    places = [place for place in candidates(work.model) if place.tensor in tensors]
    gains = _gains(graph, work, places, tensors, feeds, where) if places and any(True for _ in _measured(feeds)()) else []
    for gain in gains:
        fold(work.model, gain.place, gain.exponents)
    onnx.save(work.model, out)
    if any(gain.alpha for gain in gains):
        before, after = (_signal_to_noise(graph, path, feeds, tensors, emit, method, where) for path in (graph, out))
        if not _pays(after - before):
            onnx.save(onnx.load(graph), out)
            return [Gain(gain.place, 0.0, gain.before_db, gain.before_db, np.zeros_like(gain.exponents)) for gain in gains]
    return gains


def _gains(graph: Path, work: _Work, places: list[Place], tensors: Collection[str], feeds: Feeds, where: Where) -> list[Gain]:
    axes = {name: place.axis for place in places for name in (place.made, place.tensor)}
    spans = channel_spans(graph, _learnt(feeds), axes, where)
    trials = [_Trial(work, place, spans, place.made in tensors) for place in places]
    for values in outputs(graph, _measured(feeds), {place.made for place in places}, where):
        for trial in trials:
            trial.add(values[trial.place.made])
    return [trial.gain() for trial in trials]


def _pays(gains_db: Floats) -> bool:
    """Whether the feeds gain MIN_GAIN_DB in the mean, and that by more than twice the mean's standard error; two feeds are too few to tell."""
    if len(gains_db) < 3:
        return False
    return bool(gains_db.mean() >= max(MIN_GAIN_DB, 2 * gains_db.std(ddof=1) / len(gains_db) ** 0.5))


def _signal_to_noise(graph: Path, folded: Path, feeds: Feeds, tensors: Collection[str], emit: Emit, method: str, where: Where) -> Floats:
    """Of each measured feed, the dB of the outputs of `graph` over what 8 bits change in them when `folded`, which computes the same, is quantized.

    The worst output counts.
    """
    emitted = emit(folded, collect(folded, _learnt(feeds), tensors, method, where))
    session = _session(emitted.SerializeToString())
    names = [value.name for value in session.get_outputs()]
    found = []
    # in step with each other: one feed in memory
    for feed, exact in zip(_measured(feeds)(), outputs(graph, _measured(feeds), names, where), strict=True):
        pairs = [(exact[name], value - exact[name]) for name, value in zip(names, session.run(names, feed), strict=True)]
        powers = [tuple(max(float(np.square(each, dtype=np.float64).sum()), _TINY) for each in pair) for pair in pairs]
        found.append(min(10 * np.log10(signal / error) for signal, error in powers))
    return np.array(found, np.float32)


def _learnt(feeds: Feeds) -> Feeds:
    """Every other feed, from the first on."""
    return lambda: (feed for i, feed in enumerate(feeds()) if not i % 2)


def _measured(feeds: Feeds) -> Feeds:
    """The feeds that are not `_learnt` from."""
    return lambda: (feed for i, feed in enumerate(feeds()) if i % 2)


def apply(model: onnx.ModelProto, exponents: Mapping[str, Sequence[int]]) -> list[str]:
    """Fold factors found before (tensor -> log2 of s_j) into `model`; returns the tensors. Raises CompileError when they are of another graph."""
    places = {place.tensor: place for place in candidates(model)}
    for tensor, values in exponents.items():
        work = _Work(model)
        if tensor not in places or len(values) != len(work.value(work.nodes[places[tensor].maker].input[1])):
            raise CompileError(f"tensor {tensor!r} cannot be equalised in this graph; the ranges belong to another export, calibrate again")
        fold(model, places[tensor], np.array(values, np.int32))
    return list(exponents)


def factors(model: onnx.ModelProto, place: Place, maxima: Floats, alpha: float) -> Exponents:
    """log2 of the factors s_j of `place`, int32 [C], about zero; 0 for a channel that is always zero or that nobody weighs.

    `maxima` float32 [C] are the greatest magnitudes of the channels.
    """
    work = _Work(model)
    widest = [np.abs(work.weight(name)).max(axis=work.other_axes(name)) for name in place.readers]
    wide = np.max(widest, axis=0)
    live = (maxima > 0) & (wide > 0)
    if not alpha or not live.any():
        return np.zeros(len(maxima), np.int32)
    exact = alpha * np.log2(np.where(live, maxima, 1)) - (1 - alpha) * np.log2(np.where(live, wide, 1))
    rounded = np.clip(np.rint(exact - np.median(exact[live])), -_MAX_EXPONENT, _MAX_EXPONENT)
    return np.where(live, rounded, 0).astype(np.int32)


def fold(model: onnx.ModelProto, place: Place, exponents: Exponents) -> None:
    """Divide the channels of `place` by 2^exponents in `model` where they are made, and multiply the weights that read them."""
    work = _Work(model)
    if not exponents.any():
        return
    for name in work.nodes[place.maker].input[1:]:
        value = work.value(name)
        work.store(name, np.ldexp(value, -exponents.reshape(-1, *[1] * (value.ndim - 1))))
    for reader in place.readers:
        work.store(work.nodes[reader].input[1], work.scaled(reader, exponents))


class _Work:
    """A model with its nodes and weights by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: dict[str, Any] = {node.name: node for node in model.graph.node}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def value(self, name: str) -> Floats:
        from onnx import numpy_helper

        found: Floats = numpy_helper.to_array(self._tensors[name])
        return found

    def store(self, name: str, value: Floats) -> None:
        from onnx import numpy_helper

        self._tensors[name].CopyFrom(numpy_helper.from_array(value, name))

    def weight(self, reader: str) -> Floats:
        """The weights of a Conv [M, C, ...] or MatMul [C, M]."""
        return self.value(self.nodes[reader].input[1])

    def other_axes(self, reader: str) -> tuple[int, ...]:
        """Axes of its weights but the one of the channels that come in."""
        ndim, channels = self.weight(reader).ndim, 1 if self.nodes[reader].op_type == "Conv" else 0
        return tuple(axis for axis in range(ndim) if axis != channels)

    def scaled(self, reader: str, exponents: Exponents) -> Floats:
        """The weights times 2^exponents, by the channels that come in."""
        found: Floats = np.ldexp(self.weight(reader), np.expand_dims(exponents, self.other_axes(reader)))
        return found


class _Trial:
    """One place, tried with each alpha: signal and error of its readers in 8 bits, added up over feeds."""

    def __init__(self, work: _Work, place: Place, spans: Mapping[str, tuple[Floats, Floats]], rounds_made: bool) -> None:
        self.place = place
        # Behind a ReLU nothing negative is left to round, and ONNX Runtime and TensorRT round once for both nodes.
        self._rounds_made = rounds_made and place.slope not in (0.0, 1.0)
        bounds = [spans[name] for name in ((place.made, place.tensor) if self._rounds_made else (place.tensor,))]
        maxima = np.max([np.abs(each) for pair in bounds for each in pair], axis=0)
        self.exponents = {alpha: factors(work.model, place, maxima, alpha) for alpha in (0.0, *ALPHAS)}
        self._ranges = {
            alpha: [(float(np.ldexp(low, -e).min()), float(np.ldexp(high, -e).max())) for low, high in bounds] for alpha, e in self.exponents.items()
        }
        self._readers = [_Reader(work, name) for name in place.readers]
        self._weights = {
            alpha: [_rounded_weights(work.scaled(reader.name, e), reader.out_axis) for reader in self._readers] for alpha, e in self.exponents.items()
        }
        self._signal = np.zeros(len(place.readers))
        self._error = {alpha: np.zeros(len(place.readers)) for alpha in self.exponents}

    def add(self, made: Floats) -> None:
        """Measure on what the maker of the place puts out for one feed."""
        made = _some(made, self.place.axis)
        exact = [reader(self._activated(made), reader.weight) for reader in self._readers]
        self._signal += [float(np.square(each, dtype=np.float64).sum()) for each in exact]
        for alpha, exponents in self.exponents.items():
            values = np.ldexp(made, -exponents.reshape(-1, *[1] * (-1 - self.place.axis)))
            *first, last = self._ranges[alpha]
            values = _rounded(values, *first[0]) if first else values
            values = _rounded(self._activated(values), *last)
            for i, reader in enumerate(self._readers):
                self._error[alpha][i] += float(np.square(reader(values, self._weights[alpha][i]) - exact[i], dtype=np.float64).sum())

    def _activated(self, made: Floats) -> Floats:
        return made if self.place.slope == 1 else np.where(made > 0, made, np.float32(self.place.slope) * made)

    def gain(self) -> Gain:
        """The alpha of least error, 0 when it gains less than MIN_GAIN_DB."""
        db = {a: float(-10 * np.log10(np.mean(error / np.maximum(self._signal, _TINY)) + _TINY)) for a, error in self._error.items()}
        best = max(db, key=lambda alpha: db[alpha])
        best = best if db[best] >= db[0.0] + MIN_GAIN_DB else 0.0
        return Gain(self.place, best, db[0.0], db[best], self.exponents[best])


class _Reader:
    """A Conv or MatMul of the model by itself, without its bias, with its weights as an input."""

    def __init__(self, work: _Work, name: str) -> None:
        from onnx import TensorProto, helper

        node = work.nodes[name]
        self.name, self.weight, self.out_axis = name, work.weight(name), 0 if node.op_type == "Conv" else 1
        alone = helper.make_node(node.op_type, ["x", "w"], ["y"])
        alone.attribute.extend(node.attribute)
        values = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in ("x", "w", "y")]
        made = helper.make_model(helper.make_graph([alone], "reader", values[:2], values[2:]), opset_imports=work.model.opset_import, ir_version=10)
        self._session = _session(made.SerializeToString())

    def __call__(self, x: Floats, weight: Floats) -> Floats:
        found: Floats = self._session.run(None, {"x": x, "w": weight})[0]
        return found


def _session(model: bytes) -> Any:
    onnxruntime = ort.load()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _some(values: Floats, axis: int) -> Floats:
    """At most _ROWS evenly spread rows of the last axis, or _PICTURES of the first."""
    if axis == -1:
        values = values.reshape(-1, values.shape[-1])
    count = min(len(values), _ROWS if axis == -1 else _PICTURES)
    some: Floats = values[np.linspace(0, len(values) - 1, count).astype(int)]
    return some


def _rounded(values: Floats, low: float, high: float) -> Floats:
    """`values` in uint8 and back, as `rounding.errors` has it."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, _TINY)
    zero = np.rint(-low / step)
    levels = np.clip(np.rint(values / np.float32(step)), np.float32(-zero), np.float32(255 - zero))
    found: Floats = (levels * np.float32(step)).astype(np.float32)
    return found


def _rounded_weights(weight: Floats, out_axis: int) -> Floats:
    """`weight` in int8 and back, symmetric, a step for each channel that goes out."""
    others = tuple(axis for axis in range(weight.ndim) if axis != out_axis)
    step = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / 127, _TINY)
    found: Floats = (np.rint(weight / step) * step).astype(np.float32)
    return found


def _slope(activation: Any) -> float:
    """What it multiplies negative values by."""
    if activation.op_type == "Relu":
        return 0.0
    return float(next((each.f for each in activation.attribute if each.name == "alpha"), 0.01))


def _takes(node: Any, tensor: str, kind: str) -> bool:
    """Whether `node` multiplies the channels of `tensor` by weights of its own, and by nothing else."""
    if node.op_type != kind or list(node.input).count(tensor) != 1 or node.input[0] != tensor:
        return False
    return all(attribute.name != "group" or attribute.i == 1 for attribute in node.attribute)
