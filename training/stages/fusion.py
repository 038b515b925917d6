"""Stage 3: TCNs, fusion and head over cached features of the two encoders, which stay as they are.

Training windows end on a jittered grid, warm-up windows at the start of a clip included; some more are cut as if a session had begun in the
middle of a clip (everything before is zero and masked, and the sound features are those of such a window). Each window takes V and A from one of
the cached views each, drawn apart, so that a spoiled face meets clean sound and the other way round. Modality dropout then takes a whole
modality, or a stretch of it, away. Validation sees the clean view. The weights that are kept are those with the best pooled validation CCC
(`overlap`), or the last ones where the store has no validation split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sage_edge.training import distributed, features
from sage_edge.training.cache import Batch, End, FeatureCache, fill
from sage_edge.training.config import TrainConfig
from sage_edge.training.data import protocols
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import STRIDE, window_ends
from sage_edge.training.fusion.gate import gate_loss
from sage_edge.training.loading import ahead
from sage_edge.training.loss import affect_loss
from sage_edge.training.model import SAGE, FusionOutput
from sage_edge.training.run import FEATURES

from . import Stage, adamw


@dataclass(frozen=True, eq=False)
class Draw:
    """All that is random about a batch of the cache: this process's share."""

    picked: NDArray[np.int64]
    visual_view: NDArray[np.int64]
    audio_view: NDArray[np.int64]
    keep_visual: NDArray[np.float32]
    """[n, W] 0 where dropout takes the face away."""
    keep_audio: NDArray[np.float32]


def training_ends(trials: Sequence[Trial], length: int, stride: int, restarts: float, rng: np.random.Generator) -> list[End]:
    """(trial, newest tick, masked prefix): every `stride` ticks with jitter, from the first tick on, and `restarts` times as many cut ones."""
    ends: list[End] = []
    for i, trial in enumerate(trials):
        offset = int(rng.integers(0, stride))
        grid = [min(k + int(rng.integers(0, stride)), trial.n_ticks - 1) for k in range(offset, trial.n_ticks, stride)] or [trial.n_ticks - 1]
        ends += [(i, newest, 0) for newest in grid]
        for newest in rng.integers(0, trial.n_ticks, round(restarts * len(grid))):
            ends.append((i, int(newest), int(rng.integers(1, length))))
    return ends


