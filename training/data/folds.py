"""K-fold cross-validation over trials: whole groups of trials, balanced by frames. No torch.

train, val = split_folds(store.trials("train"), k=6, fold=0)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sage_edge.runtime.errors import UsageError

from .affwild2 import media_name
from .store import Trial

GROUPS = ("source", "subject")


def split_folds(trials: Sequence[Trial], k: int, fold: int, by: str = "source", seed: int = 0) -> tuple[list[Trial], list[Trial]]:
    """(trials to train on, trials to validate on), both by name; each trial is in the validation part of one of the `k` folds.

    A video is never divided (`_left` and `_right` are two people of one, also where each has a file of its own), nor is a person with
    `by="subject"`. The same for any order of `trials`. Raises UsageError: no such fold, fewer groups than folds,
    a trial without a subject where one is needed.
    """
    if by not in GROUPS:
        raise UsageError(f"fold_by={by!r} is unknown; one of {', '.join(GROUPS)}")
    if k < 2:
        raise UsageError(f"folds={k} divides nothing; give at least 2")
    if not 0 <= fold < k:
        raise UsageError(f"fold={fold} is not within 0 and {k - 1}, the folds there are; choose one of them")
    ordered = sorted(trials, key=lambda trial: trial.name)
    if by == "subject" and (unknown := [trial.name for trial in ordered if trial.subject is None]):
        raise UsageError(f"{len(unknown)} of {len(ordered)} trials have no known subject ({unknown[0]} is one); use fold_by=source")
    groups = _groups(ordered, by)
    if len(groups) < k:
        raise UsageError(f"folds={k} is more than the {len(groups)} groups by {by} that there are; give at most {len(groups)}")
    number = _assign([sum(len(ordered[i].frame_t_ns) for i in group) for group in groups], k, seed)
    held = {i for group, of in zip(groups, number, strict=True) if of == fold for i in group}
    return [trial for i, trial in enumerate(ordered) if i not in held], [trial for i, trial in enumerate(ordered) if i in held]


def _groups(trials: Sequence[Trial], by: str) -> list[list[int]]:
    """Indices of trials that stay together: connected by a source or a name up to `_left` or `_right`, with "subject" by a subject too."""
    group = list(range(len(trials)))
    first: dict[tuple[str, str | None], int] = {}

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for i, trial in enumerate(trials):
        keys: list[tuple[str, str | None]] = [("source", trial.source), ("name", media_name(trial.name))]
        if by == "subject":
            keys.append(("subject", trial.subject))
        for key in keys:
            a, b = root(first.setdefault(key, i)), root(i)
            group[max(a, b)] = min(a, b)
    members: dict[int, list[int]] = {}
    for i in range(len(trials)):
        members.setdefault(root(i), []).append(i)
    return list(members.values())


def _assign(sizes: Sequence[int], k: int, seed: int) -> list[int]:
    """The fold of each group: largest first, each to the smallest fold so far; `seed` decides between equals."""
    rng = np.random.default_rng([seed, k])
    order = sorted(rng.permutation(len(sizes)).tolist(), key=lambda i: -sizes[i])
    name = rng.permutation(k).tolist()
    load, count, fold = [0] * k, [0] * k, [0] * len(sizes)
    for i in order:
        # by count too, so that no fold stays empty where groups have no frames
        target = min(range(k), key=lambda j: (load[j], count[j]))
        fold[i] = name[target]
        load[target] += sizes[i]
        count[target] += 1
    return fold
