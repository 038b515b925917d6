"""What the weights of the modalities are taught: to leave the sense that is spoiled.

Features do not say on their own which sense to trust; where training spoils one (`data/corruption.py`), it knows. The target of a tick is
softmax(SHARPNESS * (1 - bad)) over the two senses, and the loss the Kullback-Leibler divergence from it, over ticks that have both.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 4.0
"""A useless sense beside a clean one is given 2 %, a half useless one 12 %."""
EPS = 1e-6


def gate_loss(weights: Tensor, visual_bad: Tensor, audio_bad: Tensor, visual_mask: Tensor, audio_mask: Tensor) -> Tensor:
    """`weights` [n, W, 2] of (visual, audio), how bad each is [n, W] (0 to 1), masks [n, W]; a scalar, 0 where no tick has both senses."""
    both = visual_mask * audio_mask
    target = torch.softmax(-SHARPNESS * torch.stack((visual_bad, audio_bad), dim=2), dim=2)
    divergence = (target * (target.clamp(min=EPS).log() - weights.clamp(min=EPS).log())).sum(2)
    return (divergence * both).sum() / both.sum().clamp(min=1.0)
