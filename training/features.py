"""Features of the encoders, computed once: V per face of a trial, A per window. Everything is float32 and on the CPU when it comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import inputs
from .data.store import Trial
from .model import SAGE

FACES_AT_ONCE = 256


@torch.no_grad()
def encode_faces(model: SAGE, trial: Trial, on_batch: Callable[[int], None] = lambda _: None) -> Tensor:
    """V of every stored face of `trial`, centre crop: float32 [n, d_V]. `model` must be in eval mode."""
    device = next(model.parameters()).device
    rows = [torch.zeros(0, model.preset.visual_dim)]
    for start in range(0, len(trial.faces), FACES_AT_ONCE):
        faces = inputs.central(np.asarray(trial.faces[start : start + FACES_AT_ONCE]), model.preset)
        rows.append(model.visual(torch.from_numpy(faces).to(device)).cpu())
        on_batch(len(faces))
    return torch.cat(rows)


@torch.no_grad()
def encode_samples(model: SAGE, samples: Sequence[NDArray[np.float32]]) -> Tensor:
    """A of windows of S samples each: float32 [n, W, d_A]. `model` must be in eval mode."""
    device = next(model.parameters()).device
    rows: Tensor = model.audio(torch.from_numpy(np.stack(samples)).to(device)).cpu()
    return rows


def face_rows(features: Tensor, tick_face: NDArray[np.int32]) -> Tensor:
    """Rows of `features` [n, d] for `tick_face` [W]: [W, d], zeros where it is -1."""
    index = torch.from_numpy(np.maximum(tick_face, 0).astype(np.int64))
    on = torch.from_numpy((tick_face >= 0).astype(np.float32))[:, None]
    return features[index] * on if len(features) else torch.zeros(len(tick_face), features.shape[1])


def batches(items: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """`items` in runs of `size`, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))
