"""Memory that nobody uses and that the process keeps all the same."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

SELDOM = 10_000
"""So many more objects have come than gone before Python looks for some that hold each other."""


def give_back() -> None:
    """Let the system have what is free: glibc keeps it, in pieces, in as many pools as there were threads, and where engines come and go these grow
    by some hundred kB each time (soak with restarts: 6.5 MB an hour without this, 0.1 with it). Nothing where there is another allocator."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def seldom_searched() -> Iterator[None]:
    """Have Python look seldom for objects that hold each other: what goes on for weeks makes none, and looking for them took 3 percent of its time,
    2 ms at once. Where somebody wants it seldomer still, or never, or something else meanwhile, it stays so."""
    before = gc.get_threshold()
    if 0 < before[0] < SELDOM:
        gc.set_threshold(SELDOM, *before[1:])
    try:
        yield
    finally:
        if gc.get_threshold()[0] == SELDOM:
            gc.set_threshold(*before)
