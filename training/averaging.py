"""An exponential moving average of a module's weights (EMA): less noisy than the last step's, and what is validated and kept when it is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Average of all floating tensors of `module`'s state; the others (counters) are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = module, decay, 0
        self.values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's weights as they are now. The decay rises to its value over the first steps, so that the start is forgotten."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = self.module.state_dict()
        floats = [name for name, tensor in now.items() if tensor.is_floating_point()]
        get_ema_multi_avg_fn(decay)([self.values[name] for name in floats], [now[name] for name in floats], self.updates)  # type: ignore[no-untyped-call]
        for name in now.keys() - set(floats):
            self.values[name].copy_(now[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average in here, and its own weights again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self.values)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state(self) -> dict[str, int | dict[str, Tensor]]:
        return {"updates": self.updates, "values": self.values}

    def load_state(self, state: dict[str, object]) -> None:
        values, updates = state["values"], state["updates"]
        assert isinstance(values, dict)
        assert isinstance(updates, int)
        self.updates = updates
        for name, tensor in values.items():
            self.values[name].copy_(tensor)
