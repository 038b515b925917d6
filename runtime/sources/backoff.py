"""How long to wait before a device that is gone is tried again: half a second at first, twice as long each time, ten at the most."""

from __future__ import annotations


class Backoff:
    """`next_s()` before each try; `reset()` when it has worked for a while."""

    def __init__(self, first_s: float = 0.5, most_s: float = 10.0) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Seconds to wait now; the next answer is twice as long."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return wait_s

    def reset(self) -> None:
        """Begin again with the first."""
        self._next_s = self._first_s
