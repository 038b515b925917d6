"""Train SAGE in stages and write its checkpoint.

    train(Store.open("STORE"), presets.get("tiny"), Path("CKPT"))

float32 unless `precision="bf16"`. Deterministic for one seed, machine, number of threads and of processes: every epoch draws from (seed, stage,
epoch), so a run that was killed and resumed ends with the same weights as one that was not. The checkpoint appears when all is done; until then
CKPT.run holds the state. Started by `torchrun`, the processes share every batch (see `distributed`).
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sage_edge.runtime.errors import CheckpointError, DataError, SageError, UsageError
from sage_edge.runtime.progress import Progress
from sage_edge.runtime.ticks import SAMPLE_RATE_HZ

from . import checkpoint, distributed
from .config import PUBLISHED, TrainConfig
from .data.folds import split_folds
from .data.store import Store, Trial
from .encoders import weights
from .model import SAGE
from .presets import Preset
from .run import Run
from .stages import Stage
from .stages.audio import AudioStage
from .stages.fusion import FusionStage
from .stages.joint import JointStage
from .stages.visual import VisualStage

STAGES: tuple[Any, ...] = (VisualStage, AudioStage, FusionStage, JointStage)


def train(
    store: Store, preset: Preset, out: Path, config: TrainConfig | None = None, *, resume: bool = False, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Train on the `train` split of `store`, write checkpoint folder `out`, return the contents of its checkpoint.json.

    With a `val` split (or a fold that validates), the epoch of fusion or joint training with the best pooled `overlap` CCC is kept, named in
    `metrics`.
    Raises UsageError (`out` exists, nothing to resume, settings that do not fit, published weights that are not there), DataError (no usable
    training data), CheckpointError (state cannot be resumed).
    """
    config = config or TrainConfig()
    config.check(preset)
    trainable = _trials(store, preset, config)
    with distributed.processes(torch.device(device)) as place:
        if batch := distributed.divides([config.visual_batch, config.audio_batch, config.fusion_batch, config.joint_batch]):
            raise UsageError(f"a batch of {batch} cannot be shared by {distributed.size()} processes; choose a multiple of {distributed.size()}")
        run = Run(Path(out))
        if resume and distributed.agreed(run.over()):
            distributed.together(run.end)
            return checkpoint.read_meta(run.checkpoint)
        state = distributed.together(lambda: run.begin(resume))
        if resume and not distributed.main():
            state = run.read()
        settings = {"preset": preset.to_dict(), "config": vars(config) | {}, "store": store.digest, "processes": distributed.size()}
        if state is not None and _result(state["settings"]) != _result(settings):
            run.close()
            raise CheckpointError(f"{run.folder} was begun with another corpus, preset or settings; repeat those, or remove it and start again")
        try:
            with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), _exact(place):
                model, metrics = _run_stages(trainable, preset, config, run, settings, state, place)
            if distributed.main():
                run.publish(lambda folder: _write(folder, model, store, config, place, metrics))
        except BaseException as error:
            if distributed.main():
                run.abandon()
            if isinstance(error, torch.OutOfMemoryError):
                raise SageError(
                    f"the GPU's memory is full ({str(error).splitlines()[0]}); lower the stage's batch and repeat with --resume"
                ) from None
            raise
        if distributed.main():
            run.end()
        distributed.barrier()
    return checkpoint.read_meta(run.checkpoint)


def _result(settings: dict[str, Any]) -> dict[str, Any]:
    """What of the settings a result depends on: not how many processes read."""
    return {**settings, "config": {key: value for key, value in settings["config"].items() if key != "workers"}}


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU: convolutions in float32 rather than TF32, by the same algorithm each time."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return flags


def _write(folder: Path, model: SAGE, store: Store, config: TrainConfig, device: torch.device, metrics: dict[str, Any]) -> None:
    training = {"config": vars(config) | {}, "device": device.type, "processes": distributed.size(), "torch": torch.__version__}
    checkpoint.write_model(folder, model, trained_on=trained_on(store), epoch=metrics["epoch"], metrics=metrics, training=training)


def trained_on(store: Store) -> dict[str, Any]:
    """What a checkpoint and later a bundle say about their corpus."""
    return {**store.meta, "digest": store.digest}


