"""CCC and reliability of models under the cells of `data/corruption.py`: what each loses when a sense is spoiled, and whether its weights say so.

    result = run_suite({"modality": a, "concat": b}, store)      # {label: {cell: {valence, arousal, mean, weight_visual, ...}}}

Protocol `overlap`. Deterministic: a cell depends on (seed, trial, cell). Models with the same encoders share their work, and a sense that a cell
leaves alone is encoded once per trial. One trial's features are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sage_edge.runtime.errors import DataError
from sage_edge.runtime.progress import Progress

from . import features
from .data import protocols
from .data.corruption import CELLS, Cell, corrupted
from .data.store import Store, Trial
from .data.windows import STRIDE, Window, window_at
from .evaluation import evaluating
from .model import SAGE
from .prediction import FusionInput, by_encoders, check_fits, fuse, overlap_ends, window_batches


class _Encoded:
    """Features of one trial; those of what a corrupted copy of it shares with it are looked up, not computed."""

    def __init__(self, model: SAGE, trial: Trial, clean: _Encoded | None = None) -> None:
        self.model, self.trial, self.ends = model, trial, overlap_ends(model, trial)
        self.faces: Tensor
        self.sound: list[Tensor]
        if clean is not None and clean.trial.faces is trial.faces:
            self.faces = clean.faces
        else:
            self.faces = features.encode_faces(model, trial)
        if clean is not None and clean.trial.audio is trial.audio:
            self.sound = clean.sound
        else:
            self.sound = [features.encode_windows(model, windows) for _, windows in self._windows()]

    def _windows(self) -> Iterator[tuple[Sequence[int], list[Window]]]:
        for ends in window_batches(self.model, self.ends):
            yield ends, [window_at(self.trial, end, self.model.preset.window) for end in ends]

    def batches(self) -> Iterator[tuple[Sequence[int], FusionInput]]:
        """(newest ticks, what a fusion sees of their windows)."""
        for (ends, windows), sound in zip(self._windows(), self.sound, strict=True):
            yield ends, FusionInput.of(windows, self.faces, sound)


@dataclass(frozen=True, eq=False)
class _TrialOutput:
    """What one model makes of one trial under one cell."""

    frames: NDArray[np.float32]
    """[F, 2] estimates."""
    weights: NDArray[np.float32] | None
    """[.., 2] of visual and audio, on the frames that have both senses in the clean trial; None in a model that has no such weights."""
    spreads: list[float]
    """One per window with a valid tick."""

    @classmethod
    def of(cls, trial: Trial, both: NDArray[np.bool_], outputs: Mapping[int, _Window], length: int) -> _TrialOutput:
        """`trial` is the clean one, `both` [F] says which of its frames have both senses; `outputs` maps each window's newest tick to its output."""
        stride, weights = min(STRIDE, length), {end: output.weights for end, output in outputs.items() if output.weights is not None}
        return cls(
            protocols.overlap(trial, lambda newest: outputs[newest].estimates, length, stride),
            protocols.overlap(trial, weights.__getitem__, length, stride)[both] if weights else None,
            [output.spread for output in outputs.values() if output.spread is not None],
        )


class _Arm:
    """What one model does under one cell, over all trials."""

    def __init__(self) -> None:
        self.frames: dict[str, NDArray[np.float32]] = {}
        self.weights: list[NDArray[np.float32]] = []
        self.spreads: list[float] = []

    def add(self, trial: Trial, output: _TrialOutput) -> None:
        self.frames[trial.name] = output.frames
        if output.weights is not None:
            self.weights.append(output.weights)
        self.spreads += output.spreads

    def result(self, trials: Sequence[Trial]) -> dict[str, Any]:
        score = protocols.score(self.frames, trials)
        weights = np.concatenate(self.weights) if self.weights else np.zeros((0, 2))
        visual, audio = weights.mean(0, dtype=np.float64).tolist() if len(weights) else (None, None)
        return {
            **{key: score[key] for key in (*protocols.DIMENSIONS, "mean", "undefined")},
            "weight_visual": visual,
            "weight_audio": audio,
            "temporal_spread": float(np.mean(self.spreads)) if self.spreads else None,
        }


@dataclass(frozen=True, eq=False)
class _Window:
    """A model's output for one window."""

    estimates: NDArray[np.float32]
    """[W, 2]."""
    weights: NDArray[np.float32] | None
    """[W, 2] of visual and audio, None in a model that has none."""
    spread: float | None
    """Standard deviation of the weight of the moment over the valid ticks, None where there is none."""


def _both_senses(trial: Trial) -> NDArray[np.bool_]:
    """[F]: the frame shows a face and the sound track holds its tick."""
    heard = np.array([trial.first_sample(k + 1) <= len(trial.audio) for k in range(trial.n_ticks)])
    both: NDArray[np.bool_] = ((trial.tick_face >= 0) & heard)[trial.frame_tick]
    return both


def _outputs(model: SAGE, batch: FusionInput) -> list[_Window]:
    output = fuse(model, batch)
    valid = torch.maximum(batch.visual_mask, batch.audio_mask).numpy() > 0
    spreads = [float(row[on].std()) if on.any() else None for row, on in zip(output.temporal.numpy(), valid, strict=True)]
    weights = [None] * len(valid) if output.modality is None else output.modality.numpy()
    return [_Window(*row) for row in zip(output.estimates.numpy(), weights, spreads, strict=True)]


def _run_trial(models: Mapping[str, SAGE], trial: Trial, seed: int, cells: Mapping[str, Cell]) -> Iterator[tuple[str, dict[str, _TrialOutput]]]:
    """(cell, what each of `models`, whose encoders are equal, makes of the trial under it)."""
    first = next(iter(models.values()))
    check_fits(first, trial)
    clean, both = _Encoded(first, trial), _both_senses(trial)
    for name, cell in cells.items():
        windows: dict[str, dict[int, _Window]] = {label: {} for label in models}
        for ends, batch in _Encoded(first, corrupted(trial, cell, seed), clean).batches():
            for label, model in models.items():
                windows[label].update(zip(ends, _outputs(model, batch), strict=True))
        yield name, {label: _TrialOutput.of(trial, both, windows[label], first.preset.window) for label in models}


def run_suite(
    models: Mapping[str, SAGE], store: Store, split: str = "val", seed: int = 0, cells: Mapping[str, Cell] = CELLS, progress: bool = False
) -> dict[str, dict[str, dict[str, Any]]]:
    """{label: {cell: {valence, arousal, mean, undefined, weight_visual, weight_audio, temporal_spread}}}.

    Weights are means over the frames that have both senses in the clean trial, None where a model has no weight per modality. The spread is the
    standard deviation of the weight of the moment within a window, averaged over windows. Raises DataError when the split is missing or
    has no label, UsageError when its ticks or faces are not those of a model.
    """
    trials = [trial for trial in store.trials(split) if trial.labels_valid.any()]
    if not trials:
        raise DataError(f"no frame of the {split!r} split of {store.path} has a label; the suite needs some")
    groups = by_encoders(models)
    arms = {label: {name: _Arm() for name in cells} for label in models}
    steps = len(trials) * len(groups) * len(cells)
    with evaluating(models), Progress(f"suite {split}", steps, "cells", shown=progress) as bar:
        for trial in trials:
            for group in groups:
                for name, outputs in _run_trial({label: models[label] for label in group}, trial, seed, cells):
                    for label in group:
                        arms[label][name].add(trial, outputs[label])
                    bar.step(note=f"{trial.name} {name}")
    return {label: {name: arm.result(trials) for name, arm in by_cell.items()} for label, by_cell in arms.items()}
