"""Does an engine that was built here compute its graph? The bundle's golden windows, with this one graph on it and the others in FP32 on the CPU.

So a failure names its graph, and a device needs no data. What counts is the end of the chain: how far estimates and weights move from those of
FP32 that are stored in the bundle.
"""

from __future__ import annotations

import contextlib
import copy
from functools import cached_property

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.engines import Engine, open_engine
from sage_edge.runtime.errors import BundleError
from sage_edge.runtime.flavours import REDUCED_TOLERANCE, Flavour
from sage_edge.runtime.golden import GoldenPass, difference

from .ladder import FP32

_REFERENCE = "fp32"
_QUANTIZED = "int8-trt"


class GoldenWindows:
    """The golden windows of `bundle`. Raises BundleError where it holds none, or no fp32 graphs to compare with."""

    def __init__(self, bundle: Bundle) -> None:
        if _REFERENCE not in bundle.precisions:
            raise BundleError(f"{bundle.path.name} holds {', '.join(bundle.precisions)} and no fp32 to compare engines with; compile it again")
        self._bundle, self._golden = bundle, bundle.golden()
        self._fresh = GoldenPass(bundle, Flavour(_REFERENCE, _REFERENCE), self._golden)

    def allowed(self, rung: str) -> float:
        """How far a graph built as `rung` may move the outputs: the bundle's tolerance, and what the stored windows say that INT8 costs."""
        tolerance = self._bundle.manifest.tolerance
        return tolerance[_REFERENCE] if rung == FP32 else tolerance.get(_QUANTIZED, REDUCED_TOLERANCE) + self._cost

    def difference(self, graph: str, engine: Engine) -> float:
        """The greatest difference of an output to FP32's with `graph` computed by `engine`, for one item at a time; infinite for NaN."""
        trial = copy.deepcopy(self._reference)
        trial.run(graph, engine)
        if graph != "fusion":
            with contextlib.closing(self._open("fusion")) as fusion:
                trial.run("fusion", fusion)
        return max(trial.differences().values())

    @cached_property
    def _reference(self) -> GoldenPass:
        """Features of both senses in FP32."""
        for graph in ("visual", "audio"):
            with contextlib.closing(self._open(graph)) as engine:
                self._fresh.run(graph, engine)
        return self._fresh

    @cached_property
    def _cost(self) -> float:
        """How far the stored windows of int8-trt lie from those of FP32; 0 where none are stored."""
        ends = {key: key.removesuffix(_QUANTIZED) + _REFERENCE for key in self._golden if key.endswith(f"_{_QUANTIZED}")}
        return max((difference(key.split("_")[0], self._golden[key], self._golden[end]) for key, end in ends.items()), default=0.0)

    def _open(self, graph: str) -> Engine:
        return open_engine(self._bundle.graph(graph, _REFERENCE))
