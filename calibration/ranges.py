"""Activation ranges of ONNX graphs: what each tensor spans on real clips, by min-max, entropy or percentile.

In: the path of a float32 ONNX graph and feeds (dicts of arrays, one at a time). Out: tensor name -> (low, high) in the tensor's own
unit, float. ONNX Runtime's calibrators do the statistics; they are handed one feed at a time and merge, so that memory holds the
tensors of one feed however long the set is. Histograms get their span from a min-max pass first: ONNX Runtime grows a histogram by
bins of the first feed's width, and a first feed of silence would grow it without bound.

    sage-edge calibrate CKPT --data DATA --out ranges.json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ort
from sage_edge.runtime.errors import CompileError, SageError, UsageError
from sage_edge.runtime.files import atomic_file

METHODS = ("minmax", "entropy", "percentile")
PERCENTILE = 99.999
"""Share of the values that the `percentile` method keeps, both sides together, in percent."""
PERCENTILE_BINS = 2048
ENTROPY_BINS, ENTROPY_LEVELS = 1024, 128
"""Entropy looks for the span, in steps of a bin, whose values survive 128 levels best (Migacz, GTC 2017, S7310)."""

Feed = dict[str, NDArray[Any]]
Feeds = Callable[[], Iterable[Feed]]
GraphRanges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Ranges:
    """Ranges of all graphs of a model: graph name -> tensor name -> (low, high), with where they come from."""

    method: str
    set_sha256: str
    clips: int
    graphs: dict[str, GraphRanges]

    def save(self, path: Path) -> None:
        """Write as JSON with one line per tensor, sorted, so that two files can be compared with `diff`."""
        lines = [f'{{"method": {json.dumps(self.method)}, "set_sha256": {json.dumps(self.set_sha256)}, "clips": {self.clips}, "graphs": {{']
        for i, (graph, tensors) in enumerate(sorted(self.graphs.items())):
            rows = [f"  {json.dumps(name)}: [{low:.9g}, {high:.9g}]" for name, (low, high) in sorted(tensors.items())]
            lines.append(f" {json.dumps(graph)}: {{\n" + ",\n".join(rows) + "\n }" + ("," if i + 1 < len(self.graphs) else ""))
        with atomic_file(path) as work:
            work.write_text("\n".join([*lines, "}}"]) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read what `save` wrote; CompileError when it is not that."""
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            graphs = {str(g): {str(t): (float(low), float(high)) for t, (low, high) in tensors.items()} for g, tensors in raw["graphs"].items()}
            return cls(str(raw["method"]), str(raw["set_sha256"]), int(raw["clips"]), graphs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CompileError(f"{path} is no ranges file ({type(error).__name__}: {error}); write one with `sage-edge calibrate`") from error


def check_method(method: str) -> str:
    """`method` itself, or UsageError naming the ones there are."""
    if method not in METHODS:
        raise UsageError(f"unknown calibration method {method!r}; one of {', '.join(METHODS)}")
    return method


def collect(graph: Path, feeds: Feeds, tensors: Collection[str], method: str = "percentile") -> GraphRanges:
    """Ranges of `tensors` (names of float tensors in `graph`, its inputs and outputs included) over all of `feeds`.

    `feeds()` starts the feeds anew each time it is called (twice for the histogram methods). A tensor that never leaves zero gets
    (0, 0). Raises CompileError when there is no feed, when a tensor is not in the graph, or when a value is not finite.
    """
    check_method(method)
    if not tensors:
        return {}
    with tempfile.TemporaryDirectory(prefix="sage-ranges-") as folder:
        # ONNX Runtime writes its shape-inferred copy beside the graph; a link keeps that out of the graph's own folder.
        link = Path(folder) / "graph.onnx"
        os.symlink(Path(graph).resolve(), link)
        ort.load()
        try:
            spans = _run(_minmax(link, Path(folder), tensors), feeds)
            return spans if method == "minmax" else _run(_histogram(link, Path(folder), spans, method), feeds)
        except (SageError, OSError):
            raise
        except Exception as error:  # onnx, protobuf and ONNX Runtime raise classes of their own, also when the temporary folder is full
            first = str(error).strip().splitlines()[:1]
            raise CompileError(
                f"ONNX Runtime cannot calibrate {Path(graph).name} ({type(error).__name__}: {''.join(first)}); "
                f"see whether {tempfile.gettempdir()} has room for three copies of it"
            ) from error


def _minmax(graph: Path, folder: Path, tensors: Collection[str]) -> Any:
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    class Calibrater(MinMaxCalibrater):  # type: ignore[misc]
        def select_tensors_to_calibrate(self, model: Any) -> Any:
            return _select(model, tensors)

    return _open(Calibrater(graph, augmented_model_path=str(folder / "minmax.onnx")))


def _histogram(graph: Path, folder: Path, spans: GraphRanges, method: str) -> Any:
    from onnxruntime.quantization.calibrate import EntropyCalibrater, HistogramCollector, PercentileCalibrater

    base, bins = (EntropyCalibrater, ENTROPY_BINS) if method == "entropy" else (PercentileCalibrater, PERCENTILE_BINS)

    class Calibrater(base):  # type: ignore[misc, valid-type]
        def select_tensors_to_calibrate(self, model: Any) -> Any:
            return _select(model, [name for name, (low, high) in spans.items() if low < high])

    calibrater = _open(Calibrater(graph, augmented_model_path=str(folder / f"{method}.onnx")))
    collector = HistogramCollector(
        method=method, symmetric=False, num_bins=bins, num_quantized_bins=ENTROPY_LEVELS, percentile=PERCENTILE, scenario="same"
    )
    for name in calibrater.tensors_to_calibrate:
        low, high = np.float32(spans[name][0]), np.float32(spans[name][1])
        # One step wider than the data: the second pass may differ in the last bit, and a wider value would grow the histogram.
        span = np.float32(max(abs(low), abs(high)) * np.float32(1.0001))
        edges = np.linspace(-span, span, bins + 1, dtype=np.float32)
        collector.histogram_dict[name] = (np.zeros(bins, np.int64), edges, low, high, span)
    calibrater.collector = collector
    calibrater.constant = {name: bounds for name, bounds in spans.items() if bounds[0] >= bounds[1]}
    return calibrater


def _select(model: Any, tensors: Collection[str]) -> tuple[set[str], dict[str, Any]]:
    """`tensors` and the types of all tensors, in the form ONNX Runtime's calibrators ask for."""
    graph = model.graph
    infos = {info.name: info for info in [*graph.value_info, *graph.output, *graph.input]}
    if missing := sorted(set(tensors) - set(infos)):
        raise CompileError(f"tensor {missing[0]!r} is not in the graph ({len(missing)} missing); the ranges belong to another export")
    return set(tensors), infos


def _open(calibrater: Any) -> Any:
    calibrater.augment_graph()
    calibrater.create_inference_session()
    return calibrater


class _One:
    """A data reader of exactly one feed."""

    def __init__(self, feed: Feed) -> None:
        self._feeds: Iterator[Feed] = iter([feed])

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _run(calibrater: Any, feeds: Feeds) -> GraphRanges:
    seen = 0
    # ONNX Runtime prints its progress to stdout, where only results belong.
    for feed in feeds():
        with contextlib.redirect_stdout(io.StringIO()):
            calibrater.collect_data(_One(feed))
        seen += 1
    if not seen:
        raise CompileError("no calibration data: the training split gave no window; check the store with `sage-edge evaluate`")
    with contextlib.redirect_stdout(io.StringIO()):
        data = calibrater.compute_data() if getattr(calibrater, "tensors_to_calibrate", True) else {}
    ranges = {name: (float(np.min(value.lowest)), float(np.max(value.highest))) for name, value in data.items()}
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CompileError(f"tensor {name!r} spans [{low}, {high}] on the calibration clips; the model overflows, train it anew")
    return {**ranges, **getattr(calibrater, "constant", {})}
