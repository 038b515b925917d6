"""Stage 4: everything end to end on windows of raw faces and sound, the encoders released group by group, last layers first.

Of each window all faces are mirrored or not, and cropped at one place drawn at random; with chance `corrupt` stretches of either sense are spoiled,
as in the views of stage 3. A face that several ticks show is encoded once; ticks without one cost nothing. What is not released yet keeps its
weights and its BatchNorm statistics to the bit. Validation is `overlap` on centre crops, as `sage-edge evaluate` has it; where no epoch is better
than what the stage began with, that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sage_edge.training import distributed, features
from sage_edge.training.averaging import Average
from sage_edge.training.cache import Batch, End, cut
from sage_edge.training.config import TrainConfig
from sage_edge.training.data import protocols
from sage_edge.training.data.corruption import training_view
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import Window, window_at
from sage_edge.training.encoders.resnet import ResNet
from sage_edge.training.encoders.wavlm import WavLM
from sage_edge.training.loading import ahead
from sage_edge.training.model import SAGE
from sage_edge.training.prediction import BOTH, Predictor

from . import Stage, groups
from .fusion import kept, objective, training_ends, without_some

NS_PER_SAMPLE = 62_500
"""At 16 kHz."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One window as it is read: what the encoders take is still to be made of it."""

    faces: Tensor
    """uint8 [m, 48, 48, 3], each face that a tick shows once."""
    samples: Tensor
    """float32 [S]."""
    tick_sample: Tensor
    """int64 [W], see `Window`."""
    row: Tensor
    """int64 [W]: the row of `faces` that each tick shows, -1 for none."""
    ticks: Tensor
    """float32 [W, 7]: visual and audio mask, valence, arousal, whether they are valid, how bad face and sound are."""
    top: int
    left: int
    flip: bool
    native: bool

    def pin_memory(self) -> Clip:
        """The same in memory that a GPU can copy from by itself."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def to(self, device: torch.device) -> Clip:
        """The same on `device`."""
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("faces", "samples", "tick_sample", "row", "ticks")}


@dataclass(frozen=True)
class Draw:
    """All that is random about one window."""

    end: End
    seed: int
    """Of its flip, crop and corruption."""
    keep_visual: NDArray[np.float32]
    """[W] 0 where dropout takes the face away."""
    keep_audio: NDArray[np.float32]


def as_trial(window: Window, trial: Trial) -> Trial:
    """`window` of `trial` as a short native one: its ticks are frames, at the times of their samples."""
    shown, row = np.unique(window.tick_face[window.tick_face >= 0], return_index=True)
    frame_face = np.where(window.tick_face >= 0, np.searchsorted(shown, window.tick_face), -1).astype(np.int32)
    return replace(
        trial,
        frame_t_ns=window.tick_sample * NS_PER_SAMPLE,
        frame_face=frame_face,
        faces=window.faces[window.tick_face >= 0][row],
        labels=window.labels,
        labels_valid=window.labels_valid,
        audio=np.rint(window.samples * 32768.0).astype(np.int16),
        native=True,
    )


def read_clip(trial: Trial, draw: Draw, length: int, crop: int, corrupt: float) -> Clip:
    """The window of `draw`, spoiled with chance `corrupt`."""
    _, newest, masked = draw.end
    window = cut(window_at(trial, newest, length), masked)
    view = training_view(as_trial(window, trial), crop, draw.seed, 1, corrupt)
    samples = view.trial.samples(0, len(window.samples))
    heard = np.flatnonzero(window.audio_mask)
    edges = np.append(window.tick_sample, len(samples))
    samples[: edges[heard[0]] if len(heard) else None] = 0.0
    if len(heard):
        samples[edges[heard[-1] + 1] :] = 0.0
    masks = (window.visual_mask * draw.keep_visual, window.audio_mask * draw.keep_audio)
    ticks = np.column_stack((*masks, window.labels, window.labels_valid, view.visual_bad, view.audio_bad)).astype(np.float32)
    return Clip(
        torch.from_numpy(np.array(view.trial.faces)),
        torch.from_numpy(samples),
        torch.from_numpy(window.tick_sample),
        torch.from_numpy(view.trial.frame_face.astype(np.int64)),
        torch.from_numpy(ticks),
        view.top,
        view.left,
        view.flip,
        window.native,
    )


def encoder_groups(model: SAGE) -> tuple[list[list[nn.Module]], list[list[nn.Module]]]:
    """Modules of the visual and of the audio encoder in the order of their release: the stages of the ResNet, thirds of the transformer's layers."""
    resnet: ResNet = model.visual
    visual: list[list[nn.Module]] = [[resnet.layer4], [resnet.layer3], [resnet.layer2], [resnet.layer1, resnet.maxpool, resnet.bn1, resnet.conv1]]
    wavlm: WavLM = model.audio.wavlm
    encoder = wavlm.encoder
    thirds = [[encoder.layers[i] for i in part] for part in np.array_split(np.arange(len(encoder.layers)), 3) if len(part)][::-1]
    first: list[nn.Module] = [encoder.dropout, encoder.pos_conv_embed, wavlm.feature_projection, wavlm.feature_extractor]
    # the norm comes last in a pre-norm model, first in a post-norm one
    (thirds[0] if encoder.norm_first else first).append(encoder.layer_norm)
    return visual, [*thirds, first]


