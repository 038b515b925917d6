"""Reliability-guided fusion of SAGE (arXiv 2603.11468, equations 6 to 14), with one addition of ours.

    F = [V' ; A'],  s_t = w.f_t + b,  r = softmax(s) over the valid ticks,  f~_t = c r_t f_t,  Z = Transformer(F~)

c is 1 as printed (`rgf_scale="paper"`) or N, the number of valid ticks (`"length"`: a mean gain of 1, whatever the length).
`reliability="modality"` (ours): per tick also (a_v, a_a) = softmax of one logit per modality, and f_t = [2 a_v V'_t ; 2 a_a A'_t].
A tick is valid when either mask is on; logits under an off mask are -1e4; with no valid tick F~ is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sage_edge.training.presets import Preset

from . import Fused
from .refine import MASKED, Refinement


class SageFusion(nn.Module):
    def __init__(self, p: Preset, visual_dim: int, audio_dim: int) -> None:
        super().__init__()
        dim = visual_dim + audio_dim
        self.scale, self.reliability = p.rgf_scale, p.reliability
        self.temporal = nn.Linear(dim, 1)
        if p.reliability == "modality":
            self.modality = nn.Linear(dim, 2)
        self.refine = Refinement(p, dim)

    def forward(self, visual: Tensor, audio: Tensor, visual_mask: Tensor, audio_mask: Tensor) -> Fused:
        valid = torch.maximum(visual_mask, audio_mask)  # [n, W]
        count = valid.sum(1, keepdim=True)  # [n, 1]
        joint = torch.cat((visual, audio), dim=2)
        logits = self.temporal(joint).squeeze(2)
        r = torch.softmax(logits * valid + (1.0 - valid) * MASKED, dim=1) * valid
        temporal = count * r
        weights = None
        if self.reliability == "modality":
            masks = torch.stack((visual_mask, audio_mask), dim=2)
            weights = torch.softmax(self.modality(joint) * masks + (1.0 - masks) * MASKED, dim=2)
            joint = torch.cat((visual * (2.0 * weights[..., :1]), audio * (2.0 * weights[..., 1:])), dim=2)
        gain = temporal if self.scale == "length" else r
        return Fused(self.refine(joint * gain[..., None], valid), temporal, weights)
