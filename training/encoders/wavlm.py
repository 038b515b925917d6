"""WavLM (arXiv 2110.13900): samples float32 [n, S], mono 16 kHz in [-1, 1] -> tokens [n, N, dim], 50 a second, the first centred at 12.5 ms.

Seven convolutions (receptive field 400 samples, hop 320), a positional convolution, and transformer layers whose attention adds a relative
position bias (a bucket table in layer 0, used by all) times a gate computed from each layer's input. Parameter names are those of Hugging Face's
`WavLMModel`, so its checkpoints load as they are; torchaudio's differ by prefixes and by one joint q, k, v projection.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sage_edge.training.presets import Preset


class ConvLayer(nn.Module):
    """Convolution without bias, a norm where there is one ("group": per channel over time, "layer": over channels), GELU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, norm: str | None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels, kernel, stride, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = norm
        if norm == "group":
            self.layer_norm: nn.Module = nn.GroupNorm(channels, channels)
        elif norm == "layer":
            self.layer_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm == "group":
            x = self.layer_norm(x)
        elif self.norm == "layer":
            x = self.layer_norm(x.transpose(1, -1)).transpose(1, -1)
        return F.gelu(x)


class FeatureExtractor(nn.Module):
    """[n, S] -> [n, N, dims[-1]]."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        layers, channels = [], 1
        for i, (dim, kernel, stride) in enumerate(zip(p.wavlm_conv_dims, p.wavlm_conv_kernels, p.wavlm_conv_strides, strict=True)):
            norm = "layer" if p.wavlm_extractor == "layer" else "group" if i == 0 else None
            layers.append(ConvLayer(channels, dim, kernel, stride, norm))
            channels = dim
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, samples: Tensor) -> Tensor:
        x = samples[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    def __init__(self, channels: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.projection(self.layer_norm(x)))
        return y


class PositionalConv(nn.Module):
    """A grouped convolution over time, weight-normalised per tap, as an additive position code; an even kernel drops the last step."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=2 * math.sqrt(1 / (kernel * dim)))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, dim=2)
        self.drop = 1 - kernel % 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))
        if self.drop:
            y = y[:, :, : -self.drop]
        return F.gelu(y).transpose(1, 2)


