"""Reliability-guided fusion of SAGE (arXiv 2603.11468, equations 6 to 14), with one addition of ours.

    F = [V' ; A'],  s_t = w.f_t + b,  r = softmax(s) over the valid ticks,  f~_t = c r_t f_t,  Z = Transformer(F~)

c is 1 as printed (`rgf_scale="paper"`) or N, the number of valid ticks (`"length"`: a mean gain of 1, whatever the length).
`reliability="modality"` (ours): per tick also (a_v, a_a) = softmax of one logit per modality, each from what that modality's own encoder gave,
so that it judges how well there is to see or hear, and its teaching (`gate.py`) does not disturb the TCNs. Then f_t is
[g_v V'_t ; g_a A'_t ; a_v - 1/2] with g = FLOOR + (1 - FLOOR) min(1, 2 a): a sense that is as good as the other is left as it is, one that is not
trusted is turned down, not off: what it still knows stays readable. `"modality-only"` has these weights and none over time.
A tick is valid when either mask is on; logits under an off mask are -1e4; with no valid tick F~ is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sage_edge.training.presets import Preset

from . import Fused
from .refine import MASKED, Refinement

FLOOR = 0.7
GATE_DIM = 32


class SageFusion(nn.Module):
    def __init__(self, p: Preset, visual_dim: int, audio_dim: int) -> None:
        super().__init__()
        dim = visual_dim + audio_dim
        self.scale, self.weighs = p.rgf_scale, p.reliability != "temporal"
        self.temporal = nn.Linear(dim, 1) if p.reliability != "modality-only" else None
        if self.weighs:
            self.modality = nn.ModuleDict({"visual": _gate(p.visual_dim), "audio": _gate(p.audio_dim)})
        self.refine = Refinement(p, dim + self.weighs)

    def forward(self, visual: Tensor, audio: Tensor, visual_mask: Tensor, audio_mask: Tensor, seen: Tensor, heard: Tensor) -> Fused:
        valid = torch.maximum(visual_mask, audio_mask)  # [n, W]
        joint = torch.cat((visual, audio), dim=2)
        temporal = gain = valid
        if self.temporal is not None:
            r = torch.softmax(self.temporal(joint).squeeze(2) * valid + (1.0 - valid) * MASKED, dim=1) * valid
            temporal = valid.sum(1, keepdim=True) * r
            gain = temporal if self.scale == "length" else r
        weights = None
        if self.weighs:
            masks = torch.stack((visual_mask, audio_mask), dim=2)
            logits = torch.cat((self.modality["visual"](seen), self.modality["audio"](heard)), dim=2)
            weights = torch.softmax(logits * masks + (1.0 - masks) * MASKED, dim=2)
            turned = FLOOR + (1.0 - FLOOR) * torch.clamp(2.0 * weights, max=1.0)
            joint = torch.cat((visual * turned[..., :1], audio * turned[..., 1:], weights[..., :1] - 0.5), dim=2)
        return Fused(self.refine(joint * gain[..., None], valid), temporal, weights)


def _gate(dim: int) -> nn.Sequential:
    """Features of one encoder -> the logit of its modality, tick by tick."""
    return nn.Sequential(nn.Linear(dim, GATE_DIM), nn.GELU(), nn.Linear(GATE_DIM, 1))
