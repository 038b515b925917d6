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
from sage_edge.runtime.flavours import LADDERED, REDUCED_TOLERANCE, Flavour
from sage_edge.runtime.golden import GoldenPass, cost

from .ladder import FP32

_REFERENCE = "fp32"


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
        return tolerance[_REFERENCE] if rung == FP32 else tolerance.get(LADDERED, REDUCED_TOLERANCE) + cost(self._golden)

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

    def _open(self, graph: str) -> Engine:
        return open_engine(self._bundle.graph(graph, _REFERENCE))
