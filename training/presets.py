"""Named sizes of SAGE: frozen dataclasses that fix every shape of the model. No torch here.

    presets.get("tiny")                         # trains in minutes on two CPU cores; the modules of `base`, narrower
    presets.get("base", {"fusion_layers": "4"})

`base` is ResNet-50 + WavLM-base; `paper` is `base` as printed in arXiv 2603.11468 (bare softmax over time, one reliability per tick);
`large` has WavLM-large. What the paper leaves open (TCN, transformer, head) follows the same lab's earlier code, see each field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import UsageError

from . import settings

MIN_WINDOW = 4
"""Ticks: so many hold enough sound for the convolutions of WavLM."""


@dataclass(frozen=True)
class Preset:
    """Every shape of one model. Lengths are in ticks, pixels or channels, as named."""

    name: str
    face_size: int = 48
    """Stored crops are face_size x face_size pixels ..."""
    input_size: int = 40
    """... of which the model sees the inner (training: a random) input_size x input_size."""
    window: int = 300
    rate_hz: int = 30
    sample_rate_hz: int = 16_000
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of RGB values in 0..1 (ImageNet's, which published ResNet weights expect)."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    resnet_width: int = 64
    """Channels after the stem; the stages have 1, 2, 4 and 8 times as many, times 4 at their ends."""
    resnet_blocks: tuple[int, ...] = (3, 4, 6, 3)

    wavlm_conv_dims: tuple[int, ...] = (512,) * 7
    wavlm_conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    wavlm_conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    wavlm_extractor: str = "group"
    """"group": GroupNorm in the first convolution only (base); "layer": LayerNorm in each (large)."""
    wavlm_dim: int = 768
    wavlm_layers: int = 12
    wavlm_heads: int = 12
    wavlm_ff: int = 3072
    wavlm_pos_kernel: int = 128
    wavlm_pos_groups: int = 16
    wavlm_buckets: int = 320
    wavlm_max_distance: int = 800
    wavlm_norm_first: bool = False
    wavlm_normalize: bool = False
    """Whether samples are brought to zero mean and unit variance per window first (large)."""

    tcn_visual: tuple[int, ...] = (512, 512, 256, 256)
    """Channels per level; level i has dilation 2^i."""
    tcn_audio: tuple[int, ...] = (256, 256, 128, 128)
    tcn_kernel: int = 5

    fusion: str = "sage"
    rgf_scale: str = "length"
    """"length": N * softmax over the N valid ticks (mean 1); "paper": the softmax as printed."""
    reliability: str = "modality"
    """"temporal": one weight per tick (the paper's); "modality": also one per modality and tick (ours); "modality-only": these alone."""
    fusion_dim: int = 384
    fusion_layers: int = 4
    fusion_heads: int = 6
    fusion_ff: int = 1536
    head_dim: int = 256

    wavlm_dropout: float = 0.1
    tcn_dropout: float = 0.1
    fusion_dropout: float = 0.1

    @property
    def visual_dim(self) -> int:
        """d_V: features per face."""
        return self.resnet_width * 32

    @property
    def audio_dim(self) -> int:
        """d_A: features per tick of sound."""
        return self.wavlm_dim

    @property
    def samples(self) -> int:
        """S: audio samples per window."""
        return ticks.window_samples(self.window, self.rate_hz, self.sample_rate_hz)

    def tokens(self, samples: int | None = None) -> int:
        """Audio tokens that the convolutions make of `samples` (default: of a window)."""
        n = self.samples if samples is None else samples
        for kernel, stride in zip(self.wavlm_conv_kernels, self.wavlm_conv_strides, strict=True):
            n = (n - kernel) // stride + 1
        return n

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()}

    def replace(self, values: Mapping[str, Any]) -> Preset:
        """A copy with some fields changed (texts are parsed). Raises UsageError: unknown key, wrong type, sizes that do not fit together."""
        changed = settings.replace(self, values)
        _check(changed)
        return changed


