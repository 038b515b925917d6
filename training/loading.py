"""Batches read while the one before is trained on, by processes of their own: the same batches in the same order, however many there are."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sage_edge.runtime.errors import SageError

Plan = TypeVar("Plan")
Item = TypeVar("Item")

AHEAD = 2
"""Batches that each process keeps ready."""


@dataclass(frozen=True)
class _Failed:
    """What `read` raised, on its way to the process that asked: a DataLoader would make many lines of it."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failed:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some errors cannot travel
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)


class _Sharing(pickle.Pickler):
    """Moves the tensors of what it pickles into shared memory. Done later, in the thread that sends them, a failure would be lost and waited for."""

    def persistent_id(self, value: Any) -> bool | None:
        if not isinstance(value, Tensor):
            return None
        value.share_memory_()  # type: ignore[no-untyped-call]
        return True


class _Read(Dataset[Any], Generic[Plan, Item]):
    def __init__(self, read: Callable[[Plan], Item], plans: Sequence[Plan]) -> None:
        self.read, self.plans = read, plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, i: int) -> Item | _Failed:
        try:
            item = self.read(self.plans[i])
        except Exception as error:
            return _Failed.of(error)
        try:
            _Sharing(io.BytesIO()).dump(item)
        except RuntimeError as error:
            return _Failed.of(lost(str(error).splitlines()[0]))
        return item


def as_is(item: Item) -> Item:
    """A batch comes whole out of `read`."""
    return item


def lost(fact: str) -> SageError:
    """A process that reads ahead is gone, or has no room for what it reads."""
    return SageError(f"a process that reads ahead failed ({fact}), often for want of memory; set workers=0, or give it more memory and /dev/shm")


def _received(items: Iterator[Item | _Failed]) -> Iterator[Item]:
    """`items` up to the first failure, which is raised when the processes have ended."""
    failed: _Failed | None = None
    while failed is None:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            item = _Failed(lost("it was killed"), str(error))
        if isinstance(item, _Failed):
            failed = item
        else:
            yield item
    del items, item
    raise failed.error from RuntimeError(failed.trace)


def ahead(read: Callable[[Plan], Item], plans: Sequence[Plan], workers: int, device: torch.device) -> Iterator[Item]:
    """`read(plan)` for each of `plans`, in order, by `workers` processes (0: by this one, as they are asked for).

    A plan holds all that is random about its batch, so that nothing depends on who reads it. For a GPU, items come in pinned memory where they
    have a method `pin_memory`. What `read` raises comes as it is; raises SageError when a process is killed or has no shared memory left.
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
    # a handler of the loader would raise wherever this process is when one of the others dies; asked for the next item, it notices by itself
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    items = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return _received(items)
