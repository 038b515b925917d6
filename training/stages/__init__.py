"""The stages of training: faces alone, sound alone, fusion. What they share is here; what each does is in its file.

A stage owns the modules that it trains and runs epoch by epoch. An epoch depends on the weights, the optimizer and (seed, stage, epoch) only,
so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sage_edge.training.config import TrainConfig

OnStep = Callable[[float], None]
"""Called after each optimizer step with the loss."""


class Stage(Protocol):
    """What `loop.train` runs."""

    name: str
    epochs: int
    steps: int
    """Per epoch."""
    modules: nn.ModuleDict
    """What it trains."""
    optimizer: torch.optim.Optimizer

    def start(self) -> None:
        """Load or compute what the epochs need; not called for a stage that is complete."""

    def epoch(self, epoch: int, rng: np.random.Generator, on_step: OnStep) -> dict[str, float]:
        """Train one epoch; returns metrics (`loss`, and `ccc` where there is a validation split)."""

    def finish(self) -> None:
        """Leave the modules as the stage's result."""

    def state(self) -> dict[str, Any]:
        """What `epoch` needs beyond modules and optimizer."""

    def load_state(self, state: dict[str, Any]) -> None: ...


class Head(nn.Module):
    """The auxiliary head of an encoder: [.., d] -> [.., 2], LayerNorm, Linear, tanh."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 2)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.out(self.norm(x)))


def adamw(modules: nn.Module, lr: float, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    decayed, free = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}], lr=lr)


def learning_rate(peak: float, step: int, total: int, warmup: float) -> float:
    """Linear rise over `warmup` of the steps, then half a cosine down to 1 % of the peak."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return peak * (step + 1) / rise
    along = (step - rise) / max(1, total - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along)))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, clip: float) -> float:
    """One optimizer step at `lr`; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip)
    optimizer.step()
    return float(loss.detach())


def mean(values: Iterable[float]) -> float:
    """Mean of the losses of an epoch."""
    return float(np.mean(list(values)))
