"""The visual rows of the last ticks: one window of features for each face that is followed, out of one block of memory.

Each tick holds the rows of its faces, largest first, and the numbers of their tracks. The window of a track is what these ticks hold of it; a tick
without it is masked off. So what a hop sees follows from the faces of its ticks alone, and nothing is made or given up when people come and go.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .engines.arrays import ALIGN
from .estimate import Face
from .native import FeatureWindow
from .native.handle import address

Seen = tuple[Face, int]
"""A face, and the time of its frame in ns after the epoch."""

_NOBODY = -(1 << 63)


class TrackWindows:
    """The newest `rows` ticks, for windows of `window` ticks and up to `most` faces. `features`, float32 [n, dim], is where a tick's lie when it
    takes them.

    With `joined`, all faces are one window, whatever their tracks; `most` is 1 then, and a window that was given stays as it is for another `window`
    ticks beyond `rows`.
    """

    def __init__(self, features: NDArray[np.float32], most: int, rows: int, window: int, joined: bool) -> None:
        self._dim = int(features.shape[1])
        rows += window if joined else 0
        self.rows, self._window, self._most, self._joined = rows, window, most, joined
        self._features = FeatureWindow(rows, most * self._dim)
        self.take = self._features.push_from(features)
        """`take(floats, at)`: so many floats of `features`, from face `at` on, as the row of the next tick, of those that were pushed."""
        self._every = np.arange(window)
        # as FeatureWindow does it: every row twice, so that the newest are one block
        self._numbers = np.full((2 * self.rows, most), _NOBODY, np.int64)
        self._mask = np.zeros(2 * self.rows, np.float32)  # of joined windows, which need no numbers
        self._marks = memoryview(self._mask.data if joined else self._numbers.reshape(-1).data)  # single numbers are written faster there
        self._seen: deque[tuple[Seen, ...]] = deque([()] * rows, maxlen=rows)
        self._at = 0

    def push(self, seen: tuple[Seen, ...]) -> int:
        """The next tick and its faces, largest first: how many floats it is to `take` before it is in a window."""
        most, marks, n, rows = self._most, self._marks, len(seen), self.rows
        at = self._at * most
        if self._joined:
            marks[at] = marks[at + rows] = 1 if n else 0
        else:
            for item in range(most):
                marks[at + item] = marks[at + item + rows * most] = seen[item][0].track if item < n else _NOBODY
        self._at = (self._at + 1) % rows
        self._seen.append(seen)
        return n * self._dim

    def clear(self) -> None:
        """Forget every tick."""
        self._features.skip(self.rows)
        self._numbers[:] = _NOBODY
        self._mask[:] = 0
        self._seen.extend([()] * self.rows)

    def fill(self, behind: int, visual: NDArray[np.float32], mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[Seen | None, ...]]:
        """The windows that end `behind` ticks before the newest: `visual` [most, W, dim], into which they were written, or features as they lie here,
        from a cache line on; fills `mask` [most, W].

        And the face of the last tick of each window: one for each face of that tick, in its order, or one None where it has no face; that window is
        then of the track that was seen last.
        """
        high = self.rows - behind
        low = high - self._window
        features, last = self._features.view()[low:high], self._seen[high - 1]
        if self._joined:
            mask[0] = self._mask[self._at + low : self._at + high]
            if address(features) % ALIGN:
                np.copyto(visual[0], features)
                return visual, last or (None,)
            return features[np.newaxis], last or (None,)
        numbers = self._numbers[self._at + low : self._at + high]
        by_face = features.reshape(self._window, self._most, self._dim)
        for item, track in enumerate([face.track for face, _ in last] or [self._last_seen(numbers)]):
            here = numbers == track
            there = here.any(axis=1)
            np.copyto(visual[item], by_face[self._every, here.argmax(axis=1)])
            visual[item, ~there] = 0
            mask[item] = there
        return visual, last or (None,)

    def _last_seen(self, numbers: NDArray[np.int64]) -> int | None:
        """The largest face of the last tick that has any."""
        ticks = np.flatnonzero(numbers[:, 0] != _NOBODY)
        return int(numbers[ticks[-1], 0]) if len(ticks) else None
