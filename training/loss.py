"""The training loss: 1 - CCC of valence and arousal, masked, with population moments (the metric's own, `runtime/metrics.py`).

    L = 0.5 (1 - CCC_valence) + 0.5 (1 - CCC_arousal)

Pooled over the batch, or per sequence and averaged. With fewer than four valid ticks CCC says nothing, and the mean squared error takes its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8
MIN_VALID = 4


def masked_ccc(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """CCC over dimension 1 of [n, T, k] with `valid` [n, T] (0 or 1, or weights >= 0): [n, k]. A constant truth gives 0, never NaN."""
    weight = (valid / valid.sum(1, keepdim=True).clamp(min=EPS))[..., None]
    mean_p, mean_t = (prediction * weight).sum(1, keepdim=True), (truth * weight).sum(1, keepdim=True)
    p, t = prediction - mean_p, truth - mean_t
    covariance = (p * t * weight).sum(1)
    spread = (p.square() * weight).sum(1) + (t.square() * weight).sum(1) + (mean_p - mean_t).squeeze(1).square()
    return 2.0 * covariance / (spread + EPS)


def affect_loss(prediction: Tensor, truth: Tensor, valid: Tensor, reduction: str = "batch", mse: float = 0.0) -> Tensor:
    """Loss of [n, W, 2] estimates against [n, W, 2] labels where `valid` [n, W] is on; a scalar, finite for any input.

    `reduction`: "batch" pools all sequences first (as the metric does), "sequence" takes each alone, "both" is the mean of these two losses.
    `mse` adds that much of the mean squared error. Sequences with no valid tick take no part; with none at all the loss is 0.
    """
    if prediction.dtype == torch.bfloat16:  # from autocast
        prediction = prediction.float()
    if reduction == "both":
        return 0.5 * sum((affect_loss(prediction, truth, valid, one, mse) for one in ("batch", "sequence")), prediction.new_zeros(()))
    valid = valid.to(prediction.dtype)
    if reduction == "batch":
        prediction, truth, valid = prediction.reshape(1, -1, 2), truth.reshape(1, -1, 2), valid.reshape(1, -1)
    elif reduction != "sequence":
        raise ValueError(f"reduction is 'batch', 'sequence' or 'both', not {reduction!r}")
    count = valid.sum(1)
    error = ((prediction - truth).square().mean(2) * valid).sum(1) / count.clamp(min=1.0)
    ccc = 1.0 - masked_ccc(prediction, truth, valid).mean(1)
    loss = torch.where(count >= MIN_VALID, ccc + mse * error, error)
    some = (count > 0).to(loss.dtype)
    return (loss * some).sum() / some.sum().clamp(min=1.0)
