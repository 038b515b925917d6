"""CCC of a model on a prepared store under both protocols, on every original frame, float64; and with one modality's mask off.

    result = evaluate(model, Store.open("STORE"))        # {"overlap": {valence, arousal, mean, per_video}, "live": {...}, ...}

`overlap`: windows of 300 ticks every 200, averaged. `live`: the newest tick of a window every `hop` ticks, held until the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.progress import Progress

from . import features
from .data import protocols
from .data.store import Store, Trial
from .data.windows import STRIDE, window_at, window_ends
from .model import SAGE

HOP = 15
PROTOCOLS = ("overlap", "live")
BOTH = (True, True)
"""(visual, audio): which masks may be on."""
WINDOWS_AT_ONCE = 8

Predictions = dict[tuple[bool, bool], dict[str, NDArray[np.float32]]]


def live_ends(n_ticks: int, hop: int = HOP) -> list[int]:
    """The newest ticks of a live session's hops: hop - 1, 2 hop - 1, ... and what is left at the end."""
    ends = list(range(hop - 1, n_ticks, hop))
    return ends if ends and ends[-1] == n_ticks - 1 else [*ends, n_ticks - 1]


def _predict(
    model: SAGE, trial: Trial, faces: torch.Tensor, ends: Sequence[int], variants: Sequence[tuple[bool, bool]]
) -> dict[tuple[bool, bool], NDArray[np.float32]]:
    """{variant: estimates [n, W, 2]} of the windows that end at ticks `ends`; `faces` is `features.encode_faces(model, trial)`."""
    windows = [window_at(trial, newest, model.preset.window) for newest in ends]
    visual = torch.stack([features.face_rows(faces, window.tick_face) for window in windows])
    visual_mask = torch.from_numpy(np.stack([window.visual_mask for window in windows]).astype(np.float32))
    audio_mask = torch.from_numpy(np.stack([window.audio_mask for window in windows]).astype(np.float32))
    if any(audio for _, audio in variants) and bool(audio_mask.any()):
        audio = features.encode_samples(model, [window.samples for window in windows])
    else:
        audio = torch.zeros(len(windows), model.preset.window, model.preset.audio_dim)
    device = next(model.parameters()).device
    result = {}
    for masks in variants:
        # floats in place of the masks that are off keep the batch as it is
        output = model.fusion(*(x.to(device) for x in (visual, audio, visual_mask * masks[0], audio_mask * masks[1])))
        result[masks] = output.estimates.cpu().numpy()
    return result


@torch.no_grad()
def predict_trial(model: SAGE, trial: Trial, variants: Sequence[tuple[bool, bool]], wanted: Sequence[str] = PROTOCOLS, hop: int = HOP) -> Predictions:
    """{variant: {protocol: float32 [F, 2]}} for one trial; `model` must be in eval mode."""
    _check_rate(model, trial)
    faces = features.encode_faces(model, trial) if any(visual for visual, _ in variants) else torch.zeros(0, model.preset.visual_dim)
    length = model.preset.window
    stride = min(STRIDE, length)
    overlap_ends = window_ends(trial.n_ticks, length, stride) if "overlap" in wanted else []
    live = live_ends(trial.n_ticks, hop) if "live" in wanted else []
    whole: dict[tuple[bool, bool], dict[int, NDArray[np.float32]]] = {masks: {} for masks in variants}
    newest: dict[tuple[bool, bool], dict[int, NDArray[np.float32]]] = {masks: {} for masks in variants}
    keep = set(overlap_ends)
    for ends in features.batches(sorted(keep | set(live)), WINDOWS_AT_ONCE):
        for masks, estimates in _predict(model, trial, faces, ends, variants).items():
            for end, rows in zip(ends, estimates, strict=True):
                newest[masks][end] = rows[-1]
                if end in keep:
                    whole[masks][end] = rows
    stamps = [int(trial.frame_t_ns[k]) if trial.native else ticks.tick_time_ns(k, trial.rate_hz) for k in live]
    result: Predictions = {}
    for masks in variants:
        result[masks] = {}
        if "overlap" in wanted:
            result[masks]["overlap"] = protocols.overlap(trial, whole[masks].__getitem__, length, stride)
        if "live" in wanted:
            result[masks]["live"] = protocols.hold(trial, stamps, np.stack([newest[masks][k] for k in live]))
    return result


def _check_rate(model: SAGE, trial: Trial) -> None:
    if not trial.native and trial.rate_hz != model.preset.rate_hz:
        raise UsageError(
            f"{trial.name} has {trial.rate_hz} ticks a second, the model {model.preset.rate_hz}; prepare the corpus again at the model's rate"
        )


def _score_all(
    model: SAGE, store: Store, split: str, variants: Sequence[tuple[bool, bool]], wanted: Sequence[str], hop: int, progress: bool
) -> dict[tuple[bool, bool], dict[str, Any]]:
    trials = store.trials(split)
    training = model.training
    model.eval()
    guesses: dict[tuple[bool, bool], dict[str, dict[str, NDArray[np.float32]]]] = {masks: {name: {} for name in wanted} for masks in variants}
    try:
        with Progress(f"evaluate {split}", len(trials), "trials") if progress else _Silent() as bar:
            for trial in trials:
                for masks, by_protocol in predict_trial(model, trial, variants, wanted, hop).items():
                    for name, rows in by_protocol.items():
                        guesses[masks][name][trial.name] = rows
                bar.step()
    finally:
        model.train(training)
    return {masks: {name: protocols.score(rows, trials) for name, rows in by_protocol.items()} for masks, by_protocol in guesses.items()}


class _Silent:
    """A progress bar that shows nothing."""

    def __enter__(self) -> _Silent:
        return self

    def step(self, n: int = 1, note: str | None = None) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def evaluate(
    model: SAGE, store: Store, split: str = "val", visual: bool = True, audio: bool = True, hop: int = HOP, progress: bool = False
) -> dict[str, Any]:
    """{"overlap", "live"}: each {"valence", "arousal", "mean", "per_video"}; `visual=False` or `audio=False` switches that mask off throughout.

    Raises DataError when the store has no such split, UsageError when its rate is not the model's.
    """
    return _score_all(model, store, split, [(visual, audio)], PROTOCOLS, hop, progress)[visual, audio]


def ccc_without(model: SAGE, store: Store, split: str = "val", progress: bool = False) -> dict[str, Any]:
    """{"visual": score with the visual mask off, "audio": with the audio mask off}, protocol `overlap`."""
    scores = _score_all(model, store, split, [(False, True), (True, False)], ["overlap"], HOP, progress)
    return {"visual": scores[False, True]["overlap"], "audio": scores[True, False]["overlap"]}


def full_report(model: SAGE, store: Store, split: str = "val", hop: int = HOP, progress: bool = False) -> dict[str, Any]:
    """`evaluate` and `ccc_without` in one pass over the store: {"split", "overlap", "live", "without": {"visual", "audio"}}."""
    scores = _score_all(model, store, split, [BOTH, (False, True), (True, False)], PROTOCOLS, hop, progress)
    return {
        "split": split,
        **scores[BOTH],
        "without": {"visual": scores[False, True]["overlap"], "audio": scores[True, False]["overlap"]},
    }
