"""The Aff-Wild2 challenge's file of predictions: `DIR/predictions.txt`, one line per frame.

    image_location,valence,arousal
    video1/00001.jpg,0.123456,-0.654321

Images are numbered from 1 as the organisers' crops are: the number is that of the frame in the video, whether it has a face or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import atomic_folder

from .data.store import Trial

NAME = "predictions.txt"
HEADER = "image_location,valence,arousal"


@dataclass(frozen=True)
class Written:
    """What a file of predictions holds."""

    file: str
    videos: int
    rows: int
    """Frames."""


def refuse_existing(folder: Path) -> None:
    """Raises UsageError when something is where a submission would go: before the work, not after it."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already; choose another path or remove it")


def write(folder: Path, trials: Sequence[Trial], frames: Mapping[str, NDArray[np.floating]]) -> Written:
    """Write `frames` ({trial name: [F, 2]}), clipped to [-1, 1], into the new folder `folder`, whole or not at all.

    Where a split has labels, only frames with a valid one get a line, as only they are scored; where it has none (the test list), every frame.
    Raises UsageError when `folder` exists.
    """
    labelled = any(trial.labels_valid.any() for trial in trials)
    videos = rows = 0
    with atomic_folder(folder) as work, open(work / NAME, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(HEADER + "\n")
        for trial in trials:
            values = np.clip(np.asarray(frames[trial.name], np.float64), -1.0, 1.0)
            chosen = np.flatnonzero(trial.labels_valid) if labelled else np.arange(len(values))
            stream.writelines(f"{trial.name}/{i + 1:05d}.jpg,{values[i, 0]:.6f},{values[i, 1]:.6f}\n" for i in chosen.tolist())
            videos, rows = videos + bool(len(chosen)), rows + len(chosen)
    return Written(str(folder / NAME), videos, rows)