def _trials(store: Store, preset: Preset, config: TrainConfig) -> tuple[list[Trial], list[Trial]]:
    """(trials to train on, trials that validate)."""
    if store.meta.get("rate") not in (preset.rate_hz, "native"):
        raise UsageError(f"{store.path} was prepared at rate {store.meta.get('rate')}, preset {preset.name} wants {preset.rate_hz}; prepare it again")
    if store.meta.get("face_size") != preset.face_size:
        raise UsageError(
            f"{store.path} holds faces of {store.meta.get('face_size')} pixels, preset {preset.name} wants {preset.face_size}; "
            f"leave face_size={store.meta.get('face_size')}"
        )
    if preset.sample_rate_hz != SAMPLE_RATE_HZ:
        raise UsageError(f"sample_rate_hz={preset.sample_rate_hz} is not the rate of a store's sound; leave sample_rate_hz={SAMPLE_RATE_HZ}")
    train = [trial for trial in store.trials("train") if trial.labels_valid.any()]
    if not train:
        raise DataError(f"{store.path}: no frame of the train split has a label; training needs some")
    if config.folds:
        return split_folds(train, config.folds, config.fold, config.fold_by, config.seed)
    try:
        val = [trial for trial in store.trials("val") if trial.labels_valid.any()]
    except DataError:
        val = []
    return train, val


def _load_encoders(model: SAGE, config: TrainConfig) -> None:
    """Give the encoders the weights that `config` names."""
    preset = model.preset
    for load, source in (
        (partial(weights.load_visual, model.visual), config.visual_weights),
        (partial(weights.load_audio, model.audio.wavlm), config.audio_weights),
    ):
        if source != "none" and (source != "auto" or preset.name in PUBLISHED):
            load(source, preset)


def _run_stages(
    trials: tuple[list[Trial], list[Trial]],
    preset: Preset,
    config: TrainConfig,
    run: Run,
    settings: dict[str, Any],
    state: dict[str, Any] | None,
    device: torch.device,
) -> tuple[SAGE, dict[str, Any]]:
    torch.manual_seed(config.seed)
    model = SAGE(preset)
    if state is None:
        _load_encoders(model, config)
    else:
        model.load_state_dict(state["model"])
    model.to(device)
    stages: list[Stage] = [kind(model, *trials, config) for kind in STAGES]
    first_stage, first_epoch, seconds = 0, 0, 0.0
    if state is not None:
        first_stage, first_epoch, seconds = state["stage"], state["epoch"], state["seconds"]
        stages[first_stage].modules.load_state_dict(state["modules"])
        stages[first_stage].optimizer.load_state_dict(state["optimizer"])
        stages[first_stage].load_state(state["own"])
    begin_s = time.monotonic() - seconds
    chosen: dict[str, Any] = {"epoch": 0} if state is None else state["chosen"]
    for number, stage in enumerate(stages):
        if number < first_stage or stage.epochs == 0:
            continue
        stage.corpus = settings["store"]
        stage.start(run.folder)
        start_epoch = first_epoch if number == first_stage else 0
        with Progress(f"train {stage.name}", stage.epochs * stage.steps, "steps", shown=distributed.main()) as bar:
            bar.done = start_epoch * stage.steps
            for epoch in range(start_epoch, stage.epochs):
                if stage.exhausted(epoch):
                    break
                torch.manual_seed(int(np.random.SeedSequence([config.seed, number, epoch]).generate_state(1)[0]) + distributed.rank())
                metrics = stage.epoch(epoch, np.random.default_rng([config.seed, number, epoch]), lambda loss: bar.step(note=f"loss {loss:.3f}"))
                if not distributed.main():
                    continue
                entry = {"stage": stage.name, "epoch": epoch, **metrics, "seconds": round(time.monotonic() - begin_s, 1)}
                run.record(entry, len(run.records))
                run.save(
                    {
                        "settings": settings,
                        "stage": number,
                        "epoch": epoch + 1,
                        "seconds": time.monotonic() - begin_s,
                        "model": model.state_dict(),
                        "modules": stage.modules.state_dict(),
                        "optimizer": stage.optimizer.state_dict(),
                        "own": stage.state(),
                        "chosen": chosen,
                    }
                )
        stage.finish()
        distributed.synchronise(model)
        if stage.selects and stage.best["epoch"] >= 0:
            chosen = {"epoch": stage.best["epoch"] + 1, "stage": stage.name, **stage.best["score"]}
    return model.eval(), {**chosen, "seconds": round(time.monotonic() - begin_s, 1)}
