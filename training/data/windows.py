"""Windows of a trial on the tick grid: what a model sees at one instant, in training and in evaluation.

A tick's visual mask is on when the frame it takes has a face; its audio mask is on when the sound track holds all of its samples. Ticks
before the clip or after its end have both masks off, and where a mask is off, pixels and samples are zeros.

On the uniform grid every window holds the same number of samples. The ticks of a native trial are its frames, which need not be evenly spaced:
its windows hold the samples that their ticks really span, and `tick_sample` says where each tick is in them. Where frames are more than half
a second apart, the sound in between is left out: one gap of minutes would else make a window too long for any memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ticks

from .store import FACE_SIZE, Trial

WINDOW = 300
STRIDE = 200
NATIVE_TICK_SAMPLES = ticks.SAMPLE_RATE_HZ // 2
"""The most sound that one tick of a native trial takes, half a second: a dozen lost frames."""


@dataclass(frozen=True, eq=False)
class Window:
    """W ticks of a trial, oldest first."""

    faces: NDArray[np.uint8]
    """[W, 48, 48, 3] RGB."""
    samples: NDArray[np.float32]
    """[S] in [-1, 1], mono 16 kHz; S = 160000 for 300 ticks at 30 Hz; in a native window what its ticks span."""
    visual_mask: NDArray[np.bool_]
    audio_mask: NDArray[np.bool_]
    labels: NDArray[np.float32]
    """[W, 2] valence, arousal of the frame that each tick takes."""
    labels_valid: NDArray[np.bool_]
    tick_face: NDArray[np.int32]
    """[W] row of the trial's faces, -1 for none: a key for cached features."""
    tick_sample: NDArray[np.int64]
    """[W] first sample of each tick, counted from samples[0]; ascending."""
    native: bool
    """The ticks are a video's own frames: S differs from window to window, and audio tokens belong at `tick_sample`."""


def window_at(trial: Trial, newest: int, length: int = WINDOW) -> Window:
    """The window of ticks newest - length + 1 .. newest, which may reach beyond the clip on either side."""
    first = newest - length + 1
    low, high = max(first, 0), min(newest + 1, trial.n_ticks)
    inside = slice(low - first, high - first)
    if low >= high:
        low, high, inside = 0, 0, slice(0, 0)
    tick_frame = np.full(length, -1, np.int32)
    tick_face = np.full(length, -1, np.int32)
    tick_frame[inside] = trial.tick_frame[low:high]
    tick_face[inside] = trial.tick_face[low:high]
    visual_mask = tick_face >= 0
    faces = np.zeros((length, FACE_SIZE, FACE_SIZE, 3), np.uint8)
    if visual_mask.any():
        faces[visual_mask] = trial.faces[tick_face[visual_mask]]
    labels = np.zeros((length, 2), np.float32)
    taken = tick_frame >= 0
    labels[taken] = trial.labels[tick_frame[taken]]
    labels_valid = taken.copy()
    labels_valid[taken] = trial.labels_valid[tick_frame[taken]]
    edges = np.array([trial.first_sample(k) for k in range(first, newest + 2)], np.int64)
    spans = np.minimum(np.diff(edges), NATIVE_TICK_SAMPLES) if trial.native else np.diff(edges)
    places = np.concatenate([[0], np.cumsum(spans)])
    audio_mask = (edges[:-1] >= 0) & (edges[:-1] + spans <= len(trial.audio))
    audio_mask[: inside.start] = False
    audio_mask[inside.stop :] = False
    if places[-1] < edges[-1] - edges[0]:
        samples = np.concatenate([trial.samples(int(start), int(count)) for start, count in zip(edges[:-1], spans, strict=True)])
    else:
        samples = trial.samples(int(edges[0]), int(places[-1]) if trial.native else ticks.window_samples(length, trial.rate_hz))
    heard = np.flatnonzero(audio_mask)
    samples[: places[heard[0]] if len(heard) else None] = 0.0
    if len(heard):
        samples[places[heard[-1] + 1] :] = 0.0
    return Window(faces, samples, visual_mask, audio_mask, labels, labels_valid, tick_face, places[:-1], trial.native)


def window_ends(n_ticks: int, length: int = WINDOW, stride: int = STRIDE) -> list[int]:
    """Newest ticks of windows that together cover ticks 0 .. n_ticks - 1; the last is n_ticks - 1. A short clip has one window."""
    if not 0 < stride <= length or n_ticks < 1:
        raise ValueError(f"need 0 < stride <= length and a tick, got stride {stride}, length {length}, {n_ticks} ticks")
    if n_ticks <= length:
        return [n_ticks - 1]
    return [*range(length - 1, n_ticks - 1, stride), n_ticks - 1]
