"""The two protocols for CCC, always named: `overlap` (windows averaged, every frame) and `live` (newest tick, held)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sage_edge.runtime.errors import DataError
from sage_edge.runtime.metrics import pooled_ccc, why_undefined

from .store import Trial
from .windows import STRIDE, WINDOW, window_ends

DIMENSIONS = ("valence", "arousal")


def overlap(trial: Trial, predict: Callable[[int], NDArray[np.floating]], length: int = WINDOW, stride: int = STRIDE) -> NDArray[np.float32]:
    """float32 [F, 2] for every frame: windows averaged per tick, then each frame takes the first tick at or after it.

    `predict(newest)` gives [length, 2] for the window that ends at tick `newest`.
    """
    total = np.zeros((trial.n_ticks, 2), np.float64)
    count = np.zeros((trial.n_ticks, 1), np.float64)
    for newest in window_ends(trial.n_ticks, length, stride):
        first = newest - length + 1
        window = np.asarray(predict(newest), np.float64)
        if window.shape != (length, 2):
            raise ValueError(f"predict({newest}) gave shape {window.shape}, expected {(length, 2)}")
        total[max(first, 0) : newest + 1] += window[max(-first, 0) :]
        count[max(first, 0) : newest + 1] += 1
    return (total / count)[trial.frame_tick].astype(np.float32)


def hold(trial: Trial, t_ns: Sequence[int] | NDArray[np.int64], estimates: ArrayLike) -> NDArray[np.float32]:
    """float32 [F, 2]: each frame takes the newest estimate whose `t_ns` is not after it; (0, 0) before the first one.

    `t_ns` is ascending, after the trial's first frame; `estimates` is [n, 2].
    """
    stamps = np.asarray(t_ns, np.int64)
    values = np.asarray(estimates, np.float32).reshape(-1, 2)
    if len(stamps) != len(values) or (np.diff(stamps) < 0).any():
        raise ValueError(f"need one ascending time per estimate, got {len(stamps)} times and {len(values)} estimates")
    held = np.concatenate([np.zeros((1, 2), np.float32), values])
    return held[np.searchsorted(stamps, trial.frame_t_ns, side="right")]


def score(predictions: Mapping[str, NDArray[np.floating]], trials: Sequence[Trial]) -> dict[str, Any]:
    """CCC over valid frames: {"valence", "arousal", "mean", "undefined"} pooled over all trials, and "per_video": {name: the same four}.

    Where a dimension's labels are all equal its CCC is NaN, and "undefined" says why: {dimension: reason}. `predictions` maps a trial's name
    to [F, 2]. Trials without one valid frame take no part. Raises DataError when none is left.
    """
    guesses, truths, per_video = [], [], {}
    for trial in trials:
        guess = np.asarray(predictions[trial.name])
        if guess.shape != trial.labels.shape:
            raise ValueError(f"{trial.name}: predictions have shape {guess.shape}, labels {trial.labels.shape}")
        if not trial.labels_valid.any():
            continue
        guesses.append(guess[trial.labels_valid])
        truths.append(trial.labels[trial.labels_valid])
        per_video[trial.name] = _with_reasons([guesses[-1]], [truths[-1]])
    if not guesses:
        raise DataError("no frame of these trials has a label; CCC needs some")
    return {**_with_reasons(guesses, truths), "per_video": per_video}


def _with_reasons(guesses: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.floating]]) -> dict[str, Any]:
    columns = zip(DIMENSIONS, np.concatenate(truths).T, strict=True)
    return {**pooled_ccc(guesses, truths), "undefined": {name: reason for name, labels in columns if (reason := why_undefined(labels))}}
