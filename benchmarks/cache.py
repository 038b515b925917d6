"""Cache: an epoch of the fusion stage that reads features from disk against one that computes them each time, for `base` (ResNet-50, WavLM-base)
or another preset.

Both are `FusionStage`, begin with the same weights and draw the same windows; what differs is where V and A come from. An epoch trains on a batch
of windows and validates on a quarter as many, about what the recipe of `base` does on Aff-Wild2. The one that computes encodes each face of a
training window once, each face of the validation trial once, and the sound of each window. Weights and trials are random: neither changes the
time. Features and losses have to agree.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import interleaved, summary

SIZES = {
    "cpu": {"ticks": 700, "val_ticks": 900, "windows": 16, "batch": 16},
    "cuda": {"ticks": 9000, "val_ticks": 12900, "windows": 256, "batch": 32},
}
"""Ticks of the only trial of each split, windows per epoch, windows per step."""
RATE_HZ, SAMPLE_RATE_HZ = 30, 16_000
AGREE = 1e-3
"""Relative: of features (batches of other sizes are rounded otherwise), and of an epoch's losses."""


def _trial(split: str, n_ticks: int, rng: np.random.Generator) -> Any:
    from sage_edge.training.data.store import Trial

    frames = np.arange(n_ticks)
    samples: NDArray[np.int16] = rng.integers(-3000, 3000, n_ticks * SAMPLE_RATE_HZ // RATE_HZ + 1).astype(np.int16)
    return Trial(
        name=split, split=split, source=f"{split}.mp4", subject=None, frame_t_ns=frames.astype(np.int64) * 1_000_000_000 // RATE_HZ,
        frame_face=frames.astype(np.int32), faces=rng.integers(0, 256, (n_ticks, 48, 48, 3), dtype=np.uint8),
        labels=rng.uniform(-1, 1, (n_ticks, 2)).astype(np.float32), labels_valid=np.ones(n_ticks, np.bool_), audio=samples, rate_hz=RATE_HZ,
    )  # fmt: skip


def _computing(cache: Any, model: Any, trial: Any) -> Callable[..., Any]:
    """`FeatureCache.batch` that computes its features; a face of the validation trial, whose windows come in order, is encoded once."""
    import torch

    from sage_edge.training import features, inputs
    from sage_edge.training.cache import Batch, cut
    from sage_edge.training.data.windows import Window, window_at

    low = inputs.centre(model.preset)

    def visual_of(windows: Sequence[Window]) -> list[torch.Tensor]:
        shown = np.unique([row for window in windows for row in window.tick_face[window.tick_face >= 0]]).astype(np.int64)
        rows = torch.cat([torch.zeros(0, model.preset.visual_dim), *features.face_batches(model, trial.faces[shown], low, low)])
        of_ticks = [np.where(window.tick_face >= 0, np.searchsorted(shown, window.tick_face), -1).astype(np.int32) for window in windows]
        return [features.face_rows(rows, tick_face) for tick_face in of_ticks]

    def batch(picked: Iterable[int], *_: object) -> Batch:
        windows = [cut(window_at(trial, cache.ends[n][1], model.preset.window), cache.ends[n][2]) for n in picked]
        # training windows of a whole corpus seldom share a face
        visual = visual_of(windows) if trial.split == "val" else [visual_of([window])[0] for window in windows]
        names = ("visual_mask", "audio_mask", "labels", "labels_valid")
        columns = [torch.from_numpy(np.stack([getattr(window, name) for window in windows]).astype(np.float32)) for name in names]
        clean = [torch.zeros_like(columns[0])] * 2
        return Batch(*(torch.stack(visual), features.encode_windows(model, windows), *columns, *clean))

    return batch


def operations(preset: str) -> dict[str, float]:
    """Floating-point operations per training window, counted by PyTorch, in billions: of the encoders, of the rest (forward and backward), and
    `ratio`, how many times fewer it takes to train where features are cached. No timing, and the same on every machine."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sage_edge.training import SAGE, presets

    p = presets.get(preset)
    with torch.device("meta"):
        faces, samples = torch.zeros(p.window, 3, p.input_size, p.input_size), torch.zeros(1, p.samples)
        visual, audio, mask = torch.zeros(1, p.window, p.visual_dim), torch.zeros(1, p.window, p.audio_dim), torch.ones(1, p.window)
    model = SAGE(p).to("meta")
    with FlopCounterMode(display=False) as encoders, torch.no_grad():
        model.visual(faces)
        model.audio(samples)
    with FlopCounterMode(display=False) as rest:
        model.fusion(visual, audio, mask, mask).estimates.sum().backward()
    of_encoders, of_rest = encoders.get_total_flops() / 1e9, rest.get_total_flops() / 1e9
    return {"encoders": round(of_encoders, 1), "rest": round(of_rest, 1), "ratio": round((of_encoders + of_rest) / of_rest, 1)}


def run(n: int = 400, seed: int = 0, preset: str = "base") -> dict[str, Any]:
    """`variants`: {"cached", "uncached"} with the seconds of an epoch, n / 200 of each, and "fill", what computing the cache takes once."""
    import torch

    from sage_edge.training import SAGE, presets
    from sage_edge.training.config import TrainConfig
    from sage_edge.training.stages.fusion import FusionStage

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = SIZES[device.type]
    epochs, rng = max(1, math.ceil(n / 200)), np.random.default_rng(seed)
    train, val = _trial("train", sizes["ticks"], rng), _trial("val", sizes["val_ticks"], rng)
    config = TrainConfig(
        seed=seed, fusion_epochs=epochs + 1, fusion_windows=sizes["windows"], fusion_batch=sizes["batch"], fusion_stride=200, fusion_lr=1e-4
    )
    torch.manual_seed(seed)
    model = SAGE(presets.get(preset)).to(device)
    # one set of encoders, which stay as they are
    other = copy.copy(model)
    other._modules = {**model._modules, "fusion": copy.deepcopy(model.fusion)}
    losses: dict[str, list[float]] = {"cached": [], "uncached": []}
    with tempfile.TemporaryDirectory() as folder:
        stages = {name: FusionStage(own, [train], [val], config) for name, own in (("cached", model), ("uncached", other))}
        begin_s, fill_s = time.perf_counter(), 0.0
        for stage in stages.values():
            stage.start(Path(folder))
            fill_s = fill_s or time.perf_counter() - begin_s
        for cache, trial in ((stages["uncached"].cache, train), (stages["uncached"].val_cache, val)):
            cache.batch = _computing(cache, model, trial)  # type: ignore[method-assign]
        one, other_one = (stages[name].cache.batch([0, 1]) for name in ("cached", "uncached"))
        pairs = [(getattr(one, field.name), getattr(other_one, field.name)) for field in dataclasses.fields(one)]
        apart = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs)
        if apart > AGREE:
            raise SystemExit(f"cache: cached and computed features differ by {apart:.1e}; nothing was measured")

        def epoch(name: str) -> Callable[[int], None]:
            def once(k: int) -> None:
                torch.manual_seed(k)
                losses[name].append(stages[name].epoch(k, np.random.default_rng([seed, k]), lambda _: None)["loss"])

            return once

        seconds = interleaved({name: epoch(name) for name in stages}, epochs, warmup=1)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.npy"))
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses["cached"], losses["uncached"], strict=True))
    if worst > AGREE:
        raise SystemExit(f"cache: losses of an epoch differ by {worst:.1e} between cached and computed features; nothing was measured")
    variants = {name: summary(values, per_second=1.0) for name, values in {**seconds, "fill": [fill_s]}.items()}
    return {
        "unit": "s",
        "variants": variants,
        "ratios": {
            "cached_over_uncached": round(variants["uncached"]["median"] / variants["cached"]["median"], 2),
            "cached_over_fill": round(variants["fill"]["median"] / variants["cached"]["median"], 2),
        },
        "notes": {
            "timed": f"one epoch on the {device.type}: {sizes['windows']} windows of {model.preset.window} ticks, {sizes['batch']} a step; "
            f"{len(stages['cached'].val_cache.ends)} to validate",
            "trials": f"{sizes['ticks']} and {sizes['val_ticks']} ticks, {size / 1e6:.0f} MB of features",
            "largest relative difference": {"features": apart, "losses": worst},
            "threads": torch.get_num_threads(),
            "billions of operations per training window": {name: operations(name) for name in ("base", "large")},
        },
    }