def position_buckets(length: int, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each relative position key - query in -(length-1) .. length-1, int64 [2 * length - 1].

    Half of the buckets for keys after the query; within a half, one per distance up to a quarter of them, then logarithmic up to `max_distance`.
    float32 like the original, because the rounding of the logarithm decides the bucket.
    """
    relative = torch.arange(-(length - 1), length)
    half = num_buckets // 2
    exact = half // 2
    distance = relative.abs()
    far = torch.log(distance.float().clamp(min=1) / exact) / math.log(max_distance / exact) * (half - exact)
    far = (exact + far).long().clamp(max=half - 1)
    return (relative > 0).long() * half + torch.where(distance < exact, distance, far)


def toeplitz(diagonals: Tensor, length: int) -> Tensor:
    """[h, 2 * length - 1] -> [h, length, length] with result[:, i, j] = diagonals[:, j - i + length - 1].

    Without an index matrix, so that an exported graph holds none: rows of period 2 * length, read 2 * length - 1 at a time, shift by one each.
    """
    heads = diagonals.shape[0]
    rows = F.pad(diagonals, (0, 1))[:, None].expand(heads, length, 2 * length).reshape(heads, 2 * length * length)
    rows = rows[:, : length * (2 * length - 1)].reshape(heads, length, 2 * length - 1)
    return rows[:, :, length - 1 :]


class Attention(nn.Module):
    """Self-attention with a gated relative position bias (arXiv 2110.13900, section 3.2)."""

    def __init__(self, p: Preset, first: bool) -> None:
        super().__init__()
        dim, self.heads = p.wavlm_dim, p.wavlm_heads
        self.head_dim = dim // self.heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(self.head_dim, 8)
        self.rel_attn_embed = nn.Embedding(p.wavlm_buckets, self.heads) if first else None
        if self.rel_attn_embed is not None:
            nn.init.normal_(self.rel_attn_embed.weight, std=0.02)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)  # [n, h, N, d]

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        gate = self.gru_rel_pos_linear(self._split(x))  # [n, h, N, 8], from the layer's input and not from the queries
        gate = torch.sigmoid(gate.view(*gate.shape[:3], 2, 4).sum(-1))
        gate = gate[..., :1] * (gate[..., 1:] * self.gru_rel_pos_const - 1.0) + 2.0
        query, key, value = self._split(self.q_proj(x) * self.head_dim**-0.5), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        weights = torch.softmax(query @ key.transpose(2, 3) + gate * bias, dim=-1)
        y: Tensor = self.out_proj((weights @ value).transpose(1, 2).reshape(x.shape))
        return y


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.intermediate_dense, self.output_dense = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.output_dense(F.gelu(self.intermediate_dense(x))))
        return y


class Layer(nn.Module):
    """Post-norm (base) or pre-norm (large) transformer layer."""

    def __init__(self, p: Preset, first: bool) -> None:
        super().__init__()
        self.attention = Attention(p, first)
        self.dropout = nn.Dropout(p.wavlm_dropout)
        self.layer_norm, self.final_layer_norm = nn.LayerNorm(p.wavlm_dim), nn.LayerNorm(p.wavlm_dim)
        self.feed_forward = FeedForward(p.wavlm_dim, p.wavlm_ff, p.wavlm_dropout)
        self.norm_first = p.wavlm_norm_first

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.attention(self.layer_norm(x), bias))
            x = x + self.feed_forward(self.final_layer_norm(x))
            return x
        x = self.layer_norm(x + self.dropout(self.attention(x, bias)))
        x = self.final_layer_norm(x + self.feed_forward(x))
        return x


class Encoder(nn.Module):
    """[n, N, dim] -> [n, N, dim]. `bias` is made once per call, [heads, N, N], from the table in layer 0."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(p.wavlm_dim, p.wavlm_pos_kernel, p.wavlm_pos_groups)
        self.layer_norm = nn.LayerNorm(p.wavlm_dim)
        self.dropout = nn.Dropout(p.wavlm_dropout)
        self.layers = nn.ModuleList(Layer(p, first=i == 0) for i in range(p.wavlm_layers))
        self.norm_first = p.wavlm_norm_first
        self.length, self.num_buckets, self.max_distance = p.tokens(), p.wavlm_buckets, p.wavlm_max_distance
        self.register_buffer("buckets", position_buckets(self.length, self.num_buckets, self.max_distance), persistent=False)
        self.buckets: Tensor

    def position_bias(self, length: int) -> Tensor:
        """[heads, length, length]."""
        if length <= self.length:
            buckets = self.buckets[self.length - length : self.length + length - 1]
        else:
            buckets = position_buckets(length, self.num_buckets, self.max_distance).to(self.buckets.device)
        table: nn.Embedding = self.layers[0].attention.rel_attn_embed  # type: ignore[union-attr,assignment]
        return toeplitz(table(buckets).t(), length)

    def states(self, x: Tensor) -> list[Tensor]:
        """What goes into the first layer, then what comes out of each (the last one normalised in a pre-norm model)."""
        x = x + self.pos_conv_embed(x)
        x = self.dropout(x if self.norm_first else self.layer_norm(x))
        bias, states = self.position_bias(x.shape[1]), [x]
        for layer in self.layers:
            x = layer(x, bias)
            states.append(x)
        if self.norm_first:
            states[-1] = self.layer_norm(x)
        return states

    def forward(self, x: Tensor) -> Tensor:
        return self.states(x)[-1]


class WavLM(nn.Module):
    """Samples [n, S] -> tokens [n, N, dim]."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(p)
        self.feature_projection = FeatureProjection(p.wavlm_conv_dims[-1], p.wavlm_dim, p.wavlm_dropout)
        self.encoder = Encoder(p)
        self.normalize = p.wavlm_normalize
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def prepared(self, samples: Tensor) -> Tensor:
        """Zero mean and unit variance per clip, where the model wants that. Below about -50 dBFS the small constant begins to show: this is the
        authors' and torchaudio's; Hugging Face's feature extractor has 1e-7."""
        if not self.normalize:
            return samples
        centred = samples - samples.mean(1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)

    def forward(self, samples: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(self.feature_projection(self.feature_extractor(self.prepared(samples))))
        return tokens
