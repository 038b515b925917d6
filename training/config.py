"""How a model is trained: one frozen dataclass, changed by `--set key=value`; sizes of the model itself are in `presets.py`.

An epoch is a fixed number of draws (faces, windows), so that the time it takes does not depend on the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_edge.runtime.errors import UsageError

from . import settings
from .presets import Preset

PUBLISHED = ("base", "paper", "large")
"""Presets whose encoders begin with published weights."""

_CHOICES = {"reduction": ("batch", "sequence", "both"), "precision": ("float32", "bf16"), "fold_by": ("source", "subject")}


@dataclass(frozen=True)
class TrainConfig:
    """Four stages: faces alone, sound alone, TCNs and fusion over features of the first two, which stay as they are, then all end to end.

    A stage with no epochs is left out. `recipe` has the values that each preset begins with.
    """

    seed: int = 0
    visual_weights: str = "auto"
    """What the visual encoder begins with: "none" (random), a weights file or a checkpoint folder, or "auto": the imported published weights for
    base, paper and large, none for others."""
    audio_weights: str = "auto"
    precision: str = "float32"
    """Or "bf16": the forward pass under autocast, the loss and the weights in float32."""
    folds: int = 0
    """Parts into which the train split is cut; 0: train on all of it, validate on the val split."""
    fold: int = 0
    """The part that validates, from 0."""
    fold_by: str = "source"
    """What is never divided: the "source" video (_left and _right together), or the "subject"."""
    ema: float = 0.0
    """Decay per step of the average of the weights that is validated and kept; 0: the weights themselves."""
    patience: int = 0
    """Epochs without a better validation CCC after which fusion or joint training ends; 0: never."""
    freeze_norms: bool = False
    """BatchNorm layers keep the statistics they have, as several processes need to agree with one."""
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Part of a stage's steps over which its learning rate rises; then it falls along a cosine."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    reduction: str = "batch"
    """CCC over the whole "batch", of each "sequence", or "both", half and half."""
    mse: float = 0.1
    """Share of the squared error beside 1 - CCC."""

    visual_epochs: int = 10
    visual_faces: int = 8192
    """Faces per epoch."""
    visual_batch: int = 128
    visual_lr: float = 1.5e-3
    visual_light: float = 0.25
    """Deviation of random brightness, see `inputs.augmented`."""
    visual_warp: float = 0.1
    """Deviation of random rotation (radians), scale and shear, each of the log or the angle; 0 for none."""
    visual_ramp: float = 0.3
    """Part of the stage over which brightness and warp grow from nothing to their deviations."""

    audio_epochs: int = 14
    audio_windows: int = 112
    """Stretches of sound per epoch."""
    audio_batch: int = 4
    audio_lr: float = 1e-3
    audio_ticks: int = 300
    """Length of a stretch; at most the preset's window."""

    fusion_epochs: int = 10
    fusion_windows: int = 192
    """Windows per epoch."""
    fusion_batch: int = 16
    fusion_lr: float = 1e-3
    fusion_stride: int = 50
    """Ticks between the windows of which sound features are kept."""
    fusion_restarts: float = 0.3
    """So many more windows with a masked prefix, as at the start of a session."""
    fusion_newest: float = 0.3
    """Weight of the newest ticks' own loss, against that of all ticks."""
    fusion_newest_ticks: int = 15
    drop_window: float = 0.3
    """Chance that a window loses one whole modality ..."""
    drop_stretch: float = 0.3
    """... and that it loses one modality for a stretch."""
    drop_features: float = 0.2
    """Chance that a window loses a feature of an encoder (the encoders know the training people too well)."""
    views: int = 1
    """Feature sets per trial: the first of centre crops and sound as they are; others flipped, cropped at random and corrupted."""
    corrupt: float = 0.0
    """How much of what the encoders and the other views see is corrupted, see `data/corruption.py`."""
    gate: float = 0.0
    """Weight of the loss that teaches the modality weights which sense is corrupted."""

    joint_epochs: int = 0
    joint_windows: int = 192
    """Windows per epoch."""
    joint_batch: int = 4
    joint_lr: float = 1e-4
    """Of TCNs, fusion and head ..."""
    joint_encoder_lr: float = 1e-5
    """... and of the encoders."""
    joint_stride: int = 200
    joint_release: int = 2
    """Epochs after which the next group of encoder layers is released, last layers first; 0: all from the start."""
    workers: int = 0
    """Processes that read windows of faces and sound; 0: the training process itself."""

    def check(self, preset: Preset) -> None:
        """Raises UsageError for values that make no sense."""
        for key, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{key}={value} is not a finite number; give one")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} is out of range; choose 0 to 2^63 - 1")
        for key in ("clip", "visual_lr", "audio_lr", "fusion_lr", "joint_lr", "joint_encoder_lr"):
            if getattr(self, key) <= 0:
                raise UsageError(f"{key}={getattr(self, key)} must be above 0")
        for key in (
            "visual_batch",
            "visual_faces",
            "audio_batch",
            "audio_windows",
            "fusion_batch",
            "fusion_windows",
            "fusion_stride",
            "fusion_newest_ticks",
            "views",
            "joint_batch",
            "joint_windows",
            "joint_stride",
        ):
            if getattr(self, key) < 1:
                raise UsageError(f"{key}={getattr(self, key)} must be at least 1")
        for key in (
            "visual_epochs",
            "audio_epochs",
            "fusion_epochs",
            "weight_decay",
            "mse",
            "visual_light",
            "visual_warp",
            "visual_ramp",
            "fusion_restarts",
            "joint_epochs",
            "joint_release",
            "patience",
            "gate",
            "workers",
        ):
            if getattr(self, key) < 0:
                raise UsageError(f"{key}={getattr(self, key)} must not be negative")
        for key in ("drop_window", "drop_stretch", "drop_features", "fusion_newest", "warmup", "corrupt"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise UsageError(f"{key}={getattr(self, key)} must be within 0 and 1")
        if not 0.0 <= self.ema < 1.0:
            raise UsageError(f"ema={self.ema} must be at least 0 and below 1")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise UsageError(f"{key}={getattr(self, key)!r} is unknown; one of {', '.join(allowed)}")
        if self.gate > 0 and not (self.corrupt > 0 and (self.views > 1 or self.fusion_epochs == 0)):
            raise UsageError(
                f"gate={self.gate} has nothing to teach with corrupt={self.corrupt} and views={self.views}; set corrupt=0.5 and views=4, or gate=0"
            )
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"folds={self.folds} cannot be; choose 2 or more, or 0 for none")
        if not 0 <= self.fold < max(self.folds, 1):
            raise UsageError(f"fold={self.fold} is not one of folds={self.folds}; choose 0 to {max(self.folds - 1, 0)}")
        if not 4 <= self.audio_ticks <= preset.window:
            raise UsageError(f"audio_ticks={self.audio_ticks} must be within 4 and the window of {preset.window}")


