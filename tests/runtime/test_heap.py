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
    assert gc.get_threshold()[0] == given
    with pytest.raises(ValueError, match="it failed"), seldom_searched():
        raise ValueError("it failed")
    assert gc.get_threshold()[0] == given
