"""What models estimate over a trial, under both protocols; models with the same encoders share the encoders' work.

    tracks = Predictor({"a": model_a, "b": model_b}).tracks(trial)      # {"a": {(True, True): {"overlap": Track, "live": Track}}, "b": ...}

`overlap`: windows of W ticks every 200, averaged. `live`: the newest tick of a window every `hop` ticks, held until the next one.
One trial's features at a time are in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import CheckpointError, UsageError

from . import features
from .data import protocols
from .data.store import Trial
from .data.windows import STRIDE, Window, window_at, window_ends
from .model import SAGE, FusionOutput

HOP = 15
PROTOCOLS = ("overlap", "live")
BOTH = (True, True)
"""(visual, audio): which masks may be on."""

_AFTER_ENCODERS = ("name", "tcn_", "fusion", "rgf_", "reliability", "head_")
"""Fields of a preset that begin so shape what comes after the encoders."""


@dataclass(frozen=True, eq=False)
class Track:
    """Estimates of one trial under one protocol, before frames take them."""

    protocol: str
    t_ns: NDArray[np.int64]
    """[n] ascending: the frames' times in `overlap`, the hops' in `live`."""
    values: NDArray[np.float32]
    """[n, 2] valence, arousal."""

    def on_frames(self, trial: Trial) -> NDArray[np.float32]:
        """float32 [F, 2]."""
        return protocols.hold(trial, self.t_ns, self.values) if self.protocol == "live" else self.values


Tracks = dict[tuple[bool, bool], dict[str, Track]]
"""(visual, audio) -> protocol -> track."""


@dataclass(frozen=True, eq=False)
class FusionInput:
    """What a fusion sees of n windows, on the CPU."""

    visual: Tensor
    """[n, W, d_V]."""
    audio: Tensor
    """[n, W, d_A]."""
    visual_mask: Tensor
    """float32 [n, W]."""
    audio_mask: Tensor

    @classmethod
    def of(cls, windows: Sequence[Window], faces: Tensor, audio: Tensor) -> FusionInput:
        """`faces` is `features.encode_faces` of their trial, `audio` [n, W, d_A] of these windows."""
        visual = torch.stack([features.face_rows(faces, window.tick_face) for window in windows])
        masks = (np.stack([getattr(window, name) for window in windows]).astype(np.float32) for name in ("visual_mask", "audio_mask"))
        return cls(visual, audio, *map(torch.from_numpy, masks))


def live_ends(n_ticks: int, hop: int = HOP) -> list[int]:
    """The newest ticks of a live session's hops: hop - 1, 2 hop - 1, ... and what is left at the end."""
    ends = list(range(hop - 1, n_ticks, hop))
    return ends if ends and ends[-1] == n_ticks - 1 else [*ends, n_ticks - 1]


def overlap_ends(model: SAGE, trial: Trial) -> list[int]:
    """The newest ticks of the windows of `overlap`."""
    return window_ends(trial.n_ticks, model.preset.window, min(STRIDE, model.preset.window))


def window_batches(model: SAGE, ends: Sequence[int]) -> Iterable[Sequence[int]]:
    """`ends` in runs of as many windows as the model's device takes at once."""
    return features.batches(ends, features.WINDOWS_AT_ONCE.get(features.device_of(model).type, 8))


@torch.no_grad()
def fuse(model: SAGE, batch: FusionInput, masks: tuple[bool, bool] = BOTH) -> FusionOutput:
    """Output of `model.fusion` on the CPU; a mask that may not be on is off. Raises CheckpointError for an estimate that is not finite."""
    device = features.device_of(model)
    # floats in place of the masks that are off keep the batch as it is
    inputs = (batch.visual, batch.audio, batch.visual_mask * masks[0], batch.audio_mask * masks[1])
    output = model.fusion(*(x.to(device) for x in inputs))
    if not torch.isfinite(output.estimates).all():
        raise CheckpointError("the model's estimates are not finite: its weights are damaged or its training diverged; train again")
    return FusionOutput(output.estimates.cpu(), output.temporal.cpu(), None if output.modality is None else output.modality.cpu())


