"""Does an engine that was built here compute its graph? The bundle's golden windows, with this one graph on it and the others in FP32 on the CPU.

So a failure names its graph, and a device needs no data. What counts is the end of the chain: how far estimates and weights move from those of
FP32 that are stored in the bundle.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.calibration.check import difference
from sage_edge.calibration.offline import Offline
from sage_edge.runtime.bundle import GRAPHS, Bundle
from sage_edge.runtime.engines import Engine
from sage_edge.runtime.errors import BundleError

from .ladder import FP32

_REFERENCE = "fp32"
_QUANTIZED = "int8-trt"
_MASKS = ("visual_mask", "audio_mask")


class GoldenWindows:
    """The golden windows of `bundle`; close it, or use it in a `with`. Raises BundleError where it holds none, or no fp32 graphs."""

    def __init__(self, bundle: Bundle) -> None:
        if _REFERENCE not in bundle.precisions:
            raise BundleError(f"{bundle.path.name} holds {', '.join(bundle.precisions)} and no fp32 to compare engines with; compile it again")
        self._manifest, self._golden = bundle.manifest, bundle.golden()
        needed = {"faces", "samples", *_MASKS, *(f"{name}_{_REFERENCE}" for name in ("estimates", "temporal"))}
        if missing := sorted(needed - set(self._golden)):
            raise BundleError(f"golden.npz of {bundle.path.name} has no array {missing[0]!r}; compile the bundle again")
        self._offline = Offline({(graph, _REFERENCE): bundle.graph(graph, _REFERENCE) for graph in GRAPHS}, bundle.manifest.face)

    def allowed(self, rung: str) -> float:
        """How far a graph built as `rung` may move the outputs: the bundle's tolerance, and what the stored windows say that INT8 costs."""
        tolerance = self._manifest.tolerance
        if rung == FP32:
            return tolerance[_REFERENCE]
        return tolerance.get(_QUANTIZED, tolerance[_REFERENCE]) + self._cost

    def difference(self, graph: str, engine: Engine) -> float:
        """The greatest difference of an output to FP32's with `graph` computed by `engine`, for inputs of one item; infinite for NaN."""
        worst = 0.0
        for i in range(len(self._golden["faces"])):
            visual = self._rows(i, engine) if graph == "visual" else self._visual[i]
            audio = _run(engine, samples=self._golden["samples"][i])["audio"] if graph == "audio" else self._audio[i]
            values = {"visual": visual, "audio": audio, **{name: self._golden[name][i] for name in _MASKS}}
            found = _run(engine, **values) if graph == "fusion" else self._offline.fuse(**values, precision=_REFERENCE)
            worst = max(worst, *(difference(name, value, self._golden[f"{name}_{_REFERENCE}"][i]) for name, value in found.items()))
        return worst

    def close(self) -> None:
        """Free the FP32 graphs."""
        self._offline.close()

    def __enter__(self) -> GoldenWindows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _cost(self) -> float:
        stored = {name: name.removesuffix(f"_{_QUANTIZED}") for name in self._golden if name.endswith(f"_{_QUANTIZED}")}
        return max((difference(name, self._golden[key], self._golden[f"{name}_{_REFERENCE}"]) for key, name in stored.items()), default=0.0)

    @cached_property
    def _visual(self) -> list[NDArray[np.float32]]:
        return [self._rows(i, None) for i in range(len(self._golden["faces"]))]

    @cached_property
    def _audio(self) -> list[NDArray[np.float32]]:
        return [self._offline.sound(samples, _REFERENCE) for samples in self._golden["samples"]]

    def _rows(self, window: int, engine: Engine | None) -> NDArray[np.float32]:
        """Features [W, d] of a window's faces, by `engine` or by FP32; zeros under an off mask. Faces that stay are encoded once."""
        faces, mask = self._golden["faces"][window], self._golden["visual_mask"][window]
        seen = np.flatnonzero(mask)
        new = np.array([i == 0 or not np.array_equal(faces[tick], faces[seen[i - 1]]) for i, tick in enumerate(seen)], np.bool_)
        crops = faces[seen[new]]
        if engine is None:
            features = self._offline.faces(crops, _REFERENCE)
        else:
            features = np.empty((len(crops), self._manifest.dims.visual), np.float32)
            for i, pixels in enumerate(self._offline.pixels(crops)):
                features[i] = _run(engine, faces=pixels)["visual"]
        rows = np.zeros((len(faces), self._manifest.dims.visual), np.float32)
        if len(seen):
            rows[seen] = features[np.cumsum(new) - 1]
        return rows


def _run(engine: Engine, **values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    for name, value in values.items():
        engine.inputs[name][0] = value
    engine.run()
    return {name: value[0].copy() for name, value in engine.outputs.items()}
