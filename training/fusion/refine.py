"""The temporal refinement transformer: pre-norm self-attention over the window, with a learned bias per distance. [n, W, d] -> [n, W, d].

Distances and no absolute positions: an input is then treated alike wherever it is in the sliding window.
Ticks where both masks are off are never attended to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_edge.training.encoders.wavlm import position_buckets, toeplitz
from sage_edge.training.presets import Preset

BUCKETS, MAX_DISTANCE = 64, 300
MASKED = -1e4
"""Additive logit of what is masked: finite, so that a row with nothing valid stays finite, and exactly 0 after a softmax with something valid."""


class RefinementLayer(nn.Module):
    def __init__(self, p: Preset) -> None:
        super().__init__()
        dim, self.heads = p.fusion_dim, p.fusion_heads
        self.head_dim = dim // self.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.linear1, self.linear2 = nn.Linear(dim, p.fusion_ff), nn.Linear(p.fusion_ff, dim)
        self.distance = nn.Embedding(BUCKETS, self.heads)
        nn.init.zeros_(self.distance.weight)
        self.dropout = nn.Dropout(p.fusion_dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, buckets: Tensor, keys_off: Tensor) -> Tensor:
        y = self.norm1(x)
        query, key, value = self._split(self.q_proj(y) * self.head_dim**-0.5), self._split(self.k_proj(y)), self._split(self.v_proj(y))
        logits = query @ key.transpose(2, 3) + toeplitz(self.distance(buckets).t(), x.shape[1]) + keys_off
        y = (torch.softmax(logits, dim=-1) @ value).transpose(1, 2).reshape(x.shape)
        x = x + self.dropout(self.out_proj(y))
        x = x + self.dropout(self.linear2(F.gelu(self.linear1(self.norm2(x)))))
        return x


class Refinement(nn.Module):
    """Linear to the model width, layers, a last LayerNorm.

    A LayerNorm is blind to the scale of its input, and that scale is the reliability. The bias of the linear in front is what keeps it:
    LN(r W f + b) goes from b's direction to W f's as r grows.
    """

    def __init__(self, p: Preset, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, p.fusion_dim)
        self.layers = nn.ModuleList(RefinementLayer(p) for _ in range(p.fusion_layers))
        self.norm = nn.LayerNorm(p.fusion_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.project.bias, std=0.5)
        self.window = p.window
        self.register_buffer("buckets", position_buckets(p.window, BUCKETS, MAX_DISTANCE), persistent=False)
        self.buckets: Tensor

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`valid` float32 [n, W], 0 or 1; at most preset.window ticks."""
        length = x.shape[1]
        buckets = self.buckets[self.window - length : self.window + length - 1]
        keys_off = ((1.0 - valid) * MASKED)[:, None, None, :]
        x = self.project(x)
        for layer in self.layers:
            x = layer(x, buckets, keys_off)
        x = self.norm(x)
        return x