def check_fits(model: SAGE, trial: Trial) -> None:
    """Raises UsageError when the trial's ticks or faces are not the model's."""
    p = model.preset
    if not trial.native and trial.rate_hz != p.rate_hz:
        raise UsageError(f"{trial.name} has {trial.rate_hz} ticks a second, the model {p.rate_hz}; prepare the corpus again at the model's rate")
    if len(trial.faces) and trial.faces.shape[1] != p.face_size:
        raise UsageError(
            f"{trial.name} has faces of {trial.faces.shape[1]} pixels, the model takes {p.face_size}; evaluate it on a store like its own"
        )


def by_encoders(models: Mapping[str, SAGE]) -> list[list[str]]:
    """The labels of `models` in groups whose encoders are equal, weight by weight."""
    groups: dict[str, list[str]] = {}
    for label, model in models.items():
        groups.setdefault(_fingerprint(model) if len(models) > 1 else label, []).append(label)
    return list(groups.values())


def _fingerprint(model: SAGE) -> str:
    preset = {key: value for key, value in model.preset.to_dict().items() if not key.startswith(_AFTER_ENCODERS)}
    digest = hashlib.sha256(json.dumps(preset, sort_keys=True).encode())
    for encoder in (model.visual, model.audio):
        for name, tensor in encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Predictor:
    """Models that look at the same trials; they must be in eval mode."""

    def __init__(self, models: Mapping[str, SAGE]) -> None:
        self.models, self.groups = dict(models), by_encoders(models)

    @torch.no_grad()
    def tracks(
        self, trial: Trial, variants: Sequence[tuple[bool, bool]] = (BOTH,), wanted: Sequence[str] = PROTOCOLS, hop: int = HOP
    ) -> dict[str, Tracks]:
        """{label: {(visual, audio): {protocol: Track}}}. Raises UsageError when the trial's ticks or faces are not those of a model."""
        found: dict[str, Tracks] = {}
        for group in self.groups:
            found |= _tracks({label: self.models[label] for label in group}, trial, variants, wanted, hop)
        return {label: found[label] for label in self.models}


def _tracks(models: Mapping[str, SAGE], trial: Trial, variants: Sequence[tuple[bool, bool]], wanted: Sequence[str], hop: int) -> dict[str, Tracks]:
    """`Predictor.tracks` of models with the same encoders."""
    first = next(iter(models.values()))
    check_fits(first, trial)
    length = first.preset.window
    sees, hears = (any(masks[i] for masks in variants) for i in range(2))
    faces = features.encode_faces(first, trial) if sees else torch.zeros(0, first.preset.visual_dim)
    keep = set(overlap_ends(first, trial)) if "overlap" in wanted else set()
    live = live_ends(trial.n_ticks, hop) if "live" in wanted else []
    whole: dict[tuple[str, tuple[bool, bool]], dict[int, NDArray[np.float32]]] = {(label, masks): {} for label in models for masks in variants}
    newest: dict[tuple[str, tuple[bool, bool]], dict[int, NDArray[np.float32]]] = {key: {} for key in whole}
    for ends in window_batches(first, sorted(keep | set(live))):
        windows = [window_at(trial, end, length) for end in ends]
        batch = FusionInput.of(
            windows, faces, features.encode_windows(first, windows) if hears else torch.zeros(len(windows), length, first.preset.audio_dim)
        )
        for label, masks in whole:
            for end, rows in zip(ends, fuse(models[label], batch, masks).estimates.numpy(), strict=True):
                newest[label, masks][end] = rows[-1]
                if end in keep:
                    whole[label, masks][end] = rows
    stamps = np.array([int(trial.frame_t_ns[k]) if trial.native else ticks.tick_time_ns(k, trial.rate_hz) for k in live], np.int64)
    found: dict[str, Tracks] = {label: {} for label in models}
    for label, masks in whole:
        by_protocol = found[label][masks] = {}
        if "overlap" in wanted:
            rows = protocols.overlap(trial, whole[label, masks].__getitem__, length, min(STRIDE, length))
            by_protocol["overlap"] = Track("overlap", trial.frame_t_ns, rows)
        if "live" in wanted:
            by_protocol["live"] = Track("live", stamps, np.stack([newest[label, masks][k] for k in live]))
    return found
