"""What a mix of float and INT8 costs and gains, measured: the bench on which a search tries its mixes.

A mix is named by the groups of weights that it leaves in float. Every mix meets the same windows of validation videos; what a graph computed
for one mix is kept for the next that has the same groups of that graph in float, so that a change in one graph never runs the other encoder
again. Times are of one graph at a time, against the float graph, in turns: the ratio holds where the machine's speed drifts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.bundle import GRAPHS, FaceInfo
from sage_edge.runtime.engines import Engine, default_threads, open_engine

from .evaluation import DIMENSIONS, Predictions, Score, Variant, overlap, score
from .offline import Offline, Part
from .ranges import GraphRanges

if TYPE_CHECKING:
    from sage_edge.training.data.store import Trial

WINDOWS = 24
"""Windows that every mix is measured on: four minutes of video, shared among the trials."""
FLOAT, INT8 = "fp32", "int8"
"""How the names of mixes begin."""
Emit = Callable[[Path, GraphRanges, Collection[str]], Any]
"""(float32 graph, its ranges, groups to leave in float) -> onnx.ModelProto."""
_KEPT = 4
"""Mixes of a graph whose outputs are kept: float, all in INT8, and those of the mix at hand and the one before."""
_FILES = 2
"""Files of mixes of a graph that are kept beside float and all in INT8."""
_ROUNDS, _BUDGET_S, _LEAST_S = (7, 101), 1.5, 2e-3
"""Least and most rounds of a timing, seconds for all of them where the least allows it, and for one engine in one round."""


@dataclass(frozen=True)
class Quality:
    """A mix against FP32 on the same windows."""

    sqnr_db: dict[str, float | None]
    """graph -> of its output, on what the float graphs feed it; None where nothing differs."""
    estimates_error: float
    """Mean square of what the estimates of the whole chain differ by."""
    ccc: Score
    drop: dict[str, float]
    """CCC of FP32 minus this one's: valence, arousal."""

    @property
    def worst_drop(self) -> float:
        """The greater of the two drops."""
        return max(self.drop.values())


@dataclass(frozen=True)
class Gain:
    """Time that a graph saves with one group in INT8 instead of float, measured in turns."""

    ms: float
    """Per hop, median over the rounds; below zero where INT8 is slower."""
    faster: float
    """Share of the rounds in which INT8 was faster."""


