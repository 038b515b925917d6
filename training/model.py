"""SAGE: two encoders, a TCN each, a fusion, a frame-wise head. The three modules are cut where graphs are cut at run time.

    visual   faces float32 [n, 3, input_size, input_size], normalised RGB   -> V [n, d_V]      once per face
    audio    samples float32 [n, S], mono 16 kHz in [-1, 1]                  -> A [n, W, d_A]   once per window, interpolated to ticks
    fusion   V [n, W, d_V], A [n, W, d_A], masks float32 [n, W] of 0 and 1   -> FusionOutput

Shapes are static but for n; masks multiply V and A first, so what lies under an off mask never matters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sage_edge.runtime import ticks

from .encoders.resnet import ResNet
from .encoders.wavlm import WavLM
from .fusion.concat import ConcatFusion
from .fusion.sage import SageFusion
from .presets import Preset
from .tcn import TCN

FUSIONS = {"sage": SageFusion, "concat": ConcatFusion}


class FusionOutput(NamedTuple):
    """Estimates and the reliabilities behind them."""

    estimates: Tensor
    """[n, W, 2]: valence, arousal in [-1, 1]."""
    temporal: Tensor
    """[n, W]: reliability of each tick, mean 1 over the valid ticks."""
    modality: Tensor | None
    """[n, W, 2]: weights of (visual, audio), sum 1; None in a `temporal` model."""


def ticks_of(samples: int, rate_hz: int, sample_rate_hz: int) -> int:
    """Ticks of a stretch of `samples`, the inverse of `ticks.window_samples`, which rounds to the nearest sample."""
    return (2 * samples * rate_hz + sample_rate_hz) // (2 * sample_rate_hz)


def tokens_at(tokens: Tensor, tick_sample: Tensor) -> Tensor:
    """Tokens [n, N, d] interpolated linearly at offsets in samples, int64 [W] or [n, W]: [n, W, d]; outside of them the nearest one."""
    n, count, dim = tokens.shape
    offset = (tick_sample - ticks.TOKEN_FIELD // 2).clamp(0, (count - 1) * ticks.TOKEN_STRIDE).expand(n, -1)
    lower = (offset // ticks.TOKEN_STRIDE).clamp(max=max(count - 2, 0))
    weight = (offset - lower * ticks.TOKEN_STRIDE).to(tokens.dtype) / ticks.TOKEN_STRIDE
    below, above = (tokens.gather(1, row[..., None].expand(-1, -1, dim)) for row in (lower, (lower + 1).clamp(max=count - 1)))
    at_ticks: Tensor = below + (above - below) * weight[..., None]
    return at_ticks


class AudioEncoder(nn.Module):
    """WavLM, its tokens interpolated linearly to tick times: [n, S] -> [n, W, d_A]; shorter inputs give as many ticks as they hold.

    Ticks lie on the uniform grid, or where `tick_sample` int64 [W] or [n, W] says (first sample of each tick, from the start of `samples`).
    """

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.wavlm = WavLM(p)
        self.rate_hz, self.sample_rate_hz, self.tokens, self.window = p.rate_hz, p.sample_rate_hz, p.tokens(), p.window
        lower, upper_weight = ticks.token_weights(self.tokens, self.window, self.rate_hz, self.sample_rate_hz)
        self.register_buffer("lower", torch.from_numpy(lower), persistent=False)
        self.register_buffer("upper_weight", torch.from_numpy(upper_weight), persistent=False)
        self.lower: Tensor
        self.upper_weight: Tensor

    def forward(self, samples: Tensor, tick_sample: Tensor | None = None) -> Tensor:
        x = self.wavlm(samples)
        if tick_sample is not None:
            return tokens_at(x, tick_sample)
        lower, weight = self.lower, self.upper_weight
        if x.shape[1] != self.tokens:
            window = ticks_of(samples.shape[1], self.rate_hz, self.sample_rate_hz)
            lower, weight = (torch.from_numpy(a).to(x.device) for a in ticks.token_weights(x.shape[1], window, self.rate_hz, self.sample_rate_hz))
        below, above = x.index_select(1, lower), x.index_select(1, lower + 1)
        at_ticks: Tensor = below + (above - below) * weight[:, None]
        return at_ticks


class Fusion(nn.Module):
    """Masks, one TCN per modality, the fusion, and the head (Linear, GELU, Linear, tanh) of each tick."""

    def __init__(self, p: Preset) -> None:
        super().__init__()
        self.tcn_visual = TCN(p.visual_dim, p.tcn_visual, p.tcn_kernel, p.tcn_dropout)
        self.tcn_audio = TCN(p.audio_dim, p.tcn_audio, p.tcn_kernel, p.tcn_dropout)
        self.core = FUSIONS[p.fusion](p, self.tcn_visual.dim, self.tcn_audio.dim)
        self.hidden, self.out = nn.Linear(p.fusion_dim, p.head_dim), nn.Linear(p.head_dim, 2)
        self.dropout = nn.Dropout(p.fusion_dropout)

    def forward(self, visual: Tensor, audio: Tensor, visual_mask: Tensor, audio_mask: Tensor) -> FusionOutput:
        visual, audio = visual * visual_mask[..., None], audio * audio_mask[..., None]
        v, a = self.tcn_visual(visual), self.tcn_audio(audio)
        z, temporal, modality = self.core(v, a, visual_mask, audio_mask, visual, audio)
        return FusionOutput(torch.tanh(self.out(self.dropout(F.gelu(self.hidden(z))))), temporal, modality)


class SAGE(nn.Module):
    """The whole model of one preset; `visual`, `audio` and `fusion` can be used, exported and cached alone."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.visual = ResNet(preset.resnet_width, preset.resnet_blocks)
        self.audio = AudioEncoder(preset)
        self.fusion = Fusion(preset)

    def forward(self, faces: Tensor, samples: Tensor, visual_mask: Tensor, audio_mask: Tensor) -> FusionOutput:
        """faces float32 [n, W, 3, H, W'], samples float32 [n, S], masks float32 [n, W]."""
        visual = self.visual(faces.flatten(0, 1)).unflatten(0, faces.shape[:2])
        output: FusionOutput = self.fusion(visual, self.audio(samples), visual_mask, audio_mask)
        return output

    def folded(self) -> SAGE:
        """A copy in eval mode with every weight norm folded into a plain convolution (what is exported)."""
        # not a deepcopy: that shares the parametrized class, and folding the copy would break the original
        model = SAGE(self.preset).to(next(self.parameters()).device)
        model.load_state_dict(self.state_dict())
        for module in model.modules():
            if isinstance(module, nn.Conv1d) and parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        return model.eval()
