"""What goes on for weeks is seldom interrupted by a search for objects that hold each other, and leaves Python as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sage_edge.runtime.heap import SELDOM, seldom_searched


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("given", "meanwhile"), [(700, SELDOM), (SELDOM + 1, SELDOM + 1), (0, 0)], ids=["often", "seldomer", "never"])
def test_python_looks_seldom_and_then_as_it_did(given: int, meanwhile: int) -> None:
    gc.set_threshold(given, 11, 12)
    with seldom_searched():
        assert gc.get_threshold()[0] == meanwhile
    assert gc.get_threshold() == (given, 11, 12)
    with pytest.raises(ValueError, match="it failed"), seldom_searched():
        raise ValueError("it failed")
    assert gc.get_threshold()[0] == given


def test_two_at_a_time_leave_it_as_it_was_and_what_somebody_sets_meanwhile_stays() -> None:
    gc.set_threshold(700, 11, 12)
    first, second = seldom_searched(), seldom_searched()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 11, 12)
    with seldom_searched():
        gc.set_threshold(900, 11, 12)
    assert gc.get_threshold() == (900, 11, 12)
