"""What each layer of a bundle's TensorRT engines costs on this GPU.

time_layers(Bundle.open("demo.sage"), "int8")["visual"].layers[0]        # Layer(name="...", ms=0.012)
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .bundle import GRAPHS, Bundle
from .graphs import Graphs
from .precision import choose

if TYPE_CHECKING:
    from .engines.tensorrt import TensorRTEngine

_RUNS = 20


@dataclass(frozen=True)
class GraphTimes:
    """One graph's engine. `run_ms` is a whole run as a session does it, copies and waiting included; `layers` are (name, ms) in the engine's order.

    Layers are timed one by one, with the GPU waited for in between: their sum may be more than `run_ms`.
    """

    key: str
    rung: str
    run_ms: float
    layers: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def time_layers(bundle: Bundle, precision: str = "int8", runs: int = _RUNS) -> dict[str, GraphTimes]:
    """Graph -> medians over `runs` runs, on inputs of zeros; `precision` as in `precision.choose`, and raises as that does."""
    with Graphs(bundle, choose(bundle, precision, "tensorrt").precision, "tensorrt") as graphs:
        graphs.warm_up()
        times = {}
        for name in GRAPHS:
            engine: TensorRTEngine = getattr(graphs, name)
            layers = tuple((layer.name, layer.ms) for layer in engine.profile(runs))
            times[name] = GraphTimes(str(engine.plan.key), str(engine.plan.facts.get("rung", "?")), _run_ms(engine, runs), layers)
        return times


def _run_ms(engine: TensorRTEngine, runs: int) -> float:
    spent = []
    for _ in range(runs):
        start_s = time.perf_counter()
        engine.run()
        spent.append(1e3 * (time.perf_counter() - start_s))
    return statistics.median(spent)
