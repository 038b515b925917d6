"""The stages of training: faces alone, sound alone, fusion, all together. What they share is here; what each does is in its file.

A stage owns the modules that it trains and runs epoch by epoch. An epoch depends on the weights, the optimizer and (seed, stage, epoch) only,
so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sage_edge.training import distributed
from sage_edge.training.averaging import Average
from sage_edge.training.config import TrainConfig
from sage_edge.training.model import SAGE

OnStep = Callable[[float], None]
"""Called after each optimizer step with the loss."""

JUDGING = 0.2
"""Weight of the loss of an encoder's own judgement of its input."""


class Stage(ABC):
    """What `loop.train` runs. A subclass sets `name`, and says what a batch is, its loss and the validation."""

    name: str
    selects = False
    """Whether the epoch with the best validation CCC is kept, and the stage may end early (`patience`); else the last epoch is."""
    corpus = ""
    """Digest of the store that the trials are from."""

    def __init__(self, model: SAGE, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, epochs: int, steps: int, config: TrainConfig) -> None:
        self.model, self.modules, self.optimizer, self.config = model, modules, optimizer, config
        self.epochs, self.steps = epochs, steps
        self.device = next(model.parameters()).device
        self.average = Average(modules, config.ema) if config.ema > 0 and epochs else None
        self.best: dict[str, Any] = {"epoch": -1, "score": {}, "weights": {}}

    @abstractmethod
    def start(self, folder: Path) -> None:
        """Load or compute what the epochs need, and keep in `folder` (the run's) what is too large for memory; not called for a complete stage."""

    @abstractmethod
    def batch(self, step: int, rng: np.random.Generator) -> Any:
        """This process's share of the batch of `step`. `rng` is the same in all processes: draw all of it, then `distributed.share`."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The loss of the whole batch (`distributed.gather` what the modules say of this share); a scalar."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """CCC of the validation split, {} where there is none: val_valence, val_arousal, val_mean. `modules` are in eval mode."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch's first step."""
        self.modules.train()

    def epoch(self, epoch: int, rng: np.random.Generator, on_step: OnStep) -> dict[str, float]:
        """Train one epoch; returns metrics: `loss`, and what `validate` gives."""
        self.begin_epoch(epoch)
        if self.config.freeze_norms:
            for module in self.modules.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        objective, losses = distributed.replicated(_Objective(self)), []
        for i in range(self.steps):
            step = epoch * self.steps + i
            losses.append(self._descend(objective(self.batch(step, rng)), step))
            on_step(losses[-1])
        distributed.synchronise(self.modules)
        self.modules.eval()
        with self.average.applied() if self.average is not None else contextlib.nullcontext():
            score = distributed.agreed(self._scored() if distributed.main() else {})
            if self.selects and better(score, self.best["score"]):
                weights = {name: tensor.detach().cpu().clone() for name, tensor in self.modules.state_dict().items()}
                self.best = {"epoch": epoch, "score": score, "weights": weights}
        return {"loss": float(np.mean(losses)), **score}

    @torch.no_grad()
    def _scored(self) -> dict[str, float]:
        return self.validate()

    def _descend(self, loss: Tensor, step: int) -> float:
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], step, self.epochs * self.steps, c.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_((p for group in self.optimizer.param_groups for p in group["params"]), c.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return float(loss.detach())

    def exhausted(self, epoch: int) -> bool:
        """Whether `epoch` need not begin: the last `patience` epochs brought nothing better."""
        return self.selects and self.config.patience > 0 and epoch - 1 - self.best["epoch"] >= self.config.patience

    def finish(self) -> None:
        """Leave the modules as the stage's result, in eval mode."""
        if self.best["weights"]:
            self.modules.load_state_dict(self.best["weights"])
        elif self.average is not None:
            self.modules.load_state_dict(self.average.values)
        self.modules.eval()

    def state(self) -> dict[str, Any]:
        """What `epoch` needs beyond modules and optimizer."""
        return {"best": self.best, "average": self.average.state() if self.average is not None else None}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        if self.average is not None:
            self.average.load_state(state["average"])


class _Objective(nn.Module):
    """A stage's loss as the forward pass of its modules, which is what DistributedDataParallel wants."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.trained, self._loss, self._device = stage.modules, stage.loss, stage.device.type
        self._bf16 = stage.config.precision == "bf16"

    def forward(self, batch: Any) -> Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bf16):
            return self._loss(batch)


class Head(nn.Module):
    """The auxiliary head of an encoder: [.., d] -> [.., 2], LayerNorm, Linear, tanh.

    One that `judges` also learns how bad its input is: an encoder that is only taught to see through noise would hide it from the fusion.
    """

    def __init__(self, dim: int, judges: bool = False) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 2)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.bad = nn.Linear(dim, 1) if judges else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.out(self.norm(x)))

    def judged(self, x: Tensor, bad: Tensor) -> Tensor:
        """The loss of how bad it takes its input [.., d] to be, `bad` [..] being the truth, 0 to 1; 0 where it does not judge."""
        if self.bad is None:
            return x.new_zeros(())
        logits, bad = distributed.gather(self.bad(self.norm(x)).squeeze(-1), bad)
        return JUDGING * nn.functional.binary_cross_entropy_with_logits(logits.float(), bad)


def groups(modules: nn.Module, peak: float, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameter groups for `optimizer`: weight decay on matrices and kernels only; `peak` is the learning rate at its highest."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    decayed, free = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": config.weight_decay, "lr": peak, "peak": peak},
        {"params": free, "weight_decay": 0.0, "lr": peak, "peak": peak},
    ]


def adamw(modules: nn.Module, peak: float, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over `groups`."""
    return torch.optim.AdamW(groups(modules, peak, config), lr=peak)


def learning_rate(peak: float, step: int, total: int, warmup: float) -> float:
    """Linear rise over `warmup` of the steps, then half a cosine down to 1 % of the peak."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return peak * (step + 1) / rise
    along = (step - rise) / max(1, total - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along)))


def better(score: dict[str, float], best: dict[str, float]) -> bool:
    """Whether an epoch's score replaces the best so far: an undefined CCC beats no defined one. As long as none is, or without a validation
    split, the last epoch counts.
    """
    if not score or not best:
        return True
    new, old = score["val_mean"], best["val_mean"]
    return new > old or math.isnan(old)
