"""Stage 2: the audio encoder on stretches of sound, with a linear head per tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sage_edge.runtime.metrics import affect_ccc
from sage_edge.training.config import TrainConfig
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import Window, window_at
from sage_edge.training.loss import affect_loss
from sage_edge.training.model import SAGE

from . import Head, OnStep, adamw, descend, learning_rate, mean

VALIDATION_STRETCHES = 48


class AudioStage:
    """Trains `model.audio`; each epoch draws `audio_windows` stretches of `audio_ticks` ticks, from trials as long as they are."""

    name = "audio"

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.model, self.config = model, config
        self.train, self.val = ([trial for trial in trials if len(trial.audio) and trial.labels_valid.any()] for trials in (train, val))
        self.epochs = config.audio_epochs if self.train else 0
        self.head = Head(model.preset.audio_dim)
        self.modules = nn.ModuleDict({"audio": model.audio, "head": self.head})
        self.optimizer: torch.optim.Optimizer = adamw(self.modules, config.audio_lr, config)
        self.steps = max(1, config.audio_windows // config.audio_batch)

    def start(self) -> None:
        ticks = self.config.audio_ticks
        lengths = np.array([trial.n_ticks for trial in self.train], np.float64)
        self.chance = lengths / lengths.sum()
        ends = [(trial, newest) for trial in self.val for newest in range(ticks - 1, trial.n_ticks, ticks)]
        self.val_ends = ends[:: max(1, len(ends) // VALIDATION_STRETCHES)]

    def _draw(self, rng: np.random.Generator) -> Window:
        trial = self.train[rng.choice(len(self.train), p=self.chance)]
        length = self.config.audio_ticks
        return window_at(trial, int(rng.integers(min(length, trial.n_ticks) - 1, trial.n_ticks)), length)

    def epoch(self, epoch: int, rng: np.random.Generator, on_step: OnStep) -> dict[str, float]:
        c, losses = self.config, []
        self.modules.train()
        for i in range(self.steps):
            prediction, labels, valid = self._forward([self._draw(rng) for _ in range(c.audio_batch)])
            loss = affect_loss(prediction, labels, valid, c.reduction, c.mse)
            step = epoch * self.steps + i
            losses.append(descend(self.optimizer, loss, learning_rate(c.audio_lr, step, self.epochs * self.steps, c.warmup), c.clip))
            on_step(losses[-1])
        return {"loss": mean(losses), **self._validate()}

    def _forward(self, windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        samples = torch.from_numpy(np.stack([window.samples for window in windows]))
        labels = torch.from_numpy(np.stack([window.labels for window in windows]))
        valid = torch.from_numpy(np.stack([window.labels_valid & window.audio_mask for window in windows]))
        return self.head(self.model.audio(samples)), labels, valid

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """CCC of the head alone on stretches of the validation split (for diagnosis; nothing is chosen by it)."""
        self.modules.eval()
        guesses, truths = [], []
        for start in range(0, len(self.val_ends), 8):
            windows = [window_at(trial, newest, self.config.audio_ticks) for trial, newest in self.val_ends[start : start + 8]]
            prediction, labels, valid = self._forward(windows)
            guesses.append(prediction[valid].numpy())
            truths.append(labels[valid].numpy())
        if not sum(map(len, truths)):
            return {}
        return {f"val_{key}": value for key, value in affect_ccc(np.concatenate(guesses), np.concatenate(truths)).items()}

    def finish(self) -> None:
        self.modules.eval()

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass
