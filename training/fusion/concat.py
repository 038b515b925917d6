"""The baseline: concatenation and the same refinement transformer, without any reliability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sage_edge.training.presets import Preset

from . import Fused
from .refine import Refinement


class ConcatFusion(nn.Module):
    def __init__(self, p: Preset, visual_dim: int, audio_dim: int) -> None:
        super().__init__()
        self.refine = Refinement(p, visual_dim + audio_dim)

    def forward(self, visual: Tensor, audio: Tensor, visual_mask: Tensor, audio_mask: Tensor, seen: Tensor, heard: Tensor) -> Fused:
        valid = torch.maximum(visual_mask, audio_mask)
        joint = torch.cat((visual, audio), dim=2) * valid[..., None]
        return Fused(self.refine(joint, valid), valid, None)