class Bench:
    """Measures mixes of one model. Close it, or use it in a `with`.

    `graphs` are the float32 files; `groups` the names of what is tried in INT8, by graph, and `pinned` of what is float in every mix;
    `ranges` must cover every tensor that `emit` quantizes when only the pinned stay in float. Emitted graphs lie in `folder` while they are
    in use. `window` and `hop` are in ticks. `timed=False` measures no time, for graphs that are made to run elsewhere.
    """

    def __init__(
        self,
        graphs: Mapping[str, Path],
        groups: Mapping[str, Sequence[str]],
        ranges: Mapping[str, GraphRanges],
        emit: Emit,
        face: FaceInfo,
        trials: Sequence[Trial],
        window: int,
        hop: int,
        folder: Path,
        pinned: Collection[str] = (),
        threads: int | None = None,
        timed: bool = True,
    ) -> None:
        self.groups, self.trials, self.window, self.hop = groups, trials, window, hop
        self.threads = default_threads() if threads is None else threads
        self.every = frozenset(name for names in groups.values() for name in names)
        self._graphs, self._ranges, self._emit, self._pinned = graphs, ranges, emit, tuple(pinned)
        self._folder = folder
        self._offline = _Kept(graphs, face, self._write, self.threads)
        self._float_engine: tuple[str, Engine] | None = None
        self._ratios: dict[Part, float] = {}
        self._float_estimates = self._predict(Variant())
        self.float_ccc = score(self._float_estimates, trials)
        self.float_ms = {graph: self._hop_ms(graph, statistics.median(_turns([self._engine(graph, FLOAT)])[:, 0])) for graph in GRAPHS if timed}
        """graph -> milliseconds per hop (as many faces as a hop has ticks, one window of sound, one fusion); empty where no time is measured."""

    @property
    def windows(self) -> int:
        """Windows that every mix is measured on."""
        from sage_edge.training.data.windows import STRIDE, window_ends

        return sum(len(window_ends(trial.n_ticks, self.window, min(STRIDE, self.window))) for trial in self.trials)

    @property
    def seconds(self) -> dict[str, float]:
        """graph -> what it took on all windows in float: how dear a mix of it is to measure."""
        return dict(self._offline.seconds)

    def quality(self, float_groups: Collection[str]) -> Quality:
        """CCC, and signal to quantization noise, of the mix that leaves `float_groups` in float."""
        mix = Variant(*(self._name(graph, float_groups) for graph in ("visual", "audio", "fusion")))
        found = self._predict(mix)
        self._predict(Variant(fusion=mix.fusion))
        self._offline.release()
        ccc = score(found, self.trials)
        return Quality(
            {graph: self._offline.sqnr_db(graph, getattr(mix, graph)) for graph in GRAPHS},
            float(np.mean(np.square(_all(found) - _all(self._float_estimates)))),
            ccc,
            {name: self.float_ccc[name] - ccc[name] for name in DIMENSIONS},
        )

    def gains(self, graph: str, group: str) -> tuple[Gain, Gain] | tuple[None, None]:
        """What `group` of `graph` saves in INT8, by itself (all others float) and in company (all others INT8); None where no time is measured."""
        if graph not in self.float_ms:
            return None, None
        names = [self._name(graph, mix) for mix in (self.every, self.every - {group}, (), {group})]
        with contextlib.ExitStack() as stack:
            stack.callback(self._offline.release)
            engines = [self._engine(graph, name) for name in names]
            for name, engine in zip(names, engines, strict=True):
                if name != FLOAT:
                    stack.callback(engine.close)
            seconds = _turns(engines)
        shares = [(seconds[:, slow] - seconds[:, fast]) / seconds[:, 0] for slow, fast in ((0, 1), (3, 2))]
        alone, company = (Gain(self.float_ms[graph] * float(np.median(share)), float(np.mean(share > 0))) for share in shares)
        return alone, company

    def hop_ms(self, float_groups: Collection[str]) -> dict[str, float]:
        """graph -> milliseconds per hop in this mix."""
        return {graph: ms * self._ratio(graph, self._name(graph, float_groups)) for graph, ms in self.float_ms.items()}

    def close(self) -> None:
        """Free all engines."""
        if self._float_engine:
            self._float_engine[1].close()
            self._float_engine = None
        self._offline.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _predict(self, variant: Variant) -> Predictions:
        return overlap(self._offline, self.trials, {"mix": variant}, self.window, progress=False)["mix"]

    def _name(self, graph: str, float_groups: Collection[str]) -> str:
        here = [name for name in self.groups[graph] if name in float_groups]
        return FLOAT if len(here) == len(self.groups[graph]) else " ".join([INT8, *here])

    def _write(self, part: Part) -> Path:
        """Emit the mix that `_name` called so."""
        import onnx

        graph, name = part
        path = self._folder / f"{graph}.{hashlib.sha256(name.encode()).hexdigest()[:16]}.onnx"
        onnx.save(self._emit(self._graphs[graph], self._ranges.get(graph, {}), [*name.split(" ")[1:], *self._pinned]), path)
        return path

    def _ratio(self, graph: str, name: str) -> float:
        """Time of a mix of `graph` over that of the float graph, measured once."""
        if name == FLOAT:
            return 1.0
        if (graph, name) not in self._ratios:
            engine = self._engine(graph, name)
            try:
                seconds = _turns([self._engine(graph, FLOAT), engine], patience=3)  # a whole mix decides, and there are few
            finally:
                engine.close()
                self._offline.release()
            self._ratios[graph, name] = float(np.median(seconds[:, 1] / seconds[:, 0]))
        return self._ratios[graph, name]

    def _engine(self, graph: str, name: str) -> Engine:
        """An engine for one item at a time; the float one of the graph at hand stays open."""
        if name != FLOAT:
            return open_engine(self._offline.path((graph, name)), batch=1, threads=self.threads)
        if self._float_engine is None or self._float_engine[0] != graph:
            if self._float_engine:
                self._float_engine[1].close()
            self._float_engine = (graph, open_engine(self._graphs[graph], batch=1, threads=self.threads))
        return self._float_engine[1]

    def _hop_ms(self, graph: str, seconds: float) -> float:
        return float(seconds) * 1e3 * (self.hop if graph == "visual" else 1)


