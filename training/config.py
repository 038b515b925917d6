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


@dataclass(frozen=True)
class TrainConfig:
    """Three stages: faces alone, sound alone, then TCNs and fusion over features of the first two, which stay as they are."""

    seed: int = 0
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Part of a stage's steps over which its learning rate rises; then it falls along a cosine."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    reduction: str = "batch"
    """CCC over the whole "batch", or of each "sequence"."""
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

    def check(self, preset: Preset) -> None:
        """Raises UsageError for values that make no sense."""
        for key, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{key}={value} is not a finite number; give one")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} is out of range; choose 0 to 2^63 - 1")
        for key in ("clip", "visual_lr", "audio_lr", "fusion_lr"):
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
        ):
            if getattr(self, key) < 0:
                raise UsageError(f"{key}={getattr(self, key)} must not be negative")
        for key in ("drop_window", "drop_stretch", "drop_features", "fusion_newest", "warmup"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise UsageError(f"{key}={getattr(self, key)} must be within 0 and 1")
        if self.reduction not in ("batch", "sequence"):
            raise UsageError(f"reduction={self.reduction!r} is unknown; one of batch, sequence")
        if not 4 <= self.audio_ticks <= preset.window:
            raise UsageError(f"audio_ticks={self.audio_ticks} must be within 4 and the window of {preset.window}")


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
