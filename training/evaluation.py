"""CCC of models on a prepared store under both protocols, on every original frame, float64; and with one modality's mask off.

    result = evaluate(model, Store.open("STORE"))        # {"overlap": {valence, arousal, mean, per_video}, "live": {...}}
    found = gather({"a": a, "b": b}, store, "val", ensemble=mean_of(["a", "b"]), smoothings=[Smoothing.parse("average")])
    report(found)                                        # of every model, the ensemble, and what smoothing changes

What is kept over all trials are estimates, two numbers per frame; features are gone with their trial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.progress import Progress
from sage_edge.runtime.smoothing import Smoothing

from .data import protocols
from .data.store import Store, Trial
from .ensemble import Ensemble
from .model import SAGE
from .prediction import BOTH, HOP, PROTOCOLS, Predictor, Track, Tracks, live_ends

__all__ = ["HOP", "PROTOCOLS", "ccc_without", "evaluate", "full_report", "gather", "live_ends", "predict_trial", "report"]

ENSEMBLE = "ensemble"
"""Label of the ensemble among those of the models."""
NO_SCORES: dict[str, None] = dict.fromkeys((*PROTOCOLS, "without"))
"""The block of a model on a split without labels."""
WITHOUT = {"visual": (False, True), "audio": (True, False)}

Predictions = dict[tuple[bool, bool], dict[str, NDArray[np.float32]]]


class Kind(NamedTuple):
    """What estimates are: a protocol, which masks may be on, and a smoothing."""

    protocol: str
    masks: tuple[bool, bool] = BOTH
    smoothing: Smoothing | None = None


@dataclass(frozen=True)
class Gathered:
    """Estimates of one split."""

    split: str
    trials: list[Trial]
    frames: dict[str, dict[Kind, dict[str, NDArray[np.float32]]]]
    """label -> kind -> trial -> float32 [F, 2]."""
    ensemble: Ensemble | None
    smoothings: tuple[Smoothing, ...]

    @property
    def labelled(self) -> bool:
        """Whether there is a label to score against."""
        return any(trial.labels_valid.any() for trial in self.trials)

    def score(self, label: str, kind: Kind) -> dict[str, Any]:
        """`protocols.score` of these estimates."""
        return protocols.score(self.frames[label][kind], self.trials)


def predict_trial(model: SAGE, trial: Trial, variants: Sequence[tuple[bool, bool]], wanted: Sequence[str] = PROTOCOLS, hop: int = HOP) -> Predictions:
    """{variant: {protocol: float32 [F, 2]}} for one trial; `model` must be in eval mode."""
    (tracks,) = Predictor({"": model}).tracks(trial, variants, wanted, hop).values()
    return {masks: {name: track.on_frames(trial) for name, track in by_protocol.items()} for masks, by_protocol in tracks.items()}


def gather(
    models: Mapping[str, SAGE],
    store: Store,
    split: str = "val",
    variants: Sequence[tuple[bool, bool]] = (BOTH,),
    wanted: Sequence[str] = PROTOCOLS,
    hop: int = HOP,
    *,
    ensemble: Ensemble | None = None,
    smoothings: Sequence[Smoothing] = (),
    progress: bool = False,
) -> Gathered:
    """Estimates of every model, of their `ensemble` (label "ensemble") and of each of `smoothings` with all masks on.

    Raises DataError when the store has no such split, UsageError when its ticks or faces are not those of a model.
    """
    trials = store.trials(split)
    frames: dict[str, dict[Kind, dict[str, NDArray[np.float32]]]] = {label: {} for label in (*models, *([ENSEMBLE] if ensemble else []))}
    with evaluating(models), Progress(f"evaluate {split}", len(trials), "trials", shown=progress) as bar:
        predictor = Predictor(models)
        for trial in trials:
            found = predictor.tracks(trial, variants, wanted, hop)
            if ensemble is not None:
                found[ENSEMBLE] = _combined(ensemble, found)
            for label, tracks in found.items():
                for kind, track in _smoothed(tracks, smoothings):
                    frames[label].setdefault(kind, {})[trial.name] = track.on_frames(trial)
            bar.step()
    return Gathered(split, trials, frames, ensemble, tuple(smoothings))


def _combined(ensemble: Ensemble, found: Mapping[str, Tracks]) -> Tracks:
    any_tracks = next(iter(found.values()))
    return {
        masks: {name: ensemble.combine({label: tracks[masks][name] for label, tracks in found.items()}) for name in by_protocol}
        for masks, by_protocol in any_tracks.items()
    }


def _smoothed(tracks: Tracks, smoothings: Sequence[Smoothing]) -> Iterator[tuple[Kind, Track]]:
    """Every track as it is, and those with all masks on under each smoothing: an average looks ahead in `overlap`, where the recording is at hand."""
    for masks, by_protocol in tracks.items():
        for name, track in by_protocol.items():
            yield Kind(name, masks), track
            for smoothing in smoothings if masks == BOTH else ():
                values = smoothing.recording(track.t_ns, track.values, centred=name == "overlap")
                yield Kind(name, masks, smoothing), Track(name, track.t_ns, values.astype(np.float32))


@contextlib.contextmanager
def evaluating(models: Mapping[str, SAGE]) -> Iterator[None]:
    """Models in eval mode inside, as they were afterwards."""
    before = {label: model.training for label, model in models.items()}
    for model in models.values():
        model.eval()
    try:
        yield
    finally:
        for label, model in models.items():
            model.train(before[label])


def evaluate(
    model: SAGE, store: Store, split: str = "val", visual: bool = True, audio: bool = True, hop: int = HOP, progress: bool = False
) -> dict[str, Any]:
    """{"overlap", "live"}: each {"valence", "arousal", "mean", "undefined", "per_video"}; `visual=False` or `audio=False` switches that mask off.

    Raises DataError when the store has no such split or no label in it, UsageError when its ticks or faces are not the model's.
    """
    found = gather({"": model}, store, split, [(visual, audio)], PROTOCOLS, hop, progress=progress)
    return {name: found.score("", Kind(name, (visual, audio))) for name in PROTOCOLS}


def ccc_without(model: SAGE, store: Store, split: str = "val", progress: bool = False) -> dict[str, Any]:
    """{"visual": score with the visual mask off, "audio": with the audio mask off}, protocol `overlap`."""
    found = gather({"": model}, store, split, list(WITHOUT.values()), ["overlap"], progress=progress)
    return {name: found.score("", Kind("overlap", masks)) for name, masks in WITHOUT.items()}


def full_report(model: SAGE, store: Store, split: str = "val", hop: int = HOP, progress: bool = False) -> dict[str, Any]:
    """`evaluate` and `ccc_without` in one pass over the store: {"split", "overlap", "live", "without": {"visual", "audio"}}."""
    found = gather({"": model}, store, split, [BOTH, *WITHOUT.values()], PROTOCOLS, hop, progress=progress)
    return {"split": split, **block(found, "")}


def report(found: Gathered) -> dict[str, dict[str, Any]]:
    """{label: block} of what `gather` found for [BOTH, *WITHOUT.values()]; the ensemble's also says how it was made and what it changes.

    A block is {"overlap", "live", "without"}, and with smoothings "smooth": {name: {protocol: score and "change"}}; the ensemble's has "how",
    "shares" and "against": {model: {protocol: change}}.
    """
    blocks = {label: block(found, label) for label in found.frames}
    if found.ensemble is not None:
        own = blocks[ENSEMBLE]
        own |= {"how": found.ensemble.how, "shares": {label: list(share) for label, share in found.ensemble.shares.items()}}
        own["against"] = {label: {name: change(own[name], blocks[label][name]) for name in PROTOCOLS} for label in blocks if label != ENSEMBLE}
    return blocks


def block(found: Gathered, label: str) -> dict[str, Any]:
    """The figures of one model; see `report`."""
    result: dict[str, Any] = {name: found.score(label, Kind(name)) for name in PROTOCOLS}
    result["without"] = {name: found.score(label, Kind("overlap", masks)) for name, masks in WITHOUT.items()}
    if found.smoothings:
        result["smooth"] = {
            str(smoothing): {name: _effect(found, label, name, smoothing, result[name]) for name in PROTOCOLS} for smoothing in found.smoothings
        }
    return result


def _effect(found: Gathered, label: str, protocol: str, smoothing: Smoothing, before: Mapping[str, Any]) -> dict[str, Any]:
    after = found.score(label, Kind(protocol, BOTH, smoothing))
    return {**{key: after[key] for key in (*_SCORES, "undefined")}, "change": change(after, before)}


_SCORES = (*protocols.DIMENSIONS, "mean")


def change(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """valence, arousal and mean of `after` less those of `before`; NaN where either is undefined."""
    return {key: after[key] - before[key] for key in _SCORES}