def recipe(preset: str) -> TrainConfig:
    """What a preset is trained with unless told otherwise: `tiny` from scratch in minutes; base, paper and large on published encoders that stay
    as they are, with windows of 300 every 200. All but `paper` see corruption, and are taught to weigh the senses by it."""
    if preset not in PUBLISHED:
        return TrainConfig(views=2, corrupt=0.3, gate=0.3)
    published = TrainConfig(
        weight_decay=0.01,
        visual_epochs=0,
        audio_epochs=0,
        fusion_epochs=40,
        fusion_windows=8192,
        fusion_batch=32,
        fusion_lr=1e-4,
        fusion_stride=200,
        ema=0.998,
        patience=8,
        reduction="both",
        views=4,
        corrupt=0.5,
        gate=0.3,
    )
    if preset == "paper":
        no_more = dict.fromkeys(("fusion_restarts", "fusion_newest", "drop_window", "drop_stretch", "drop_features", "corrupt", "gate", "mse"), 0.0)
        return settings.replace(published, {**no_more, "reduction": "batch"})
    return published


def split_settings(preset: Preset, config: TrainConfig, values: Mapping[str, Any]) -> tuple[Preset, TrainConfig]:
    """Apply `values` to whichever of the two has the key. Raises UsageError: unknown key (naming the nearest), wrong type or value."""
    # a preset's name says which sizes it began with; a checkpoint is refused or taken by it
    of_config, of_preset = settings.keys(config), [key for key in settings.keys(preset) if key != "name"]
    for key in values:
        if key not in of_config and key not in of_preset:
            raise settings.unknown(key, [*of_config, *of_preset])
    preset = preset.replace({key: value for key, value in values.items() if key in of_preset})
    config = settings.replace(config, {key: value for key, value in values.items() if key in of_config})
    config.check(preset)
    return preset, config
