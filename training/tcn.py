"""Causal temporal convolutions (arXiv 1803.01271): [n, W, d] -> [n, W, channels[-1]]; row t sees rows <= t only.

Level i has dilation 2^i and two weight-normalised convolutions; four levels with kernel 5 see 121 ticks (4 s at 30 Hz).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class CausalConv(nn.Module):
    """Conv1d that pads (kernel - 1) * dilation zeros on the left, none on the right."""

    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        conv = nn.Conv1d(channels_in, channels, kernel, dilation=dilation)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="leaky_relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv)
        self.left = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (self.left, 0)))
        return y


class Level(nn.Module):
    """Two causal convolutions with LeakyReLU around a residual."""

    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = CausalConv(channels_in, channels, kernel, dilation)
        self.conv2 = CausalConv(channels, channels, kernel, dilation)
        self.dropout = nn.Dropout(dropout)
        self.downsample = nn.Conv1d(channels_in, channels, 1) if channels_in != channels else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.leaky_relu(self.conv1(x)))
        y = self.dropout(F.leaky_relu(self.conv2(y)))
        return F.leaky_relu(y + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    """Levels, then BatchNorm1d."""

    def __init__(self, dim: int, channels: Sequence[int], kernel: int = 5, dropout: float = 0.1) -> None:
        super().__init__()
        levels = []
        for i, width in enumerate(channels):
            levels.append(Level(dim, width, kernel, 2**i, dropout))
            dim = width
        self.levels = nn.Sequential(*levels)
        self.norm = nn.BatchNorm1d(dim)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.levels(x.transpose(1, 2)))
        return y.transpose(1, 2)
