"""Concordance correlation, the field's measure of continuous affect, in float64 NumPy.

CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2), with population moments (Lin, Biometrics 45, 1989). The headline figure is
pooled: every valid frame of every video in one vector per dimension, as the Aff-Wild2 challenges do it.

It is undefined (NaN here, null in JSON, "undefined" and why in text) without data, and where all labels are equal: the formula gives 0 then
whatever is predicted, which says nothing of a model, since agreement with what never varies cannot be measured. A constant prediction of
labels that vary is 0: that model is at fault.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_FRAMES, EQUAL_LABELS = "no valid frame", "all labels equal"
"""Why a CCC is undefined."""


def ccc(prediction: ArrayLike, truth: ArrayLike) -> float:
    """CCC of two 1-D sequences; NaN where it is undefined (no data, or `truth` constant).

    Raises ValueError when the shapes differ.
    """
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"CCC needs two 1-D sequences of one length, got {x.shape} and {y.shape}")
    if why_undefined(y):
        return float("nan")
    mx, my = x.mean(), y.mean()
    return float(2.0 * np.mean((x - mx) * (y - my)) / (x.var() + y.var() + (mx - my) ** 2))


def why_undefined(truth: ArrayLike) -> str | None:
    """Why CCC with the labels `truth` [N] is undefined; None where it is defined."""
    y = np.asarray(truth)
    if y.size == 0:
        return NO_FRAMES
    return EQUAL_LABELS if y.min() == y.max() else None


def affect_ccc(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> dict[str, float]:
    """{"valence", "arousal", "mean"} CCC of [N, 2] arrays whose columns are valence and arousal."""
    valence, arousal = (ccc(prediction[:, i], truth[:, i]) for i in range(2))
    return {"valence": valence, "arousal": arousal, "mean": (valence + arousal) / 2}


def pooled_ccc(predictions: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.floating]]) -> dict[str, float]:
    """`affect_ccc` over all videos at once: lists of [F_i, 2] arrays, invalid frames already removed."""
    if not predictions:
        return {"valence": float("nan"), "arousal": float("nan"), "mean": float("nan")}
    return affect_ccc(np.concatenate(predictions), np.concatenate(truths))


def bootstrap_ccc(
    predictions: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.floating]], draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile interval of `pooled_ccc`, resampling whole videos with replacement (frames of one video are not independent).

    Draws in which it is undefined do not count.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(draws):
        pick = rng.integers(0, len(predictions), len(predictions))
        score = pooled_ccc([predictions[i] for i in pick], [truths[i] for i in pick])
        rows.append([score["valence"], score["arousal"], score["mean"]])
    tail = (1.0 - level) / 2
    return {name: _interval(column, tail) for name, column in zip(("valence", "arousal", "mean"), np.array(rows).T, strict=True)}


def _interval(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """(low, high) quantile of the defined values; NaN where none is."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)
