"""Reading ahead: every plan once, in order, by however many processes, and a failure to read is a failure."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time

import pytest
import torch

from sage_edge.runtime.errors import DataError, SageError
from sage_edge.training.loading import ahead

CPU = torch.device("cpu")


def read(plan: int) -> tuple[int, int, torch.Tensor]:
    if plan < 0:
        raise ValueError(f"no plan {plan}")
    return plan, os.getpid(), torch.full((3,), float(plan))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_plans_are_read_in_order_by_others_where_there_are_some(workers, count):
    state = torch.random.get_rng_state()
    items = list(ahead(read, range(count), workers, CPU))
    assert torch.equal(state, torch.random.get_rng_state())
    assert [plan for plan, _, _ in items] == list(range(count))
    assert all(torch.equal(tensor, torch.full((3,), float(plan))) for plan, _, tensor in items)
    assert all((pid == os.getpid()) == (workers == 0) for _, pid, _ in items)
    assert len({pid for _, pid, _ in items}) == min(max(workers, 1), count)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_not_passed_over(workers):
    items = ahead(read, [0, -1, 2], workers, CPU)
    assert next(items)[0] == 0
    with pytest.raises(ValueError, match="no plan -1"):
        next(items)


def fail(error: Exception) -> None:
    raise error


class Untravelled(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [DataError("t0: damaged; prepare again"), OSError(errno.EIO, "Input/output error", "faces.npy")])
def test_an_error_is_the_same_one_line_whoever_reads(workers, error):
    with pytest.raises(type(error)) as caught:
        next(ahead(fail, [error], workers, CPU))
    assert str(caught.value) == str(error)
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(RuntimeError, match=r"^Untravelled: 1 and 2$"):
        next(ahead(lambda plan: fail(Untravelled(1, 2)), [0], 1, CPU))


def kill(plan: int) -> int:
    if plan:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    return plan


def test_a_killed_reader_is_one_line_where_its_item_is_asked_for_and_nowhere_else():
    items = ahead(kill, [0, 1], 1, CPU)
    assert next(items) == 0
    time.sleep(0.6)
    with pytest.raises(SageError, match=r"killed.*workers=0.*/dev/shm") as caught:
        next(items)
    assert "\n" not in str(caught.value)


def large(plan: int) -> list[torch.Tensor]:
    if plan:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return [torch.zeros(100_000)]


def test_a_reader_without_shared_memory_is_one_line():
    items = ahead(large, [0, 1], 1, CPU)
    assert len(next(items)[0]) == 100_000
    with pytest.raises(SageError, match=r"workers=0.*/dev/shm") as caught:
        next(items)
    assert "\n" not in str(caught.value)
