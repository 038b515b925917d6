"""Stage 2: the audio encoder on stretches of sound, with a linear head per tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sage_edge.runtime.metrics import affect_ccc
from sage_edge.training import distributed
from sage_edge.training.config import TrainConfig
from sage_edge.training.data.corruption import samples_corrupted
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import Window, window_at
from sage_edge.training.loss import affect_loss
from sage_edge.training.model import SAGE

from . import Head, Stage, adamw

VALIDATION_STRETCHES = 48


class AudioStage(Stage):
    """Trains `model.audio`; each epoch draws `audio_windows` stretches of `audio_ticks` ticks, from trials as long as they are."""

    name = "audio"

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.train, self.val = ([trial for trial in trials if len(trial.audio) and trial.labels_valid.any()] for trials in (train, val))
        self.head = Head(model.preset.audio_dim, config.corrupt > 0).to(next(model.parameters()).device)
        modules = nn.ModuleDict({"audio": model.audio, "head": self.head})
        steps = max(1, config.audio_windows // config.audio_batch)
        super().__init__(model, modules, adamw(modules, config.audio_lr, config), config.audio_epochs if self.train else 0, steps, config)

    def start(self, folder: Path) -> None:
        ticks = self.config.audio_ticks
        lengths = np.array([trial.n_ticks for trial in self.train], np.float64)
        self.chance = lengths / lengths.sum()
        ends = [(trial, newest) for trial in self.val for newest in range(ticks - 1, trial.n_ticks, ticks)]
        self.val_ends = ends[:: max(1, len(ends) // VALIDATION_STRETCHES)]

    def _draw(self, rng: np.random.Generator) -> Window:
        trial = self.train[rng.choice(len(self.train), p=self.chance)]
        length = self.config.audio_ticks
        return window_at(trial, int(rng.integers(min(length, trial.n_ticks) - 1, trial.n_ticks)), length)

    def _spoiled(self, window: Window, rng: np.random.Generator) -> tuple[Window, NDArray[np.float32]]:
        """(the window as it is heard, how bad each tick is)."""
        if self.config.corrupt <= 0:
            return window, np.zeros(len(window.tick_sample), np.float32)
        samples, bad = samples_corrupted(window.samples, self.config.corrupt, rng)
        return replace(window, samples=samples), bad[np.minimum(window.tick_sample, len(bad) - 1)]

    def batch(self, step: int, rng: np.random.Generator) -> list[tuple[Window, NDArray[np.float32]]]:
        drawn: list[tuple[Window, NDArray[np.float32]]] = distributed.share(
            [self._spoiled(self._draw(rng), rng) for _ in range(self.config.audio_batch)]
        )
        return drawn

    def loss(self, batch: list[tuple[Window, NDArray[np.float32]]]) -> torch.Tensor:
        heard, labels, valid = self._heard([window for window, _ in batch])
        prediction, labels, valid = distributed.gather(self.head(heard), labels, valid.float())
        bad = torch.from_numpy(np.stack([bad for _, bad in batch])).to(self.device)
        return affect_loss(prediction, labels, valid, self.config.reduction, self.config.mse) + self.head.judged(heard, bad)

    def _heard(self, windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A [n, W, d_A], labels, and where both sound and label are there."""
        parts: list[tuple[torch.Tensor, torch.Tensor | None]]
        if any(window.native for window in windows):  # of different lengths
            parts = [(torch.from_numpy(window.samples)[None], torch.from_numpy(window.tick_sample)) for window in windows]
        else:
            parts = [(torch.from_numpy(np.stack([window.samples for window in windows])), None)]
        heard = torch.cat([self.model.audio(samples.to(self.device), at if at is None else at.to(self.device)) for samples, at in parts])
        labels = torch.from_numpy(np.stack([window.labels for window in windows]))
        valid = torch.from_numpy(np.stack([window.labels_valid & window.audio_mask for window in windows]))
        return heard, labels.to(self.device), valid.to(self.device)

    def validate(self) -> dict[str, float]:
        """CCC of the head alone on stretches of the validation split (for diagnosis; nothing is chosen by it)."""
        guesses, truths = [], []
        for start in range(0, len(self.val_ends), 8):
            windows = [window_at(trial, newest, self.config.audio_ticks) for trial, newest in self.val_ends[start : start + 8]]
            heard, labels, valid = self._heard(windows)
            guesses.append(self.head(heard)[valid].cpu().numpy())
            truths.append(labels[valid].cpu().numpy())
        if not sum(map(len, truths)):
            return {}
        return {f"val_{key}": value for key, value in affect_ccc(np.concatenate(guesses), np.concatenate(truths)).items()}