def _check(p: Preset) -> None:
    for field in dataclasses.fields(p):
        value = getattr(p, field.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers:
            raise UsageError(f"{field.name} is empty; give at least one number")
        if any(type(number) is int and number < 1 for number in numbers):
            raise UsageError(f"{field.name}={shown} must be at least 1")
        if any(type(number) is float and not math.isfinite(number) for number in numbers):
            raise UsageError(f"{field.name}={shown} is not finite; give a number")
    for key in ("wavlm_dropout", "tcn_dropout", "fusion_dropout"):
        if not 0.0 <= getattr(p, key) < 1.0:
            raise UsageError(f"{key}={getattr(p, key)} must be at least 0 and below 1")
    if len(p.mean) != 3 or len(p.std) != 3 or min(p.std) <= 0:
        raise UsageError(f"mean={p.mean} and std={p.std} must have 3 numbers each (red, green, blue), those of std above 0")
    if p.window < MIN_WINDOW:
        raise UsageError(f"window={p.window} is too short; give at least {MIN_WINDOW} ticks")
    choices = {
        "wavlm_extractor": ("group", "layer"),
        "fusion": ("sage", "concat"),
        "rgf_scale": ("length", "paper"),
        "reliability": ("modality", "temporal", "modality-only"),
    }
    for key, allowed in choices.items():
        if getattr(p, key) not in allowed:
            raise UsageError(f"{key}={getattr(p, key)!r} is unknown; one of {', '.join(allowed)}")
    if not len(p.wavlm_conv_dims) == len(p.wavlm_conv_kernels) == len(p.wavlm_conv_strides):
        raise UsageError(
            f"wavlm_conv_dims, _kernels and _strides have {len(p.wavlm_conv_dims)}, {len(p.wavlm_conv_kernels)} and "
            f"{len(p.wavlm_conv_strides)} entries; give each the same number"
        )
    for whole, part in (("wavlm_dim", "wavlm_heads"), ("wavlm_dim", "wavlm_pos_groups"), ("fusion_dim", "fusion_heads")):
        if getattr(p, whole) % getattr(p, part):
            raise UsageError(f"{whole}={getattr(p, whole)} is not a multiple of {part}={getattr(p, part)}; change one of them")
    if len(p.resnet_blocks) != 4:
        raise UsageError(f"resnet_blocks has {len(p.resnet_blocks)} entries; a ResNet has 4 stages")
    if not 0 < p.input_size <= p.face_size:
        raise UsageError(f"input_size={p.input_size} does not fit in face_size={p.face_size}")


_BASE = Preset("base")
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "tiny",
            resnet_width=16,
            resnet_blocks=(1, 1, 1, 1),
            wavlm_conv_dims=(32, 32, 32, 48, 64, 64, 64),
            wavlm_dim=128,
            wavlm_layers=2,
            wavlm_heads=2,
            wavlm_ff=512,
            wavlm_pos_kernel=64,
            wavlm_pos_groups=16,
            tcn_visual=(64, 64, 64, 64),
            tcn_audio=(64, 64, 64, 64),
            fusion_dim=128,
            fusion_layers=2,
            fusion_heads=2,
            fusion_ff=512,
            head_dim=64,
        ),
        _BASE,
        dataclasses.replace(_BASE, name="paper", rgf_scale="paper", reliability="temporal"),
        dataclasses.replace(
            _BASE,
            name="large",
            wavlm_extractor="layer",
            wavlm_dim=1024,
            wavlm_layers=24,
            wavlm_heads=16,
            wavlm_ff=4096,
            wavlm_norm_first=True,
            wavlm_normalize=True,
        ),
    )
}


def get(name: str, values: Mapping[str, Any] | None = None) -> Preset:
    """The preset called `name`, with some fields changed. Raises UsageError naming the nearest preset or key."""
    if name not in PRESETS:
        raise settings.unknown(name, PRESETS, "preset")
    return PRESETS[name].replace(values or {})


def from_dict(fields: Mapping[str, Any]) -> Preset:
    """The inverse of `Preset.to_dict`; every field must be there. Raises UsageError."""
    missing = set(settings.keys(_BASE)) - set(fields)
    if missing:
        raise UsageError(f"preset lacks {', '.join(sorted(missing))}")
    return _BASE.replace(fields)
