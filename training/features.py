"""Features of the encoders: V per face of a trial, A per window. Everything is float32 and on the CPU when it comes back.

Faces travel to the device as they are stored, uint8, and are cropped, mirrored and normalised there (`pixels`; `inputs` is the same in NumPy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import inputs
from .data.store import Trial
from .data.windows import Window
from .model import SAGE
from .presets import Preset

FACES_AT_ONCE = {"cpu": 256, "cuda": 4096}
WINDOWS_AT_ONCE = {"cpu": 8, "cuda": 32}


def device_of(model: SAGE) -> torch.device:
    """Where the model's weights lie."""
    return next(model.parameters()).device


def pixels(faces: Tensor, preset: Preset, top: int, left: int, flip: bool = False) -> Tensor:
    """uint8 RGB [n, h, w, 3] -> float32 [n, 3, input_size, input_size] on the same device: the crop at (top, left), then mirrored if `flip`."""
    size, std = preset.input_size, np.asarray(preset.std, np.float32)
    scale = torch.from_numpy(1.0 / (255.0 * std)).to(faces.device)
    shift = torch.from_numpy(np.asarray(preset.mean, np.float32) / std).to(faces.device)
    x = (faces[:, top : top + size, left : left + size].float() * scale - shift).permute(0, 3, 1, 2)
    return (x.flip(3) if flip else x).contiguous()


@torch.no_grad()
def face_batches(model: SAGE, faces: NDArray[np.uint8], top: int, left: int, flip: bool = False) -> Iterator[Tensor]:
    """V of `faces` [n, h, w, 3] in order, a batch at a time: float32 [.., d_V]. `model` must be in eval mode."""
    device = device_of(model)
    for start in range(0, len(faces), at_once := FACES_AT_ONCE.get(device.type, 256)):
        batch = torch.from_numpy(np.array(faces[start : start + at_once]))
        yield model.visual(pixels(batch.to(device), model.preset, top, left, flip)).float().cpu()


def encode_faces(model: SAGE, trial: Trial, on_batch: Callable[[int], None] = lambda _: None) -> Tensor:
    """V of every stored face of `trial`, centre crop: float32 [n, d_V]. `model` must be in eval mode."""
    low = inputs.centre(model.preset)
    rows = [torch.zeros(0, model.preset.visual_dim)]
    for batch in face_batches(model, trial.faces, low, low):
        rows.append(batch)
        on_batch(len(batch))
    return torch.cat(rows)


@torch.no_grad()
def encode_samples(model: SAGE, samples: Sequence[NDArray[np.float32]]) -> Tensor:
    """A of windows of S samples each: float32 [n, W, d_A]. `model` must be in eval mode."""
    rows: Tensor = model.audio(torch.from_numpy(np.stack(samples)).to(device_of(model))).float().cpu()
    return rows


@torch.no_grad()
def encode_windows(model: SAGE, windows: Sequence[Window]) -> Tensor:
    """A of `windows`: float32 [n, W, d_A], zeros where no window has sound. Those of native trials differ in length and are encoded one by one.

    `model` must be in eval mode.
    """
    if not any(window.audio_mask.any() for window in windows):
        return torch.zeros(len(windows), model.preset.window, model.preset.audio_dim)
    if not any(window.native for window in windows):
        return encode_samples(model, [window.samples for window in windows])
    device = device_of(model)
    rows = [model.audio(*(torch.from_numpy(a).to(device) for a in (window.samples[None], window.tick_sample))) for window in windows]
    return torch.cat(rows).float().cpu()


def face_rows(features: Tensor, tick_face: NDArray[np.int32]) -> Tensor:
    """Rows of `features` [n, d] for `tick_face` [W]: [W, d], zeros where it is -1."""
    index = torch.from_numpy(np.maximum(tick_face, 0).astype(np.int64))
    on = torch.from_numpy((tick_face >= 0).astype(np.float32))[:, None]
    return features[index] * on if len(features) else torch.zeros(len(tick_face), features.shape[1])


def batches(items: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """`items` in runs of `size`, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))
