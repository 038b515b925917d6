"""Training on several processes (`torchrun`): each takes its share of every batch, and the loss sees the whole of it.

Predictions are gathered before the loss, so that any loss, one pooled over the batch too, and its gradient are what one process would get. That
holds to rounding; what does differ is dropout (each process draws its own) and BatchNorm's statistics (process 0's), see `freeze_norms`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sage_edge.runtime.errors import SageError, UsageError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, 0 where there is one only."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def launched() -> int:
    """Processes that `torchrun` has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that `torchrun` has started (gloo on CPUs, nccl on GPUs) and leave them at the end; yields this process's device."""
    if launched() == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if place >= torch.cuda.device_count():
            raise UsageError(f"{place + 1} processes want a GPU each, PyTorch finds {torch.cuda.device_count()}; start as many as there are")
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for the others."""
    if size() > 1:
        dist.barrier()


def share(items: Any) -> Any:
    """This process's part of a batch: items[rank::size] of a sequence or array whose length is a multiple of `size`."""
    return items[rank() :: size()]


def gather(*tensors: Tensor) -> list[Tensor]:
    """Each tensor [n, ...] of all processes as one [size * n, ...]; gradients flow back to where the rows came from."""
    if size() == 1:
        return list(tensors)
    from torch.distributed.nn.functional import all_gather

    return [torch.cat(all_gather(tensor.contiguous())) for tensor in tensors]  # type: ignore[no-untyped-call]


def agreed(value: T) -> T:
    """Process 0's `value`, in every process."""
    if size() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held)
    agreed_value: T = held[0]
    return agreed_value


def together(action: Callable[[], T]) -> T | None:
    """Run `action` in process 0 alone (None elsewhere); what it refuses is raised in every process, so that none waits for the others."""
    result, refused = None, None
    if main():
        try:
            result = action()
        except SageError as error:
            refused = error
    if (reason := agreed(refused)) is not None:
        raise reason
    return result


@torch.no_grad()
def synchronise(module: nn.Module) -> None:
    """Give `module` process 0's state: BatchNorm's running statistics are each process's own."""
    if size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def replicated(module: nn.Module) -> nn.Module:
    """`module` with its gradients averaged over the processes; itself where there is one process only."""
    return nn.parallel.DistributedDataParallel(module) if size() > 1 else module


def divides(batches: Sequence[int]) -> int | None:
    """The first of `batches` that cannot be shared evenly, None when all can."""
    return next((batch for batch in batches if batch % size()), None)
