"""The golden windows of a bundle through one graph after another: what an engine computes here against what is stored.

pass_ = GoldenPass(bundle, flavour("int8", "openvino"))
for name in GRAPHS:
    pass_.run(name, engine)             # an engine of that graph, for one item at a time
pass_.differences()                     # {"estimates": 0.003, ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .engines import Engine
from .errors import BundleError
from .flavours import LADDERED, Flavour

_INPUTS = ("faces", "samples", "visual_mask", "audio_mask")


class GoldenPass:
    """One flavour's features and outputs on every golden window. Raises BundleError when the windows are incomplete."""

    def __init__(self, bundle: Bundle, kind: Flavour, golden: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._bundle, self._kind = bundle, kind
        self._golden = bundle.golden() if golden is None else golden
        self._faces, self._samples, self._visual_mask, self._audio_mask = (self._array(name) for name in _INPUTS)
        m = bundle.manifest
        self._visual = np.zeros((len(self._faces), m.window, m.dims.visual), np.float32)
        self._audio = np.zeros((len(self._faces), m.window, m.dims.audio), np.float32)
        self._outputs: dict[str, list[NDArray[np.float32]]] = {}

    def run(self, graph: str, engine: Engine) -> None:
        """Put every golden window through one graph; "visual" and "audio" come before "fusion"."""
        {"visual": self._run_visual, "audio": self._run_audio, "fusion": self._run_fusion}[graph](engine)

    def differences(self) -> dict[str, float]:
        """Output -> greatest difference to the stored ones; to FP32's for TensorRT, whose engine may be of any rung from INT8 to FP32."""
        stored = "fp32" if self._kind.graphs == LADDERED or f"estimates_{self._kind.graphs}" not in self._golden else self._kind.graphs
        return {name: difference(name, np.stack(values), self._array(f"{name}_{stored}")) for name, values in self._outputs.items()}

    @property
    def allowed(self) -> float:
        """The greatest difference that passes: the bundle's tolerance, and for TensorRT also what the stored windows say that INT8 costs."""
        return self._kind.tolerance(self._bundle.manifest.tolerance) + (cost(self._golden) if self._kind.graphs == LADDERED else 0.0)

    def _run_visual(self, engine: Engine) -> None:
        from .native import crop

        face = self._bundle.manifest.face
        size = self._faces.shape[2]
        share = face.input_size / face.crop_size
        edge = size * (1 - share) / 2
        box = (edge, edge, size * share, size * share)
        for window, (faces, mask) in enumerate(zip(self._faces, self._visual_mask, strict=True)):
            before = -1
            for tick in np.flatnonzero(mask):
                # golden faces stay for some ticks; the same pixels give the same row
                if before >= 0 and np.array_equal(faces[tick], faces[before]):
                    self._visual[window, tick] = self._visual[window, before]
                else:
                    crop(faces[tick], box, engine.inputs["faces"][0], tuple(face.mean), tuple(face.std))
                    engine.run()
                    self._visual[window, tick] = engine.outputs["visual"][0]
                before = int(tick)

    def _run_audio(self, engine: Engine) -> None:
        for window, samples in enumerate(self._samples):
            engine.inputs["samples"][0] = samples
            engine.run()
            self._audio[window] = engine.outputs["audio"][0]

    def _run_fusion(self, engine: Engine) -> None:
        rows = zip(self._visual, self._audio, self._visual_mask, self._audio_mask, strict=True)
        for values in rows:
            for name, value in zip(("visual", "audio", "visual_mask", "audio_mask"), values, strict=True):
                engine.inputs[name][0] = value
            engine.run()
            for name, output in engine.outputs.items():
                self._outputs.setdefault(name, []).append(output[0].copy())

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._golden:
            raise BundleError(f"golden.npz of {self._bundle.path.name} has no array {name!r}; compile the bundle again")
        return self._golden[name]


def cost(golden: Mapping[str, NDArray[Any]]) -> float:
    """How far the stored windows of `LADDERED` lie from those of FP32; 0 where none are stored."""
    ends = {key: key.removesuffix(LADDERED) + "fp32" for key in golden if key.endswith(f"_{LADDERED}")}
    return max((difference(key.split("_")[0], golden[key], golden[end]) for key, end in ends.items()), default=0.0)


def difference(name: str, found: NDArray[np.floating], stored: NDArray[np.floating]) -> float:
    """Greatest difference of an output to the stored one, infinite for another shape or a NaN; relative for `temporal`, which has no fixed range."""
    if found.shape != stored.shape or not np.isfinite(found).all():
        return float("inf")
    scale = max(float(np.max(np.abs(stored))), 1.0) if name == "temporal" else 1.0
    return float(np.max(np.abs(found - stored))) / scale
