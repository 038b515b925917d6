"""Predictions of a bundle over the validation videos under both protocols, and what the difference between precisions costs in CCC.

`overlap`: windows every 200 ticks, averaged where they overlap. `live`: through `Session`, the newest tick, held until the next estimate.
A variant says which precision each graph runs in and which modality is switched off; features are computed once per window and
precision, whatever the number of variants.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.engines import default_threads
from sage_edge.runtime.errors import DataError
from sage_edge.runtime.metrics import bootstrap_ccc, pooled_ccc
from sage_edge.runtime.progress import Progress
from sage_edge.runtime.ticks import NS_PER_S, RATE_HZ, first_sample

from .offline import Offline

if TYPE_CHECKING:
    from sage_edge.runtime.estimate import Estimate
    from sage_edge.runtime.session import Session
    from sage_edge.training.data.store import Store, Trial

SPLIT = "val"
DIMENSIONS = ("valence", "arousal")
_CHUNK_S = 0.1
"""Sound goes into a session in pieces as a microphone gives it."""

Predictions = dict[str, NDArray[np.float32]]
"""Trial name -> float32 [F, 2], one row per original frame."""
Score = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """Precision of each graph, and the modality whose mask is off ("visual", "audio" or None)."""

    visual: str = "fp32"
    audio: str = "fp32"
    fusion: str = "fp32"
    without: str | None = None

    @classmethod
    def all(cls, precision: str, without: str | None = None) -> Variant:
        """Every graph in `precision`."""
        return cls(precision, precision, precision, without)


def validation(store: Store, split: str = SPLIT, rate_hz: int = RATE_HZ) -> list[Trial]:
    """The trials of `split` that have a labelled frame. Raises DataError when there is none, or when their ticks are not `rate_hz`."""
    if store.meta.get("rate") != rate_hz:
        raise DataError(f"{store.path} was prepared with --rate {store.meta.get('rate')}, the model ticks at {rate_hz} Hz; prepare the corpus again")
    trials = [trial for trial in store.trials(split) if trial.labels_valid.any()]
    if not trials:
        raise DataError(f"no frame of the {split!r} split of {store.path} has a label; CCC needs some")
    return trials


def overlap(offline: Offline, trials: Sequence[Trial], variants: Mapping[str, Variant], window: int, progress: bool = True) -> dict[str, Predictions]:
    """Predictions of each variant under the `overlap` protocol; `window` in ticks."""
    from sage_edge.training.data import protocols
    from sage_edge.training.data.windows import STRIDE, window_at, window_ends

    stride = min(STRIDE, window)
    found: dict[str, Predictions] = {name: {} for name in variants}
    total = sum(len(window_ends(trial.n_ticks, window, stride)) for trial in trials)
    with Progress("evaluate overlap", total, "windows", stream=None if progress else io.StringIO()) as bar:
        for trial in trials:
            features = {precision: _Faces(offline, trial, precision) for precision in {v.visual for v in variants.values()}}
            per_window: dict[str, dict[int, NDArray[np.float32]]] = {name: {} for name in variants}
            for newest in window_ends(trial.n_ticks, window, stride):
                clip = window_at(trial, newest, window)
                visual = {precision: faces.window(clip.tick_face) for precision, faces in features.items()}
                audio = {precision: offline.sound(clip.samples, precision) for precision in {v.audio for v in variants.values()}}
                off = np.zeros(window, np.bool_)
                for name, v in variants.items():
                    masks = (off if v.without == "visual" else clip.visual_mask, off if v.without == "audio" else clip.audio_mask)
                    per_window[name][newest] = offline.fuse(visual[v.visual], audio[v.audio], *masks, v.fusion)["estimates"]
                bar.step(note=trial.name)
            for name, windows in per_window.items():
                found[name][trial.name] = protocols.overlap(trial, windows.__getitem__, window, stride)
    return found


class _Faces:
    """Visual features of one trial in one precision, each face encoded once, those of one window held."""

    def __init__(self, offline: Offline, trial: Trial, precision: str) -> None:
        self._offline, self._trial, self._precision = offline, trial, precision
        self._rows = np.zeros(0, np.int64)
        self._features = np.zeros((0, offline.visual_dim(precision)), np.float32)

    def window(self, tick_face: NDArray[np.int32]) -> NDArray[np.float32]:
        """[W, d_V] for the rows of `trial.faces` in `tick_face` int32 [W]; zeros where it is -1."""
        rows = np.unique(tick_face[tick_face >= 0]).astype(np.int64)
        features = np.empty((len(rows), self._features.shape[1]), np.float32)
        known = np.isin(rows, self._rows)
        features[known] = self._features[np.searchsorted(self._rows, rows[known])]
        features[~known] = self._offline.faces(self._trial.faces[rows[~known]], self._precision)
        self._rows, self._features = rows, features
        out = np.zeros((len(tick_face), features.shape[1]), np.float32)
        out[tick_face >= 0] = features[np.searchsorted(rows, tick_face[tick_face >= 0])]
        return out


def live(bundle: Bundle, trials: Sequence[Trial], precision: str, backend: str = "onnxruntime", progress: bool = True) -> Predictions:
    """Predictions under the `live` protocol: each trial through a `Session` of its own, as many at a time as there are threads to give."""
    from sage_edge.runtime.session import Session
    from sage_edge.training.data import protocols

    stop = threading.Event()

    def estimates_of(trial: Trial) -> list[Estimate]:
        # Sessions of one thread side by side use the cores better than one session of many.
        with Session(bundle, backend=backend, precision=precision, t0_ns=0, threads=1) as session:
            return list(itertools.takewhile(lambda _: not stop.is_set(), play(session, trial)))

    found: Predictions = {}
    with (
        Progress(f"evaluate live {precision}", len(trials), "videos", stream=None if progress else io.StringIO()) as bar,
        ThreadPoolExecutor(default_threads()) as pool,
    ):
        try:
            for trial, estimates in zip(trials, pool.map(estimates_of, trials), strict=True):
                found[trial.name] = protocols.hold(trial, [e.t_ns for e in estimates], [(e.valence, e.arousal) for e in estimates])
                bar.step(note=trial.name)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def play(session: Session, trial: Trial) -> Iterator[Estimate]:
    """Push a trial into `session` (made with t0_ns=0) in the order of its stamps, and yield what it estimates."""
    rate = session.sample_rate_hz
    chunk, heard, end = round(_CHUNK_S * rate), 0, min(len(trial.audio), first_sample(trial.n_ticks, session.rate_hz, rate))
    for t_ns, face in zip(trial.frame_t_ns.tolist(), trial.frame_face.tolist(), strict=True):
        while heard + chunk <= min(t_ns * rate // NS_PER_S, end):
            session.push_audio(trial.samples(heard, chunk), heard * NS_PER_S // rate)
            heard += chunk
        session.push_face(trial.faces[face] if face >= 0 else None, t_ns)
        yield from session.poll()
    if heard < end:
        session.push_audio(trial.samples(heard, end - heard), heard * NS_PER_S // rate)
    session.finish()
    yield from session.poll()


def score(predictions: Predictions, trials: Sequence[Trial]) -> Score:
    """Pooled CCC over valid frames: valence, arousal, mean. Raises DataError where it is undefined."""
    result = pooled_ccc(*_valid(predictions, trials))
    if not all(np.isfinite(value) for value in result.values()):
        raise DataError("CCC is undefined on these videos: all labels of a dimension are equal; use videos whose labels vary")
    return result


def interval(predictions: Predictions, trials: Sequence[Trial]) -> dict[str, tuple[float, float]]:
    """95 % bootstrap interval of `score` over videos."""
    return bootstrap_ccc(*_valid(predictions, trials))


def drops(ccc: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, dict[str, float]]]:
    """protocol -> precision -> dimension -> FP32 minus that precision, from protocol -> precision -> score."""
    return {
        protocol: {precision: {name: rows["fp32"][name] - row[name] for name in DIMENSIONS} for precision, row in rows.items() if precision != "fp32"}
        for protocol, rows in ccc.items()
    }


@dataclass(frozen=True)
class Loss:
    """One dimension on which a precision loses more CCC than allowed; `str` says so."""

    protocol: str
    precision: str
    dimension: str
    drop: float
    allowed: float

    def __str__(self) -> str:
        return f"{self.precision} loses {self.drop:.4f} CCC on {self.dimension} under {self.protocol}, more than {self.allowed:g}"


def too_much(dropped: Mapping[str, Mapping[str, Mapping[str, float]]], max_drop: float) -> list[Loss]:
    """What loses more than `max_drop`, the worst first; `dropped` as `drops` gives it."""
    losses = [
        Loss(protocol, precision, name, value, max_drop)
        for protocol, rows in dropped.items()
        for precision, row in rows.items()
        for name, value in row.items()
        if not value <= max_drop
    ]
    return sorted(losses, key=lambda loss: -loss.drop)


def _valid(predictions: Predictions, trials: Sequence[Trial]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    return [predictions[t.name][t.labels_valid] for t in trials], [t.labels[t.labels_valid] for t in trials]
