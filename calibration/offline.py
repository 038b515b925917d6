"""The three graphs of a bundle over recorded windows: what a live session computes, in batches and without a clock.

Faces uint8 [n, 48, 48, 3] RGB become features through libsage's crop, a window's sound becomes features at its ticks, and fusion takes
both with their masks. Rows under an off mask are zeros, as they are in a session. Needs the base install only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.bundle import GRAPHS, Bundle, FaceInfo
from sage_edge.runtime.engines import Engine, check_backend, open_engine
from sage_edge.runtime.flavours import FLAVOURS, Flavour
from sage_edge.runtime.precision import AUTO, choose, named

BATCH = 32
"""Faces per run of the visual graph: large enough to use two cores, small enough to stay in their cache."""

SIMULATED = "int8-trt"
"""For TensorRT alone; ONNX Runtime computes on a CPU, slowly, what such graphs say: no session runs that."""

Part = tuple[str, str]
"""(graph, precision), such as ("visual", "int8-cpu"); of a bundle's, a precision is what its backend calls it (`runtime.flavours`)."""


class Offline:
    """Engines over graph files, opened when first used. `paths` maps (graph, precision) to an ONNX file, `hints` precision to its engines' hint;
    close it, or use it in a `with`."""

    def __init__(
        self,
        paths: Mapping[Part, Path],
        face: FaceInfo,
        backend: str = "onnxruntime",
        threads: int | None = None,
        hints: Mapping[str, str | None] | None = None,
    ) -> None:
        self._paths, self._face, self._hints = dict(paths), face, dict(hints or {})
        self._backend, self._threads = backend, threads
        self._engines: dict[Part, Engine] = {}

    @classmethod
    def of(cls, bundle: Bundle, backend: str = "onnxruntime", threads: int | None = None) -> Offline:
        """All graphs of `bundle` that `backend` takes, in every precision that it knows for them, and `SIMULATED` ones for ONNX Runtime."""
        kinds = [kind for kind in FLAVOURS[backend].values() if kind.graphs in bundle.precisions]
        kinds += [Flavour(name, name) for name in simulated(bundle, backend)]
        paths = {(graph, kind.name): bundle.graph(graph, kind.graphs) for graph in GRAPHS for kind in kinds}
        return cls(paths, bundle.manifest.face, backend, threads, {kind.name: kind.hint for kind in kinds})

    def pixels(self, faces: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Square RGB crops uint8 [n, size, size, 3], margin included -> what the visual graph takes, float32 [n, 3, input_size, input_size]."""
        from sage_edge.runtime.native import crop

        face = self._face
        out = np.empty((len(faces), 3, face.input_size, face.input_size), np.float32) if out is None else out
        height, width = faces.shape[1:3]
        share = face.input_size / face.crop_size
        box = (width * (1 - share) / 2, height * (1 - share) / 2, width * share, height * share)
        for pixels, into in zip(faces, out, strict=False):
            crop(pixels, box, into, face.mean, face.std)
        return out

    def faces(self, faces: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        """Square RGB crops uint8 [n, size, size, 3] -> features float32 [n, d_V]."""
        engine = self._engine("visual", precision, BATCH)
        out = np.empty((len(faces), self.visual_dim(precision)), np.float32)
        for start in range(0, len(faces), BATCH):
            part = faces[start : start + BATCH]
            self.pixels(part, engine.inputs["faces"])
            engine.run()
            out[start : start + len(part)] = engine.outputs["visual"][: len(part)]
        return out

    def visual_dim(self, precision: str) -> int:
        """d_V."""
        return int(self._engine("visual", precision, BATCH).outputs["visual"].shape[1])

    def sound(self, samples: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
        """Samples of one window, float32 [S] -> features float32 [W, d_A]."""
        engine = self._engine("audio", precision)
        engine.inputs["samples"][0] = samples
        engine.run()
        features: NDArray[np.float32] = engine.outputs["audio"][0].copy()
        return features

    def fuse(
        self,
        visual: NDArray[np.float32],
        audio: NDArray[np.float32],
        visual_mask: NDArray[np.bool_],
        audio_mask: NDArray[np.bool_],
        precision: str,
    ) -> dict[str, NDArray[np.float32]]:
        """Features [W, d] and masks [W] of one window -> `estimates` [W, 2], `temporal` [W] and, where the model has it, `modality` [W, 2]."""
        engine = self._engine("fusion", precision)
        values: dict[str, NDArray[Any]] = {"visual": visual, "audio": audio, "visual_mask": visual_mask, "audio_mask": audio_mask}
        for name, value in values.items():
            engine.inputs[name][0] = value
        engine.run()
        return {name: value[0].copy() for name, value in engine.outputs.items()}

    def window(
        self,
        faces: NDArray[np.uint8],
        samples: NDArray[np.float32],
        visual_mask: NDArray[np.bool_],
        audio_mask: NDArray[np.bool_],
        precision: str,
    ) -> dict[str, NDArray[np.float32]]:
        """The outputs of `fuse` for one window of crops uint8 [W, size, size, 3] and samples [S], all graphs in `precision`."""
        seen = self.faces(faces[visual_mask], precision)
        visual = np.zeros((len(faces), seen.shape[1]), np.float32)
        visual[visual_mask] = seen
        return self.fuse(visual, self.sound(samples, precision), visual_mask, audio_mask, precision)

    def close(self) -> None:
        """Free all engines; calling it again does nothing."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def __enter__(self) -> Offline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _engine(self, graph: str, precision: str, batch: int = 1) -> Engine:
        key = (graph, precision)
        if key not in self._engines:
            self._engines[key] = open_engine(self._paths[key], self._backend, batch, self._threads, self._hints.get(precision))
        return self._engines[key]


def runs(bundle: Bundle, backend: str = "onnxruntime", precision: str | None = None) -> tuple[str, ...]:
    """The precisions of `bundle` on `backend`: "fp32" and `precision`; all that need neither bf16 nor another device when it is None.

    Raises UsageError for a precision that the bundle or the backend lacks.
    """
    if precision is not None:
        asked = choose(bundle, AUTO, backend).precision if precision == AUTO else precision
        return tuple(dict.fromkeys(named(bundle, name, backend).name for name in ("fp32", asked)))
    check_backend(backend)
    kinds = [kind for kind in FLAVOURS[backend].values() if kind.hint not in ("bf16", "cuda")]
    return tuple(kind.name for kind in kinds if kind.graphs in bundle.precisions)


def simulated(bundle: Bundle, backend: str = "onnxruntime") -> tuple[str, ...]:
    """(`SIMULATED`,) where `bundle` holds such graphs and `backend` can compute them away from TensorRT, else ()."""
    return (SIMULATED,) if backend == "onnxruntime" and SIMULATED in bundle.precisions else ()
