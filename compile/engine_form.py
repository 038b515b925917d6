"""A folded SAGE in the form that engines take best: same weights, same function, fewer and plainer nodes in the exported graphs.

TensorRT computes a Conv1d as a Conv2d between an Unsqueeze and a Squeeze, the one of the weights between DequantizeLinear and Conv, where it
keeps the convolution from running in 8 bits. Here every stretch of 1-D convolutions (WavLM's extractor, its positional convolution, the TCNs) works
on [n, channels, 1, time] from end to end, with 1 x K kernels. Names stay those of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from sage_edge.training.encoders.wavlm import FeatureExtractor, PositionalConv
    from sage_edge.training.model import SAGE
    from sage_edge.training.tcn import TCN


def engine_form(model: SAGE) -> SAGE:
    """Change `model`, as `SAGE.folded` gives it, in place; returns it. It computes what it did, up to rounding."""
    wavlm = model.audio.wavlm
    wavlm.feature_extractor = _Extractor(wavlm.feature_extractor)  # type: ignore[assignment]
    wavlm.encoder.pos_conv_embed = _PositionalConv(wavlm.encoder.pos_conv_embed)  # type: ignore[assignment]
    model.fusion.tcn_visual = _TCN(model.fusion.tcn_visual)  # type: ignore[assignment]
    model.fusion.tcn_audio = _TCN(model.fusion.tcn_audio)  # type: ignore[assignment]
    return model.eval()


class _Extractor(nn.Module):
    """[n, S] -> [n, N, channels]."""

    def __init__(self, plain: FeatureExtractor) -> None:
        super().__init__()
        _widen(plain)
        self.conv_layers = plain.conv_layers
        for layer in self.conv_layers:
            if isinstance(layer.layer_norm if layer.norm else None, nn.GroupNorm):
                layer.layer_norm = _ChannelNorm(layer.layer_norm)  # type: ignore[arg-type]

    def forward(self, samples: Tensor) -> Tensor:
        x = samples.reshape(-1, 1, 1, samples.shape[1])
        for layer in self.conv_layers:
            x = layer(x)
        return x.squeeze(2).transpose(1, 2)


class _PositionalConv(nn.Module):
    """[n, N, dim] -> [n, N, dim]. An even kernel makes a last step that is dropped; here it has one more tap, of zeros, instead.

    That is for OpenVINO too, which computes bf16 convolutions of few channels per group and an even kernel wrongly (measured with 2026.4.1 on AMX:
    8 channels, 64 taps, -1 dB; 63 or 65 taps, 51 dB).
    """

    def __init__(self, plain: PositionalConv) -> None:
        super().__init__()
        plain.conv.weight = nn.Parameter(F.pad(plain.conv.weight.detach(), (0, plain.drop)))
        plain.conv.kernel_size = (plain.conv.kernel_size[0] + plain.drop,)
        _widen(plain)
        self.conv: nn.Module = plain.conv

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x.transpose(1, 2).unsqueeze(2))).squeeze(2).transpose(1, 2)


class _TCN(nn.Module):
    """[n, W, d] -> [n, W, channels]. A batch norm behind the last LeakyReLU has no convolution to go into: it is one product and one sum."""

    def __init__(self, plain: TCN) -> None:
        super().__init__()
        _widen(plain)
        self.levels = plain.levels
        self.norm = _Affine(plain.norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.levels(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2))
        return y


class _Affine(nn.Module):
    """A batch norm of the last axis with fixed statistics, folded in float64."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        self.weight = nn.Parameter(scale.float())
        self.bias = nn.Parameter((norm.bias.double() - norm.running_mean.double() * scale).float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class _ChannelNorm(nn.Module):
    """A group norm of one channel per group is an instance norm, which takes weight and bias into one node."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def _widen(parent: nn.Module) -> None:
    """Every Conv1d below `parent` becomes a Conv2d of kernel 1 x K."""
    for module in list(parent.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv1d):
                setattr(module, name, _conv2d(child))


def _conv2d(conv: nn.Conv1d) -> nn.Conv2d:
    kernel, stride, dilation = (1, conv.kernel_size[0]), (1, conv.stride[0]), (1, conv.dilation[0])
    wide = nn.Conv2d(
        conv.in_channels, conv.out_channels, kernel, stride, (0, int(conv.padding[0])), dilation, conv.groups, conv.bias is not None, device="meta"
    )
    wide.weight, wide.bias = nn.Parameter(conv.weight.detach().unsqueeze(2)), conv.bias
    return wide