class _Kept(Offline):
    """`Offline` that keeps what a graph gave for an input, and writes a graph when it is first run."""

    def __init__(self, graphs: Mapping[str, Path], face: FaceInfo, write: Callable[[Part], Path], threads: int | None) -> None:
        super().__init__({(name, FLOAT): path for name, path in graphs.items()}, face, threads=threads)
        self._write = write
        self._kept: OrderedDict[Part, dict[bytes, NDArray[np.float32]]] = OrderedDict()
        self._visual_dim: int | None = None
        self.seconds: dict[str, float] = dict.fromkeys(GRAPHS, 0.0)
        """graph -> spent on its float outputs."""

    def path(self, part: Part) -> Path:
        """The file of a mix, written where there is none."""
        path = self._paths.pop(part) if part in self._paths else self._write(part)
        self._paths[part] = path  # what was used last comes last
        return path

    def visual_dim(self, precision: str) -> int:
        if self._visual_dim is None:
            self._visual_dim = super().visual_dim(FLOAT)
        return self._visual_dim

    def faces(self, faces: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        return self._once(("visual", precision), [faces], lambda: Offline.faces(self, faces, precision))

    def sound(self, samples: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
        return self._once(("audio", precision), [samples], lambda: Offline.sound(self, samples, precision))

    def fuse(
        self,
        visual: NDArray[np.float32],
        audio: NDArray[np.float32],
        visual_mask: NDArray[np.bool_],
        audio_mask: NDArray[np.bool_],
        precision: str,
    ) -> dict[str, NDArray[np.float32]]:
        inputs = [visual, audio, visual_mask, audio_mask]
        found = self._once(("fusion", precision), inputs, lambda: Offline.fuse(self, visual, audio, visual_mask, audio_mask, precision)["estimates"])
        return {"estimates": found}

    def sqnr_db(self, graph: str, name: str) -> float | None:
        """Signal to quantization noise of the outputs that this mix and float gave for the same inputs, in dB; None where they are equal."""
        kept, reference = self._kept[graph, name], self._kept[graph, FLOAT]
        both = [(reference[key], kept[key]) for key in reference if key in kept]
        noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in both)
        signal = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in both)
        return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None

    def release(self) -> None:
        """Close engines, and remove files of mixes but the last of each graph: a sweep asks for the quality of two mixes, then for their times.

        The fusion of float and of all in INT8 will be asked for again soon.
        """
        for part in [part for part in self._engines if part not in (("fusion", FLOAT), ("fusion", INT8))]:
            self._engines.pop(part).close()
        for graph in GRAPHS:
            for part in [part for part in self._paths if part[0] == graph and part[1] not in (FLOAT, INT8)][:-_FILES]:
                self._paths.pop(part).unlink()

    def _once(self, part: Part, inputs: Sequence[NDArray[Any]], compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        kept = self._kept.setdefault(part, {})
        self._kept.move_to_end(part)
        digest = hashlib.blake2b(digest_size=16)
        for array in inputs:
            digest.update(np.ascontiguousarray(array).data)
        key = digest.digest()
        if key not in kept:
            start_s = time.perf_counter()
            kept[key] = compute()
            if part[1] == FLOAT:
                self.seconds[part[0]] += time.perf_counter() - start_s
            old = [other for other in self._kept if other[0] == part[0] and other[1] != FLOAT][: 1 - _KEPT]
            for other in old:
                del self._kept[other]
        return kept[key]

    def _engine(self, graph: str, precision: str, batch: int = 1) -> Engine:
        self.path((graph, precision))
        return super()._engine(graph, precision, batch)


def stretches(trials: Sequence[Trial], window: int, stride: int, count: int = WINDOWS) -> list[Trial]:
    """`trials` cut so that they hold `count` windows of `window` ticks, `stride` apart, or some more; the beginning of each is kept.

    Fewer trials, evenly chosen, where there are more than `count` of them.
    """
    some = [trials[i] for i in np.linspace(0, len(trials) - 1, min(count, len(trials))).astype(int)]
    each = -(-count // len(some))
    return [_beginning(trial, window + (each - 1) * stride) for trial in some]


def _beginning(trial: Trial, ticks: int) -> Trial:
    frames = int(np.searchsorted(trial.frame_tick, ticks - 1, side="right"))
    if frames >= len(trial.frame_tick):
        return trial
    columns = {name: getattr(trial, name)[:frames] for name in ("frame_t_ns", "frame_face", "labels", "labels_valid")}
    return dataclasses.replace(trial, **columns)


def _all(predictions: Predictions) -> NDArray[np.float32]:
    return np.concatenate([predictions[name] for name in sorted(predictions)])


def _turns(engines: Sequence[Engine], patience: int = 1) -> NDArray[np.float64]:
    """Seconds of one run, float64 [rounds, engines], the engines taking turns; `patience` times as many rounds.

    The order is drawn anew in each round (always from the same seed): what runs before a run also has a say in its time.
    """
    for engine in engines:
        engine.run()
    once_s = [_run_s(engine, 1) for engine in engines]
    repeats = max(1, round(_LEAST_S / max(once_s)))
    least, most = _ROUNDS
    rounds = patience * min(most, max(least, round(_BUDGET_S / (repeats * sum(once_s)))))
    seconds = np.empty((rounds, len(engines)))
    order = np.random.default_rng(0)
    for i in range(rounds):
        for which in order.permutation(len(engines)):
            seconds[i, which] = _run_s(engines[which], repeats)
    return seconds


def _run_s(engine: Engine, repeats: int) -> float:
    start_s = time.perf_counter()
    for _ in range(repeats):
        engine.run()
    return (time.perf_counter() - start_s) / repeats
