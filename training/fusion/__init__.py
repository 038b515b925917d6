"""Fusions: modules that turn (V' [n, W, d_v], A' [n, W, d_a], visual_mask, audio_mask [n, W], V, A) into a `Fused`.

V' and A' are what the TCNs make of V and A, the encoders' own masked features, which a fusion may judge each sense by.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Fused(NamedTuple):
    """What a fusion returns."""

    z: Tensor
    """[n, W, fusion_dim]: refined features."""
    temporal: Tensor
    """[n, W]: reliability of each tick; mean 1 over the valid ticks (all of them 1 where the fusion has none), 0 elsewhere."""
    modality: Tensor | None
    """[n, W, 2]: weights of (visual, audio), sum 1; None where the fusion has none."""
