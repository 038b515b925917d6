"""The encoders whose weights are published: shapes, where they come from, where they are expected; and what a file's shapes say it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from sage_edge.runtime.errors import UsageError
from sage_edge.training import presets
from sage_edge.training.presets import Preset

from .layouts import RESNET, WAVLM
from .resnet import ResNet
from .wavlm import WavLM

FAMILIES = {RESNET: "ResNet", WAVLM: "WavLM"}
SHAPED = {
    RESNET: ("resnet_width", "resnet_blocks"),
    WAVLM: (
        *("wavlm_layers", "wavlm_dim", "wavlm_heads", "wavlm_ff", "wavlm_extractor", "wavlm_conv_dims", "wavlm_conv_kernels"),
        *("wavlm_pos_kernel", "wavlm_pos_groups", "wavlm_buckets"),
    ),
}
"""Preset fields that show in an encoder's shapes ..."""
UNSHAPED = {RESNET: (), WAVLM: ("wavlm_norm_first", "wavlm_normalize", "wavlm_conv_strides", "wavlm_max_distance")}
"""... and those that it depends on all the same."""


@dataclasses.dataclass(frozen=True)
class Published:
    """An encoder with published weights."""

    name: str
    family: str
    preset: str
    """A preset that has this encoder."""
    urls: tuple[str, ...]
    """The first one is what an error names."""
    licence: str

    @property
    def path(self) -> Path:
        """Where `weights import` puts it and training looks for it."""
        return folder() / f"{self.name}.safetensors"


_HUGGING_FACE, _PYTORCH = "https://huggingface.co/microsoft", "https://download.pytorch.org"
_WAVLM_LICENCE = (
    "MIT by the authors' repository (microsoft/unilm) and torchaudio; the Hugging Face page links to CC BY-SA 3.0: ask before redistributing"
)
PUBLISHED = (
    Published(
        "resnet50",
        RESNET,
        "base",
        (
            f"{_PYTORCH}/models/resnet50-0676ba61.pth",
            f"{_PYTORCH}/models/resnet50-11ad3fa6.pth",
            f"{_HUGGING_FACE}/resnet-50/resolve/main/model.safetensors",
        ),
        "BSD-3-Clause (torchvision), Apache-2.0 (Hugging Face); trained on ImageNet, whose own terms are for research",
    ),
    Published(
        "wavlm-base",
        WAVLM,
        "base",
        (f"{_HUGGING_FACE}/wavlm-base/resolve/main/pytorch_model.bin", f"{_PYTORCH}/torchaudio/models/wavlm_base.pth"),
        _WAVLM_LICENCE,
    ),
    Published(
        "wavlm-large",
        WAVLM,
        "large",
        (f"{_HUGGING_FACE}/wavlm-large/resolve/main/pytorch_model.bin", f"{_PYTORCH}/torchaudio/models/wavlm_large.pth"),
        _WAVLM_LICENCE,
    ),
)


def folder() -> Path:
    """$SAGE_EDGE_WEIGHTS, or ~/.cache/sage-edge/weights."""
    own = os.environ.get("SAGE_EDGE_WEIGHTS")
    return Path(own).expanduser() if own else Path.home() / ".cache" / "sage-edge" / "weights"


def of_preset(family: str, preset: Preset) -> Published | None:
    """The published encoder that `preset` has, if any."""
    return next((item for item in PUBLISHED if item.family == family and not differences(family, presets.get(item.preset), preset)), None)


def differences(family: str, one: Preset, other: Preset, *, shapes_only: bool = False) -> list[str]:
    """Preset fields in which the encoders of two presets differ, as "wavlm_dim=1024, not 768"."""
    fields = SHAPED[family] + (() if shapes_only else UNSHAPED[family])
    return [f"{key}={getattr(one, key)}, not {getattr(other, key)}" for key in fields if getattr(one, key) != getattr(other, key)]


@lru_cache(maxsize=8)
def shapes(family: str, preset: Preset) -> Mapping[str, torch.Size]:
    """Name -> shape of every tensor of that encoder, without making it."""
    with torch.device("meta"):
        module: nn.Module = ResNet(preset.resnet_width, preset.resnet_blocks) if family == RESNET else WavLM(preset)
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def describe(family: str, preset: Preset) -> str:
    """Its published name, or its sizes: "ResNet of 3, 4, 23, 3 blocks, width 64"."""
    if (item := of_preset(family, preset)) is not None:
        return item.name
    if family == RESNET:
        return f"ResNet of {', '.join(map(str, preset.resnet_blocks))} blocks, width {preset.resnet_width}"
    return f"WavLM of {preset.wavlm_layers} layers, width {preset.wavlm_dim}, {preset.wavlm_heads} heads"


def seen(family: str, tensors: Mapping[str, Tensor]) -> Preset | None:
    """A preset with the sizes that `tensors` (our names) show, base's where they show none; None when no such encoder can be."""
    try:
        preset = presets.get("base", _resnet_sizes(tensors) if family == RESNET else _wavlm_sizes(tensors))
        shapes(family, preset)
    except (UsageError, RuntimeError, ValueError, ArithmeticError):  # all but the first: sizes that no layer can have
        return None
    return preset


def _size(tensors: Mapping[str, Tensor], name: str, axis: int, default: int) -> int:
    shape = tensors[name].shape if name in tensors else ()
    return shape[axis] if axis < len(shape) else default


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow `prefix` in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})


def _resnet_sizes(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    return {
        "resnet_width": _size(tensors, "conv1.weight", 0, 64),
        "resnet_blocks": tuple(_count(tensors, f"layer{stage}.") for stage in range(1, 5)),
    }


def _wavlm_sizes(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    conv, position, first = "feature_extractor.conv_layers.", "encoder.pos_conv_embed.conv.parametrizations.weight.original1", "encoder.layers.0."
    dim, layers = _size(tensors, "encoder.layer_norm.weight", 0, 768), range(_count(tensors, conv))
    stacked = f"{conv}1.layer_norm.weight" in tensors
    sizes: dict[str, object] = {
        "wavlm_conv_dims": tuple(_size(tensors, f"{conv}{i}.conv.weight", 0, 512) for i in layers),
        "wavlm_conv_kernels": tuple(_size(tensors, f"{conv}{i}.conv.weight", 2, 1) for i in layers),
        "wavlm_extractor": "layer" if stacked else "group",
        "wavlm_norm_first": stacked,
        "wavlm_normalize": stacked,
        "wavlm_dim": dim,
        "wavlm_layers": _count(tensors, "encoder.layers."),
        "wavlm_heads": _size(tensors, f"{first}attention.gru_rel_pos_const", 1, 12),
        "wavlm_buckets": _size(tensors, f"{first}attention.rel_attn_embed.weight", 0, 320),
        "wavlm_ff": _size(tensors, f"{first}feed_forward.intermediate_dense.weight", 0, 3072),
        "wavlm_pos_kernel": _size(tensors, position, 2, 128),
        "wavlm_pos_groups": dim // max(1, _size(tensors, position, 1, 48)),
    }
    if len(layers) != 7:
        sizes["wavlm_conv_strides"] = (2,) * len(layers)
    return sizes
