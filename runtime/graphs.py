"""The three engines of a bundle in one precision, opened, checked against the manifest and run once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .engines import Engine, open_engine
from .errors import EngineError


class Graphs:
    """`visual`, `audio` and `fusion`, each for one item at a time. Close it, or use it in a `with`.

    Raises EngineError when a graph cannot be loaded or does not fit the manifest.
    """

    def __init__(self, bundle: Bundle, precision: str, backend: str = "onnxruntime", threads: int | None = None) -> None:
        self._bundle, self.precision, self.backend = bundle, precision, backend
        self._engines: list[Engine] = []
        try:
            self.visual, self.audio, self.fusion = (self._open(name, backend, threads) for name in ("visual", "audio", "fusion"))
            self._check()
        except BaseException:
            self.close()
            raise
        self.threads = self.visual.threads
        self.modality: NDArray[np.float32] | None = self.fusion.outputs.get("modality")

    def warm_up(self) -> None:
        """Run each graph once on what its inputs hold, so that no later run pays for first-time allocations."""
        for engine in self._engines:
            engine.run()

    def close(self) -> None:
        """Free all three; calling it again does nothing."""
        for engine in self._engines:
            engine.close()

    def __enter__(self) -> Graphs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, name: str, backend: str, threads: int | None) -> Engine:
        engine = open_engine(self._bundle.graph(name, self.precision), backend, 1, threads)
        self._engines.append(engine)
        return engine

    def _check(self) -> None:
        m = self._bundle.manifest
        side, window, visual, audio = m.face.input_size, m.window, m.dims.visual, m.dims.audio
        modality = {"modality": (1, window, 2)} if m.model.reliability == "modality" else {}
        masks = {"visual_mask": (1, window), "audio_mask": (1, window)}
        self._fits("visual", self.visual, {"faces": (1, 3, side, side)}, {"visual": (1, visual)})
        self._fits("audio", self.audio, {"samples": (1, m.samples)}, {"audio": (1, window, audio)})
        self._fits(
            "fusion",
            self.fusion,
            {"visual": (1, window, visual), "audio": (1, window, audio), **masks},
            {"estimates": (1, window, 2), "temporal": (1, window), **modality},
        )

    def _fits(self, name: str, engine: Engine, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> None:
        for kind, arrays, wanted in (("inputs", engine.inputs, inputs), ("outputs", engine.outputs, outputs)):
            found = {key: _describe(array) for key, array in arrays.items()}
            expected = {key: f"float32 {list(shape)}" for key, shape in wanted.items()}
            if found != expected:
                raise EngineError(
                    f"{self._bundle.graph(name, self.precision)}: its {kind} are {_table(found)} and its manifest needs {_table(expected)}; "
                    "compile the bundle again"
                )


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _table(shapes: dict[str, str]) -> str:
    return ", ".join(f"{name} {shapes[name]}" for name in sorted(shapes))
