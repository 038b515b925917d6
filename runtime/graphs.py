"""The three engines of a bundle in one precision, opened, checked against the manifest and run once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import GRAPHS, Bundle
from .engines import Engine, open_engine
from .errors import EngineError
from .flavours import LADDERED, Flavour, flavour

TOGETHER = 15
"""Faces that `visual` has room for, at least, where it takes those of several frames together: as many frames may wait (`sources.waiting.MOST`)."""


class Graphs:
    """`visual` and `fusion` for up to `faces` faces at a time, or `visual` for more, and `audio`, which they share. Close it, or use it in a `with`.

    `precision` is one of `flavours.FLAVOURS`. With `apart`, `visual` may run in another thread than the two others.
    Raises UsageError for another precision, EngineError when a graph cannot be loaded or does not fit the manifest.
    """

    def __init__(
        self, bundle: Bundle, precision: str, backend: str = "onnxruntime", threads: int | None = None, faces: int = 1, apart: bool = False
    ) -> None:
        self.precision, self.backend, self._name = precision, backend, bundle.path.name
        self._engines: list[Engine] = []
        kind = flavour(precision, backend)
        self.together = backend == "onnxruntime" and kind.hint != "cuda"
        """`visual` takes the faces of several frames at once. Not where a face by itself would cost more for it: OpenVINO needs twice the time
        then, and GPUs prepare themselves for each number of faces anew. Nor where its graph was made for another number."""
        try:
            for name in GRAPHS:
                beside = None if len(self._engines) <= apart else self._engines[apart]
                opened = partial(open_graph, bundle, name, kind, backend, threads, beside)
                self._engines.append(self._roomy(opened, faces) if name == "visual" else opened(1 if name == "audio" else faces))
            self.visual, self.audio, self.fusion = self._engines
        except BaseException:
            self.close()
            raise
        self.threads = self.visual.threads
        self.modality: NDArray[np.float32] | None = self.fusion.outputs.get("modality")

    @property
    def rungs(self) -> dict[str, str]:
        """Graph -> what TensorRT's engine was built as ("int8", "fp16", ..., see `compile --target tensorrt`); empty on other backends."""
        return {name: str(getattr(self, name).plan.facts.get("rung", "?")) for name in GRAPHS} if self.backend == "tensorrt" else {}

    def note(self) -> str | None:
        """The line about graphs that do not run in what was asked for."""
        asked = "int8" if flavour(self.precision, self.backend).graphs == LADDERED else "fp32"
        others = ", ".join(f"{name} as {rung}" for name, rung in self.rungs.items() if rung != asked)
        return f"TensorRT runs {others}, not as {asked}; `sage-edge compile {self._name} --target tensorrt` says why" if others else None

    def warm_up(self) -> None:
        """Run each graph once on what its inputs hold, so that no later run pays for first-time allocations; a batch of one last."""
        for engine in self._engines:
            engine.run()
            if len(next(iter(engine.inputs.values()))) > 1:
                engine.run(1)

    def _roomy(self, opened: Callable[[int], Engine], faces: int) -> Engine:
        """`opened` for faces of several frames, where that may be and can be; else for one frame's."""
        if self.together:
            try:
                return opened(max(faces, TOGETHER))
            except EngineError:
                self.together = False
        return opened(faces)

    def close(self) -> None:
        """Free all three; calling it again does nothing."""
        for engine in self._engines:
            engine.close()

    def __enter__(self) -> Graphs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_graph(
    bundle: Bundle, name: str, kind: Flavour, backend: str, threads: int | None = None, beside: Engine | None = None, batch: int = 1
) -> Engine:
    """The engine of one graph, for `batch` items at a time; `beside` is one that it takes turns with. Raises as `Graphs` does."""
    engine = open_engine(bundle.graph(name, kind.graphs), backend, batch, threads, kind.hint, beside)
    try:
        _check(bundle, name, kind, engine, batch)
    except BaseException:
        engine.close()
        raise
    return engine


def _check(bundle: Bundle, name: str, kind: Flavour, engine: Engine, n: int) -> None:
    m = bundle.manifest
    side, window, visual, audio = m.face.input_size, m.window, m.dims.visual, m.dims.audio
    modality = {"modality": (n, window, 2)} if m.model.reliability == "modality" else {}
    masks = {"visual_mask": (n, window), "audio_mask": (n, window)}
    inputs: dict[str, dict[str, tuple[int, ...]]] = {
        "visual": {"faces": (n, 3, side, side)},
        "audio": {"samples": (n, m.samples)},
        "fusion": {"visual": (n, window, visual), "audio": (n, window, audio), **masks},
    }
    outputs: dict[str, dict[str, tuple[int, ...]]] = {
        "visual": {"visual": (n, visual)},
        "audio": {"audio": (n, window, audio)},
        "fusion": {"estimates": (n, window, 2), "temporal": (n, window), **modality},
    }
    for which, arrays, wanted in (("inputs", engine.inputs, inputs[name]), ("outputs", engine.outputs, outputs[name])):
        found = {key: _describe(array) for key, array in arrays.items()}
        expected = {key: f"float32 {list(shape)}" for key, shape in wanted.items()}
        if found != expected:
            raise EngineError(
                f"{bundle.graph(name, kind.graphs)}: its {which} are {_table(found)} and its manifest needs {_table(expected)}; "
                "compile the bundle again"
            )


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _table(shapes: dict[str, str]) -> str:
    return ", ".join(f"{name} {shapes[name]}" for name in sorted(shapes))
