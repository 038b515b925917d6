"""The three engines of a bundle in one precision, opened, checked against the manifest and run once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import GRAPHS, Bundle
from .engines import Engine, open_engine
from .errors import EngineError
from .flavours import LADDERED, Flavour, flavour


class Graphs:
    """`visual`, `audio` and `fusion`, each for one item at a time. Close it, or use it in a `with`.

    `precision` is one of `flavours.FLAVOURS`. Raises UsageError for another, EngineError when a graph cannot be loaded or does not fit the manifest.
    """

    def __init__(self, bundle: Bundle, precision: str, backend: str = "onnxruntime", threads: int | None = None) -> None:
        self.precision, self.backend, self._name = precision, backend, bundle.path.name
        self._engines: list[Engine] = []
        kind = flavour(precision, backend)
        try:
            for name in GRAPHS:
                beside = self._engines[0] if self._engines else None
                self._engines.append(open_graph(bundle, name, kind, backend, threads, beside))
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


def open_graph(bundle: Bundle, name: str, kind: Flavour, backend: str, threads: int | None = None, beside: Engine | None = None) -> Engine:
    """The engine of one graph, for one item at a time; `beside` is one that it takes turns with. Raises as `Graphs` does."""
    engine = open_engine(bundle.graph(name, kind.graphs), backend, 1, threads, kind.hint, beside)
    try:
        _check(bundle, name, kind, engine)
    except BaseException:
        engine.close()
        raise
    return engine


def _check(bundle: Bundle, name: str, kind: Flavour, engine: Engine) -> None:
    m = bundle.manifest
    side, window, visual, audio = m.face.input_size, m.window, m.dims.visual, m.dims.audio
    modality = {"modality": (1, window, 2)} if m.model.reliability == "modality" else {}
    masks = {"visual_mask": (1, window), "audio_mask": (1, window)}
    inputs: dict[str, dict[str, tuple[int, ...]]] = {
        "visual": {"faces": (1, 3, side, side)},
        "audio": {"samples": (1, m.samples)},
        "fusion": {"visual": (1, window, visual), "audio": (1, window, audio), **masks},
    }
    outputs: dict[str, dict[str, tuple[int, ...]]] = {
        "visual": {"visual": (1, visual)},
        "audio": {"audio": (1, window, audio)},
        "fusion": {"estimates": (1, window, 2), "temporal": (1, window), **modality},
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
