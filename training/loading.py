"""Batches read while the one before is trained on, by processes of their own: the same batches in the same order, however many there are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Plan = TypeVar("Plan")
Item = TypeVar("Item")

AHEAD = 2
"""Batches that each process keeps ready."""


class _Read(Dataset[Any], Generic[Plan, Item]):
    def __init__(self, read: Callable[[Plan], Item], plans: Sequence[Plan]) -> None:
        self.read, self.plans = read, plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, i: int) -> Item:
        return self.read(self.plans[i])


def as_is(item: Item) -> Item:
    """A batch comes whole out of `read`."""
    return item


def ahead(read: Callable[[Plan], Item], plans: Sequence[Plan], workers: int, device: torch.device) -> Iterator[Item]:
    """`read(plan)` for each of `plans`, in order, by `workers` processes (0: by this one, as they are asked for).

    A plan holds all that is random about its batch, so that nothing depends on who reads it. For a GPU, items come in pinned memory where they
    have a method `pin_memory`.
    """
    if workers == 0:
        return map(read, plans)
    # forked, so that memory-mapped corpora are shared and not copied; a generator of its own, so that the caller's random state stays as it is
    fork = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
    loader = DataLoader(
        _Read(read, plans),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_is,
        prefetch_factor=AHEAD,
        pin_memory=device.type == "cuda",
        multiprocessing_context=fork,
        generator=torch.Generator(),
    )
    return iter(loader)