def drop(visual_mask: NDArray[np.float32], audio_mask: NDArray[np.float32], config: TrainConfig, rng: np.random.Generator) -> None:
    """Modality dropout on masks [W] in place: a whole modality (never both), or one of them for a stretch of up to half the window."""
    both = (visual_mask, audio_mask)
    if rng.random() < config.drop_window:
        both[rng.integers(0, 2)][:] = 0.0
    elif rng.random() < config.drop_stretch:
        length = int(rng.integers(1, len(visual_mask) // 2 + 1))
        start = int(rng.integers(0, len(visual_mask) - length + 1))
        both[rng.integers(0, 2)][start : start + length] = 0.0


def kept(count: int, length: int, config: TrainConfig, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `drop` leaves of `count` windows' masks: (visual, audio), float32 [count, length] of 0 and 1."""
    visual, audio = np.ones((2, count, length), np.float32)
    for v, a in zip(visual, audio, strict=True):
        drop(v, a, config, rng)
    return visual, audio


def without_some(x: Tensor, chance: float) -> Tensor:
    """Features [n, W, d], each of a window's gone for all of its ticks with `chance`."""
    return nn.functional.dropout1d(x.transpose(1, 2), chance, True).transpose(1, 2)


def objective(output: FusionOutput, batch: Batch, config: TrainConfig) -> Tensor:
    """The loss of estimates of a whole batch, gathered from all processes."""
    estimates, labels, valid = distributed.gather(output.estimates, batch.labels, batch.valid)
    loss = affect_loss(estimates, labels, valid, config.reduction, config.mse)
    if config.fusion_newest > 0:
        newest = slice(-config.fusion_newest_ticks, None)
        own = affect_loss(estimates[:, newest], labels[:, newest], valid[:, newest], "batch", config.mse)
        loss = (1.0 - config.fusion_newest) * loss + config.fusion_newest * own
    if config.gate > 0 and output.modality is not None:
        weights = distributed.gather(output.modality.float(), batch.visual_bad, batch.audio_bad, batch.visual_mask, batch.audio_mask)
        loss = loss + config.gate * gate_loss(*weights)
    return loss


class FusionStage(Stage):
    """Trains `model.fusion`."""

    name, selects = "fusion", True

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.train, self.val = train, val
        modules = nn.ModuleDict({"fusion": model.fusion})
        steps = max(1, config.fusion_windows // config.fusion_batch)
        super().__init__(model, modules, adamw(modules, config.fusion_lr, config), config.fusion_epochs, steps, config)
        self._batches: Iterator[Batch] = iter(())

    def start(self, folder: Path) -> None:
        p, c = self.model.preset, self.config
        ends = training_ends(self.train, p.window, c.fusion_stride, c.fusion_restarts, np.random.default_rng([c.seed, 3, 0]))
        val = [(i, newest, 0) for i, trial in enumerate(self.val) for newest in window_ends(trial.n_ticks, p.window, min(STRIDE, p.window))]
        place, corpus = folder / FEATURES, self.corpus
        self.cache = FeatureCache(place / "train", self.model, self.train, ends, corpus=corpus, views=c.views, seed=c.seed, corrupt=c.corrupt)
        self.val_cache = FeatureCache(place / "val", self.model, self.val, val, corpus=corpus)
        fill({"train": self.cache, "val": self.val_cache}, place)

    def _draw(self, rng: np.random.Generator) -> Draw:
        c = self.config
        picked = rng.integers(0, len(self.cache.ends), c.fusion_batch)
        keep = kept(len(picked), self.model.preset.window, c, rng)
        views = rng.integers(0, c.views, (2, len(picked))) if c.views > 1 else np.zeros((2, len(picked)), np.int64)
        return Draw(*(distributed.share(each) for each in (picked, *views, *keep)))

    def _read(self, draw: Draw) -> Batch:
        batch = self.cache.batch(draw.picked, draw.visual_view, draw.audio_view)
        visual_mask, audio_mask = batch.visual_mask * torch.from_numpy(draw.keep_visual), batch.audio_mask * torch.from_numpy(draw.keep_audio)
        return replace(batch, visual_mask=visual_mask, audio_mask=audio_mask)

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        if step % self.steps == 0:
            self._batches = ahead(self._read, [self._draw(rng) for _ in range(self.steps)], self.config.workers, self.device)
        return next(self._batches).to(self.device)

    def loss(self, batch: Batch) -> Tensor:
        visual, audio = (without_some(x, self.config.drop_features) for x in (batch.visual, batch.audio))
        return objective(self.model.fusion(visual, audio, batch.visual_mask, batch.audio_mask), batch, self.config)

    def validate(self) -> dict[str, float]:
        """Pooled CCC of the validation split under `overlap`; empty where there is none."""
        if not self.val:
            return {}
        cache, rows = self.val_cache, {}
        for picked in features.batches(range(len(cache.ends)), features.WINDOWS_AT_ONCE.get(self.device.type, 8)):
            batch = cache.batch(picked).to(self.device)
            estimates = self.model.fusion(batch.visual, batch.audio, batch.visual_mask, batch.audio_mask).estimates.float().cpu().numpy()
            rows.update({cache.ends[i][:2]: estimate for i, estimate in zip(picked, estimates, strict=True)})
        length = self.model.preset.window
        guesses = {
            trial.name: protocols.overlap(trial, lambda newest, i=i: rows[i, newest], length, min(STRIDE, length))  # type: ignore[misc]
            for i, trial in enumerate(self.val)
        }
        score = protocols.score(guesses, self.val)
        return {f"val_{key}": score[key] for key in ("valence", "arousal", "mean")}
