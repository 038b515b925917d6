"""Stage 1: the visual encoder on single faces, with a linear head per face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sage_edge.runtime.metrics import affect_ccc
from sage_edge.training import distributed, inputs
from sage_edge.training.config import TrainConfig
from sage_edge.training.data.corruption import faces_corrupted
from sage_edge.training.data.store import Trial
from sage_edge.training.loss import affect_loss
from sage_edge.training.model import SAGE
from sage_edge.training.presets import Preset

from . import Head, Stage, adamw

VALIDATION_FACES = 2048


def labelled_faces(trials: Sequence[Trial]) -> NDArray[np.int64]:
    """(trial, row of its faces, frame) of every frame with a face and a label: int64 [n, 3]."""
    rows = [np.zeros((0, 3), np.int64)]
    for i, trial in enumerate(trials):
        frames = np.flatnonzero((trial.frame_face >= 0) & trial.labels_valid)
        rows.append(np.stack([np.full(len(frames), i), trial.frame_face[frames], frames], axis=1).astype(np.int64))
    return np.concatenate(rows)


def gathered(trials: Sequence[Trial], picked: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Faces [n, h, w, 3] and labels [n, 2] of rows of `labelled_faces`."""
    return np.stack([trials[i].faces[row] for i, row, _ in picked]), np.stack([trials[i].labels[frame] for i, _, frame in picked])


def warped(x: torch.Tensor, p: Preset, rng: np.random.Generator, amount: float) -> torch.Tensor:
    """Random crop and flip as in `inputs.augmented`, and a random affine map: float32 [n, 3, 48, 48] -> [n, 3, 40, 40], bilinear."""
    n, ratio = len(x), p.input_size / p.face_size
    angle, stretch, shear = rng.normal(0.0, amount, (3, n))
    scale = np.exp(rng.normal(0.0, amount, n)) * ratio
    flip = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    theta = np.empty((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = cos * np.exp(stretch / 2) * flip, (shear * scale - sin)
    theta[:, 1, 0], theta[:, 1, 1] = sin * flip, cos * np.exp(-stretch / 2)
    theta[:, :, 2] = rng.uniform(-1.0, 1.0, (n, 2)) * (1.0 - ratio)
    grid = F.affine_grid(torch.from_numpy(theta), [n, 3, p.input_size, p.input_size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class VisualStage(Stage):
    """Trains `model.visual`; each epoch draws `visual_faces` faces, as many of each trial as it has."""

    name = "visual"

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.train, self.val, self.faces = train, val, labelled_faces(train)
        # several times faster in training on a CPU, and only so when the weights are laid out like the faces
        model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = Head(model.preset.visual_dim, config.corrupt > 0).to(next(model.parameters()).device)
        modules = nn.ModuleDict({"visual": model.visual, "head": self.head})
        steps = max(1, config.visual_faces // config.visual_batch) if len(self.faces) >= 2 else 0
        super().__init__(model, modules, adamw(modules, config.visual_lr, config), config.visual_epochs if steps else 0, steps, config)

    def start(self, folder: Path) -> None:
        picked = labelled_faces(self.val)
        self.val_faces = picked[:: max(1, len(picked) // VALIDATION_FACES)]

    def _augment(self, faces: NDArray[np.uint8], rng: np.random.Generator, step: int) -> torch.Tensor:
        p, c, share = self.model.preset, self.config, self._share(step)
        if c.visual_warp <= 0:
            return torch.from_numpy(inputs.augmented(faces, p, rng, share * c.visual_light))
        return warped(torch.from_numpy(inputs.lit(inputs.normalise(faces, p), rng, share * c.visual_light)), p, rng, share * c.visual_warp)

    def _share(self, step: int) -> float:
        """How much of the augmentation there is yet: from the first step on, some seeds never find the face's expression under it."""
        return min(1.0, step / max(1.0, self.config.visual_ramp * self.epochs * self.steps))

    def batch(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Faces as the model takes them, their labels, how bad each is."""
        faces, labels = gathered(self.train, self.faces[rng.integers(0, len(self.faces), self.config.visual_batch)])
        bad = np.zeros(len(faces), np.float32)
        if self.config.corrupt > 0:
            faces, bad = faces_corrupted(faces, self._share(step) * self.config.corrupt, rng)
        x = distributed.share(self._augment(faces, rng, step)).contiguous(memory_format=torch.channels_last)
        return (
            x.to(self.device),
            distributed.share(torch.from_numpy(labels)).to(self.device),
            distributed.share(torch.from_numpy(bad)).to(self.device),
        )

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        faces, labels, bad = batch
        seen = self.model.visual(faces)
        prediction, labels = distributed.gather(self.head(seen), labels)
        loss = affect_loss(prediction[None], labels[None], torch.ones(1, len(labels), device=self.device), "batch", self.config.mse)
        return loss + self.head.judged(seen, bad)

    def validate(self) -> dict[str, float]:
        """CCC of the head alone on single faces of the validation split (for diagnosis; nothing is chosen by it)."""
        if not len(self.val_faces):
            return {}
        guesses, truths = [], []
        for start in range(0, len(self.val_faces), 256):
            faces, labels = gathered(self.val, self.val_faces[start : start + 256])
            truths.append(labels)
            x = torch.from_numpy(inputs.central(faces, self.model.preset)).to(self.device)
            guesses.append(self.head(self.model.visual(x)).cpu().numpy())
        return {f"val_{key}": value for key, value in affect_ccc(np.concatenate(guesses), np.concatenate(truths)).items()}
