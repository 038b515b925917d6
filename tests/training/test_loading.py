"""Reading ahead: every plan once, in order, by however many processes, and a failure to read is a failure."""

from __future__ import annotations

import os

import pytest
import torch

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
