"""Several models as one: their estimates averaged, or each target from the model that was best at it (target-wise fold selection).

both = mean_of(["fold0", "fold1"]);  both = best_of({"fold0": metrics, "fold1": metrics})
track = both.combine({"fold0": track, "fold1": track})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sage_edge.runtime.errors import UsageError

from .data.protocols import DIMENSIONS
from .model import SAGE
from .prediction import Track


@dataclass(frozen=True)
class Ensemble:
    """What each model contributes to each target."""

    how: str
    """"mean" or "best"."""
    shares: dict[str, tuple[float, ...]]
    """label -> share in valence and in arousal; each target's add up to 1."""

    def combine(self, tracks: Mapping[str, Track]) -> Track:
        """The ensemble's estimates of one trial under one protocol, from those of its members."""
        any_track = next(iter(tracks.values()))
        total = sum(tracks[label].values * np.array(share) for label, share in self.shares.items())
        return Track(any_track.protocol, any_track.t_ns, np.asarray(total, np.float32))

    def __str__(self) -> str:
        if self.how == "mean":
            return f"mean of {', '.join(self.shares)}"
        return ", ".join(f"{name} of {self.chosen[name]}" for name in DIMENSIONS)

    @property
    def chosen(self) -> dict[str, str]:
        """target -> the model that has the greatest share in it."""
        return {name: max(self.shares, key=lambda label: self.shares[label][i]) for i, name in enumerate(DIMENSIONS)}


def mean_of(labels: Sequence[str]) -> Ensemble:
    """Every model alike. Raises UsageError for fewer than two."""
    _check_count(labels)
    return Ensemble("mean", {label: (1.0 / len(labels),) * len(DIMENSIONS) for label in labels})


def best_of(metrics: Mapping[str, Mapping[str, Any]]) -> Ensemble:
    """Each target from the model whose own validation CCC of it was best: {label: `metrics` of its checkpoint.json}; the first of equals.

    Raises UsageError for fewer than two, and where a checkpoint does not say.
    """
    _check_count(list(metrics))
    chosen = [_best(metrics, name) for name in DIMENSIONS]
    return Ensemble("best", {label: tuple(float(label == best) for best in chosen) for label in metrics})


def _best(metrics: Mapping[str, Mapping[str, Any]], dimension: str) -> str:
    scores = {label: _own_ccc(label, values, dimension) for label, values in metrics.items()}
    return max(scores, key=lambda label: scores[label])


def _own_ccc(label: str, metrics: Mapping[str, Any], dimension: str) -> float:
    score = metrics.get(f"val_{dimension}")
    if not isinstance(score, (int, float)) or not math.isfinite(score):
        raise UsageError(
            f"{label} has no validation CCC of {dimension} (val_{dimension} in checkpoint.json); train on a store with a val split, or take the mean"
        )
    return float(score)


def _check_count(labels: Sequence[str]) -> None:
    if len(labels) < 2:
        raise UsageError(f"an ensemble of {len(labels)} checkpoint is none; give two or more")


def check_alike(models: Mapping[str, SAGE]) -> None:
    """Raises UsageError unless all models tick alike: sizes may differ, rate and window may not."""
    labels = list(models)
    for label in labels[1:]:
        for key in ("rate_hz", "window"):
            first, other = getattr(models[labels[0]].preset, key), getattr(models[label].preset, key)
            if first != other:
                raise UsageError(f"{labels[0]} has {key}={first}, {label} {key}={other}; evaluate models together that agree")