@contextmanager
def still_norms(module: nn.Module) -> Iterator[None]:
    """The module's BatchNorm layers use their running statistics and leave them as they are."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in norms:
        layer.eval()
    try:
        yield
    finally:
        for layer in norms:
            layer.train()


class JointStage(Stage):
    """Trains the whole model."""

    name, selects = "joint", True

    def __init__(self, model: SAGE, train: Sequence[Trial], val: Sequence[Trial], config: TrainConfig) -> None:
        self.train, self.val = train, val
        modules = nn.ModuleDict({"visual": model.visual, "audio": model.audio, "fusion": model.fusion})
        of_encoders = [*groups(model.visual, config.joint_encoder_lr, config), *groups(model.audio, config.joint_encoder_lr, config)]
        optimizer = torch.optim.AdamW([*groups(model.fusion, config.joint_lr, config), *of_encoders], lr=config.joint_lr)
        super().__init__(model, modules, optimizer, config.joint_epochs, max(1, config.joint_windows // config.joint_batch), config)
        self._batches: Iterator[list[Clip]] = iter(())

    def start(self, folder: Path) -> None:
        if self.best["weights"]:  # of a run that goes on
            return
        if self.average is not None:  # the stages before have changed what it began with
            self.average = Average(self.modules, self.config.ema)
        self.modules.eval()
        with torch.no_grad():
            score = distributed.agreed(self.validate() if distributed.main() else {})
        self.best = {"epoch": -1, "score": score, "weights": {name: tensor.cpu().clone() for name, tensor in self.modules.state_dict().items()}}

    def released(self, epoch: int) -> list[nn.Module]:
        """What of the encoders is trained in `epoch`."""
        every = self.config.joint_release
        return [module for order in encoder_groups(self.model) for group in order[: epoch // every + 1 if every else None] for module in group]

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        for encoder in (self.model.visual, self.model.audio):
            encoder.eval().requires_grad_(False)
        for module in self.released(epoch):
            module.train().requires_grad_(True)

    def finish(self) -> None:
        super().finish()
        self.modules.requires_grad_(True)

    def _draws(self, rng: np.random.Generator) -> list[list[Draw]]:
        """This process's windows of every batch of an epoch."""
        c, length = self.config, self.model.preset.window
        ends = training_ends(self.train, length, c.joint_stride, c.fusion_restarts, rng)
        plans = []
        for _ in range(self.steps):
            picked, seeds = rng.integers(0, len(ends), c.joint_batch), rng.integers(0, 2**63, c.joint_batch)
            plans.append(
                [Draw(ends[i], int(seed), *keep) for i, seed, *keep in zip(picked, seeds, *kept(c.joint_batch, length, c, rng), strict=True)]
            )
        return [distributed.share(plan) for plan in plans]

    def _read(self, draws: Sequence[Draw]) -> list[Clip]:
        p = self.model.preset
        return [read_clip(self.train[draw.end[0]], draw, p.window, p.input_size, self.config.corrupt) for draw in draws]

    def batch(self, step: int, rng: np.random.Generator) -> list[Clip]:
        if step % self.steps == 0:
            self._batches = ahead(self._read, self._draws(rng), self.config.workers, self.device)
        return [clip.to(self.device) for clip in next(self._batches)]

    def loss(self, batch: list[Clip]) -> Tensor:
        ticks = torch.stack([clip.ticks for clip in batch])
        visual_mask, audio_mask, *labels, valid, visual_bad, audio_bad = ticks.unbind(2)
        visual, audio = (without_some(x, self.config.drop_features) for x in (self._visual(batch), self._audio(batch)))
        windows = Batch(visual, audio, visual_mask, audio_mask, torch.stack(labels, 2), valid, visual_bad, audio_bad)
        return objective(self.model.fusion(visual, audio, visual_mask, audio_mask), windows, self.config)

    def _visual(self, batch: Sequence[Clip]) -> Tensor:
        """V [n, W, d_V], zeros where there is no face."""
        p = self.model.preset
        faces = torch.cat([features.pixels(clip.faces, p, clip.top, clip.left, clip.flip) for clip in batch])
        start = np.cumsum([0, *(len(clip.faces) for clip in batch)])
        if len(faces):
            rows = self.model.visual(faces)
        else:  # a face that nobody shows, so that every process has a gradient for every weight
            with still_norms(self.model.visual):
                rows = self.model.visual(faces.new_zeros(1, 3, p.input_size, p.input_size))
        none = rows[:1] * 0.0
        index = [torch.where(clip.row >= 0, clip.row + int(first), len(rows)) for clip, first in zip(batch, start, strict=False)]
        visual: Tensor = torch.cat((rows, none))[torch.stack(index)]
        return visual

    def _audio(self, batch: Sequence[Clip]) -> Tensor:
        """A [n, W, d_A]."""
        audio: Any = self.model.audio
        if not any(clip.native for clip in batch):
            at_ticks: Tensor = audio(torch.stack([clip.samples for clip in batch]))
            return at_ticks
        return torch.cat([audio(clip.samples[None], clip.tick_sample) for clip in batch])

    def validate(self) -> dict[str, float]:
        """Pooled CCC of the validation split under `overlap`; empty where there is none."""
        if not self.val:
            return {}
        predictor, guesses = Predictor({"": self.model}), {}
        for trial in self.val:
            guesses[trial.name] = predictor.tracks(trial, wanted=("overlap",))[""][BOTH]["overlap"].on_frames(trial)
        score = protocols.score(guesses, self.val)
        return {f"val_{key}": score[key] for key in ("valence", "arousal", "mean")}
