"""Concordance correlation, the field's measure of continuous affect, in float64 NumPy.

CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2), with population moments (Lin, Biometrics 45, 1989). The headline figure is
pooled: every valid frame of every video in one vector per dimension, as the Aff-Wild2 challenges do it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ccc(prediction: ArrayLike, truth: ArrayLike) -> float:
    """CCC of two 1-D sequences; NaN when it is undefined (no data, or both constant and equal).

    Raises ValueError when the shapes differ.
    """
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"CCC needs two 1-D sequences of one length, got {x.shape} and {y.shape}")
    if x.size == 0:
        return float("nan")
    mx, my = x.mean(), y.mean()
    denominator = x.var() + y.var() + (mx - my) ** 2
    return float(2.0 * np.mean((x - mx) * (y - my)) / denominator) if denominator > 0 else float("nan")


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
    """Percentile interval of `pooled_ccc`, resampling whole videos with replacement (frames of one video are not independent)."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(draws):
        pick = rng.integers(0, len(predictions), len(predictions))
        score = pooled_ccc([predictions[i] for i in pick], [truths[i] for i in pick])
        rows.append([score["valence"], score["arousal"], score["mean"]])
    tail = (1.0 - level) / 2
    low, high = np.nanquantile(np.array(rows), [tail, 1.0 - tail], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("valence", "arousal", "mean"))}
