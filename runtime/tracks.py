"""The visual rows of the last ticks: one window of features for each face that is followed, out of one block of memory.

Each tick holds the rows of its faces, largest first, and the numbers of their tracks. The window of a track is what these ticks hold of it; a tick
without it is masked off. So what a hop sees follows from the faces of its ticks alone, and nothing is made or given up when people come and go.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .estimate import Face
from .native import FeatureWindow

Seen = tuple[Face, int]
"""A face, and the time of its frame in ns after the epoch."""

_NOBODY = -(1 << 63)


class TrackWindows:
    """The newest `rows` ticks, for windows of `window` ticks. `features`, float32 [most, dim], is where a tick's lie when it is pushed.

    With `joined`, all faces are one window, whatever their tracks; `most` is 1 then.
    """

    def __init__(self, features: NDArray[np.float32], rows: int, window: int, joined: bool) -> None:
        most, self._dim = features.shape
        self.rows, self._window, self._most, self._joined = rows, window, most, joined
        self._features = FeatureWindow(rows, features.size)
        self._push = self._features.push_from(features)
        self._every = np.arange(window)
        # as FeatureWindow does it: every row twice, so that the newest are one block
        self._numbers = np.full((2 * rows, most), _NOBODY, np.int64)
        self._flat = memoryview(self._numbers.reshape(-1).data)  # single numbers are written faster there
        self._seen: deque[tuple[Seen, ...]] = deque([()] * rows, maxlen=rows)
        self._at = 0

    def push(self, seen: tuple[Seen, ...]) -> None:
        """The next tick and its faces, largest first; the features of so many are taken."""
        most, numbers, n = self._most, self._flat, len(seen)
        at = self._at * most
        for item in range(most):
            numbers[at + item] = numbers[at + item + self.rows * most] = seen[item][0].track if item < n else _NOBODY
        self._push(n * self._dim)
        self._at = (self._at + 1) % self.rows
        self._seen.append(seen)

    def clear(self) -> None:
        """Forget every tick."""
        self._features.skip(self.rows)
        self._numbers[:] = _NOBODY
        self._seen.extend([()] * self.rows)

    def fill(self, behind: int, visual: NDArray[np.float32], mask: NDArray[np.float32]) -> tuple[Seen | None, ...]:
        """Write the windows that end `behind` ticks before the newest into `visual` [most, W, dim] and `mask` [most, W].

        Returns the face of the last tick of each window that was written: one for each face of that tick, in its order, or one None where it has no
        face; that window is then of the track that was seen last.
        """
        high = self.rows - behind
        low = high - self._window
        features, numbers = self._features.view()[low:high], self._numbers[self._at + low : self._at + high]
        last = self._seen[high - 1]
        if self._joined:
            np.copyto(visual[0], features)
            np.not_equal(numbers[:, 0], _NOBODY, out=mask[0], casting="unsafe")
            return last or (None,)
        by_face = features.reshape(self._window, self._most, self._dim)
        for item, track in enumerate([face.track for face, _ in last] or [self._last_seen(numbers)]):
            here = numbers == track
            there = here.any(axis=1)
            np.copyto(visual[item], by_face[self._every, here.argmax(axis=1)])
            visual[item, ~there] = 0
            mask[item] = there
        return last or (None,)

    def _last_seen(self, numbers: NDArray[np.int64]) -> int | None:
        """The largest face of the last tick that has any."""
        ticks = np.flatnonzero(numbers[:, 0] != _NOBODY)
        return int(numbers[ticks[-1], 0]) if len(ticks) else None
