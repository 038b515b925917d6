"""Activation ranges of ONNX graphs: what each tensor spans on real clips, by min-max, entropy, percentile, least squared error or the best of these.

In: the path of a float32 ONNX graph and feeds (dicts of arrays, one at a time). Out: tensor name -> (low, high) in the tensor's own
unit, float, and the method that found it. One pass finds the spans and a second, where the method asks for it, a histogram over each span
(`observe`): memory holds the tensors of one feed, however long the set is. A tensor of one value c gets (c, c) by any method.

    sage-edge calibrate CKPT --data DATA --out ranges.json
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError, UsageError
from sage_edge.runtime.files import atomic_file

from . import rounding
from .clips import Clip, ClipSet
from .observe import Feeds, Histogram, Where, histograms, nowhere, spans

METHODS = ("minmax", "entropy", "percentile", "mse")
"""`mse` is the range of least squared error of 8 bits, `rounding.least`."""
AUTO = "auto"
"""Per tensor the method whose range has the least `rounding.loss`, the error of both emitters together; of equal ones the first in METHODS."""
PERCENTILE = 99.999
"""Share of the values that the `percentile` method keeps, both sides together, in percent."""
ENTROPY_BINS, ENTROPY_LEVELS = 1024, 128
"""Entropy looks for the span, in steps of a bin, whose values survive 128 levels best (Migacz, GTC 2017, S7310)."""

GraphRanges: TypeAlias = dict[str, tuple[float, float]]


class Found(NamedTuple):
    """The range of one tensor and the method that found it."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Ranges:
    """Ranges of all graphs of a model: graph name -> tensor name -> (low, high), with where they come from."""

    method: str
    set_sha256: str
    clips: int
    graphs: dict[str, GraphRanges]
    methods: dict[str, dict[str, str]] = field(default_factory=dict)
    """graph name -> tensor name -> the method of its range, where that is not `method`."""
    clip_set: ClipSet | None = None
    """The clips they were found on; None in files of version 0.1."""
    search: Mapping[str, Any] | None = None
    """What `calibrate --search` found, plain JSON."""
    equalised: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """graph name -> tensor name -> log2 of the factors of its channels: the ranges hold for the graph after `equalise.apply` of these."""

    @classmethod
    def of(cls, method: str, chosen: ClipSet, found: Mapping[str, Mapping[str, Found]]) -> Ranges:
        """From what `find` returned for each graph."""
        graphs = {graph: {name: (each.low, each.high) for name, each in tensors.items()} for graph, tensors in found.items()}
        methods = {graph: {name: each.method for name, each in tensors.items() if each.method != method} for graph, tensors in found.items()}
        return cls(method, chosen.sha256, len(chosen.clips), graphs, {g: m for g, m in methods.items() if m}, chosen)

    def method_of(self, graph: str, tensor: str) -> str:
        """The method that found the range of `tensor`."""
        return self.methods.get(graph, {}).get(tensor, self.method)

    def save(self, path: Path) -> None:
        """Write as JSON with one line per tensor and per clip, sorted, so that two files can be compared with `diff`."""
        parts = [f'{{"method": {json.dumps(self.method)}, "set_sha256": {json.dumps(self.set_sha256)}, "clips": {self.clips}']
        if self.clip_set:
            parts.append(f'"set": {_by_line(asdict(self.clip_set))}')
        if self.equalised:
            parts.append(f'"equalised": {_by_line(self.equalised)}')
        if self.search is not None:
            parts.append(f'"search": {_by_line(self.search)}')
        tables = []
        for graph, tensors in sorted(self.graphs.items()):
            rows = [
                f"  {json.dumps(name)}: [{low:.9g}, {high:.9g}, {json.dumps(self.method_of(graph, name))}]"
                for name, (low, high) in sorted(tensors.items())
            ]
            tables.append(f" {json.dumps(graph)}: {{\n" + ",\n".join(rows) + "\n }")
        parts.append('"graphs": {\n' + ",\n".join(tables) + "\n}}\n")
        with atomic_file(path) as work:
            work.write_text(",\n".join(parts), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read what `save` of this or an earlier version wrote; CompileError when it is not that."""
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            method, clip_set = str(raw["method"]), _clip_set(raw.get("set"))
            graphs, methods = {}, {}
            for graph, tensors in raw["graphs"].items():
                graphs[str(graph)] = {str(name): (float(row[0]), float(row[1])) for name, row in tensors.items()}
                if not all(math.isfinite(end) for row in graphs[str(graph)].values() for end in row):
                    raise ValueError("a range that is not finite")
                other = {str(name): str(row[2]) for name, row in tensors.items() if len(row) > 2 and row[2] != method}
                methods.update({str(graph): other} if other else {})
            search = raw.get("search")
            if search is not None and not all(isinstance(group, str) for group in [search["precision"], *search["float_groups"]]):
                raise TypeError("precision or float_groups of its search are no names")
            equalised = {str(g): {str(t): [int(e) for e in row] for t, row in places.items()} for g, places in raw.get("equalised", {}).items()}
            ranges = cls(method, str(raw["set_sha256"]), int(raw["clips"]), graphs, methods, clip_set, search, equalised)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise CompileError(f"{path} is no ranges file ({type(error).__name__}: {error}); write one with `sage-edge calibrate`") from error
        if clip_set and clip_set.sha256 != ranges.set_sha256:
            raise CompileError(f"{path}: its clips have the hash {clip_set.sha256[:12]}, it says {ranges.set_sha256[:12]!r}; calibrate again")
        return ranges


def _by_line(value: Mapping[str, Any]) -> str:
    """JSON of `value`, sorted, with a line for each key and for each item of a list or table in it."""
    rows = []
    for key, item in sorted(value.items()):
        if item and isinstance(item, (list, tuple)):
            text = "[\n" + ",\n".join(f"  {json.dumps(each, sort_keys=True)}" for each in item) + "\n ]"
        elif item and isinstance(item, dict):
            text = "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(each, sort_keys=True)}" for name, each in sorted(item.items())) + "\n }"
        else:
            text = json.dumps(item)
        rows.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(rows) + "\n}"


def _clip_set(raw: Any) -> ClipSet | None:
    if raw is None:
        return None
    clips = tuple(Clip(str(clip["trial"]), int(clip["newest"]), str(clip["why"])) for clip in raw["clips"])
    return ClipSet(str(raw["split"]), int(raw["length"]), str(raw["store_digest"]), clips)


def check_method(method: str) -> str:
    """`method` itself, or UsageError naming the ones there are."""
    if method not in (*METHODS, AUTO):
        raise UsageError(f"unknown calibration method {method!r}; one of {', '.join((*METHODS, AUTO))}")
    return method


def collect(graph: Path, feeds: Feeds, tensors: Collection[str], method: str = "percentile", where: Where = nowhere) -> GraphRanges:
    """The ranges of `find`, without the methods."""
    return {name: (each.low, each.high) for name, each in find(graph, feeds, tensors, method, where).items()}


def find(graph: Path, feeds: Feeds, tensors: Collection[str], method: str = "percentile", where: Where = nowhere) -> dict[str, Found]:
    """Ranges of `tensors` (names of float tensors in `graph`, its inputs and outputs included) over all of `feeds`.

    `feeds()` starts the feeds anew each time it is called (twice for all methods but `minmax`). A tensor that never leaves zero gets
    (0, 0). Raises CompileError when there is no feed, when a tensor is not in the graph, or when a value is not finite: with the name of
    the graph, and of the feed as `where` tells it.
    """
    check_method(method)
    if not tensors:
        return {}
    spanned = spans(graph, feeds, tensors, where)
    found = {name: Found(low, high, METHODS[0] if method == AUTO else method) for name, (low, high) in spanned.items()}
    if method != "minmax":
        found |= {name: choose(histogram, method) for name, histogram in histograms(graph, feeds, spanned, where).items()}
    return found


def choose(histogram: Histogram, method: str) -> Found:
    """The range of one tensor by `method`."""
    ways = METHODS if method == AUTO else (method,)
    found = [Found(*_WAYS[way](histogram), way) for way in ways]
    losses = rounding.loss(histogram, np.array([each.low for each in found]), np.array([each.high for each in found]))
    return found[int(np.argmin(losses))]


def _span(histogram: Histogram) -> tuple[float, float]:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> tuple[float, float]:
    return _onnxruntime(histogram, "percentile")


def _entropy(histogram: Histogram) -> tuple[float, float]:
    return _onnxruntime(histogram, "entropy", merge=len(histogram.counts) // ENTROPY_BINS)


_WAYS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": _span,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": rounding.least,
}


def _onnxruntime(histogram: Histogram, method: str, merge: int = 1) -> tuple[float, float]:
    """What ONNX Runtime's collector makes of the histogram with every `merge` bins made one."""
    ort.load()
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method=method, symmetric=False, num_bins=ENTROPY_BINS, num_quantized_bins=ENTROPY_LEVELS, percentile=PERCENTILE, scenario="same"
    )
    counts, edges = histogram.counts.reshape(-1, merge).sum(1), histogram.edges[::merge].astype(np.float32)
    low, high, span = (np.float32(value) for value in (histogram.low, histogram.high, histogram.span))
    collector.histogram_dict["x"] = (counts, edges, low, high, span)
    # ONNX Runtime prints its progress to stdout, where only results belong.
    with contextlib.redirect_stdout(io.StringIO()):
        found = collector.compute_collection_result()["x"]
    return float(found[0]), float(found[1])
