"""Stage 3: TCNs, fusion and head over cached features of the two encoders, which stay as they are.

Training windows end on a jittered grid, warm-up windows at the start of a clip included; some more are cut as if a session had begun in the
middle of a clip (everything before is zero and masked, and the sound features are those of such a window). Modality dropout then takes a whole
modality, or a stretch of it, away. The weights that are kept are those with the best pooled validation CCC (`overlap`), or the last ones
where the store has no validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sage_edge.runtime.progress import Progress
from sage_edge.training import distributed, features
from sage_edge.training.config import TrainConfig
from sage_edge.training.data import protocols
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import STRIDE, Window, window_at, window_ends
from sage_edge.training.loss import affect_loss
from sage_edge.training.model import SAGE

from . import Stage, adamw


class WindowCache:
    """Sound features, masks and labels of a set of windows; faces are kept per trial and looked up."""

    def __init__(self, model: SAGE, trials: Sequence[Trial], ends: Sequence[tuple[int, int, int]], label: str) -> None:
        """`ends`: (trial, newest tick, how many of the window's first ticks to mask)."""
        self.faces: list[Tensor] = []
        with Progress(f"faces of {label}", sum(len(trial.faces) for trial in trials), "faces") as bar:
            self.faces.extend(features.encode_faces(model, trial, bar.step) for trial in trials)
        self.ends = list(ends)
        n, p = len(ends), model.preset
        self.audio = torch.zeros(n, p.window, p.audio_dim)
        self.tick_face = np.full((n, p.window), -1, np.int32)
        self.audio_mask = np.zeros((n, p.window), np.bool_)
        self.labels = np.zeros((n, p.window, 2), np.float32)
        self.valid = np.zeros((n, p.window), np.bool_)
        with Progress(f"sound of {label}", n, "windows") as bar:
            for picked in features.batches(range(n), 8):
                windows = [cut(window_at(trials[ends[i][0]], ends[i][1], p.window), ends[i][2], p.sample_rate_hz / p.rate_hz) for i in picked]
                self.audio[list(picked)] = features.encode_samples(model, [window.samples for window in windows])
                for i, window in zip(picked, windows, strict=True):
                    self.tick_face[i], self.audio_mask[i] = window.tick_face, window.audio_mask
                    self.labels[i], self.valid[i] = window.labels, window.labels_valid
                bar.step(len(windows))

    def visual(self, i: int) -> Tensor:
        """[W, d_V], zeros where there is no face."""
        return features.face_rows(self.faces[self.ends[i][0]], self.tick_face[i])


def cut(window: Window, ticks: int, samples_per_tick: float) -> Window:
    """`window` as a session sees it that began `ticks` ticks after its first one: all before is masked and zero."""
    if ticks <= 0:
        return window
    window.samples[: round(ticks * samples_per_tick)] = 0.0
    for mask in (window.visual_mask, window.audio_mask, window.labels_valid):
        mask[:ticks] = False
    window.tick_face[:ticks] = -1
    return window


def training_ends(trials: Sequence[Trial], length: int, stride: int, restarts: float, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """(trial, newest tick, masked prefix): every `stride` ticks with jitter, from the first tick on, and `restarts` times as many cut ones."""
    ends: list[tuple[int, int, int]] = []
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


class FusionStage(Stage):
    """Trains `model.fusion`."""

    name, selects = "fusion", True

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.train, self.val = train, val
        modules = nn.ModuleDict({"fusion": model.fusion})
        steps = max(1, config.fusion_windows // config.fusion_batch)
        super().__init__(model, modules, adamw(modules, config.fusion_lr, config), config.fusion_epochs, steps, config)

    def start(self, folder: Path) -> None:
        p, c = self.model.preset, self.config
        self.model.eval()
        ends = training_ends(self.train, p.window, c.fusion_stride, c.fusion_restarts, np.random.default_rng([c.seed, 3, 0]))
        self.cache = WindowCache(self.model, self.train, ends, "train")
        val = [(i, newest, 0) for i, trial in enumerate(self.val) for newest in window_ends(trial.n_ticks, p.window, min(STRIDE, p.window))]
        self.val_cache = WindowCache(self.model, self.val, val, "val")

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """V, A, masks, labels and their validity of this process's windows."""
        c, cache = self.config, self.cache
        picked = rng.integers(0, len(cache.ends), c.fusion_batch)
        visual_mask = (cache.tick_face[picked] >= 0).astype(np.float32)
        audio_mask = cache.audio_mask[picked].astype(np.float32)
        for v, a in zip(visual_mask, audio_mask, strict=True):
            drop(v, a, c, rng)
        masks = [torch.from_numpy(distributed.share(mask)) for mask in (visual_mask, audio_mask)]
        picked = distributed.share(picked)
        visual = torch.stack([cache.visual(i) for i in picked])
        labels, valid = torch.from_numpy(cache.labels[picked]), torch.from_numpy(cache.valid[picked].astype(np.float32))
        return tuple(x.to(self.device) for x in (visual, cache.audio[picked], *masks, labels, valid))

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        c = self.config
        visual, audio, visual_mask, audio_mask, labels, valid = batch
        visual, audio = (nn.functional.dropout1d(x.transpose(1, 2), c.drop_features, True).transpose(1, 2) for x in (visual, audio))
        estimates, labels, valid = distributed.gather(self.model.fusion(visual, audio, visual_mask, audio_mask).estimates, labels, valid)
        loss = affect_loss(estimates, labels, valid, c.reduction, c.mse)
        if c.fusion_newest > 0:
            newest = slice(-c.fusion_newest_ticks, None)
            own = affect_loss(estimates[:, newest], labels[:, newest], valid[:, newest], "batch", c.mse)
            loss = (1.0 - c.fusion_newest) * loss + c.fusion_newest * own
        return loss

    def validate(self) -> dict[str, float]:
        """Pooled CCC of the validation split under `overlap`; empty where there is none."""
        if not self.val:
            return {}
        cache, rows = self.val_cache, {}
        for picked in features.batches(range(len(cache.ends)), 8):
            index = list(picked)
            visual = torch.stack([cache.visual(i) for i in index])
            masks = [torch.from_numpy(mask[index].astype(np.float32)) for mask in (cache.tick_face >= 0, cache.audio_mask)]
            estimates = self.model.fusion(*(x.to(self.device) for x in (visual, cache.audio[index], *masks))).estimates.cpu().numpy()
            rows.update({cache.ends[i][:2]: estimate for i, estimate in zip(index, estimates, strict=True)})
        length = self.model.preset.window
        guesses = {
            trial.name: protocols.overlap(trial, lambda newest, i=i: rows[i, newest], length, min(STRIDE, length))  # type: ignore[misc]
            for i, trial in enumerate(self.val)
        }
        score = protocols.score(guesses, self.val)
        return {f"val_{key}": score[key] for key in ("valence", "arousal", "mean")}
