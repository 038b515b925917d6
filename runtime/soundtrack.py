"""The sound of a session on the tick grid: chunks with stamps go in, a window of samples and its mask come out.

Samples are float32 mono, addressed by their index after the epoch. A chunk that follows the one before is appended, whatever its stamp says
within 20 ms; a gap becomes zeros with the mask off; what overlaps is dropped; NaN and infinity become 0. All of it is counted as breaks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .native import AudioRing
from .ticks import first_sample
from .timeline import Timeline

JITTER_NS = 20_000_000
_PIECE_NS = 100_000_000


class Soundtrack:
    """Keeps what a window of `window` ticks needs while the newest sound is at most `lag_ns` ahead of it. `samples`, float32 [S], is where windows
    are written, and nobody else writes there."""

    def __init__(self, timeline: Timeline, window: int, samples: NDArray[np.float32]) -> None:
        rate, sample_rate = timeline.rate_hz, timeline.sample_rate_hz
        self._time, self._window, self._samples = timeline, window, samples
        self._held = (0, 0)
        """The samples, from one index to another, that `samples` begins with as they came."""
        self._piece = max(1, timeline.sample_at(_PIECE_NS))
        self._jitter = timeline.sample_at(JITTER_NS)
        self._capacity = len(samples) + timeline.sample_at(timeline.lag_ns) + self._piece + 4 * (sample_rate // rate + 1)
        self._ring = AudioRing(self._capacity)
        self._edges = np.arange(window + 1, dtype=np.int64) * (2 * sample_rate) + rate
        self._gaps: list[tuple[int, int]] = []
        self.gaps = 0
        """Breaks in the sound so far."""
        self.overlaps = 0
        """Chunks whose beginning had come before."""
        self.samples_not_finite = 0
        """Samples that were NaN or infinite."""
        self.stretches_not_finite = 0
        """Stretches of such samples, however they were cut into chunks."""
        self._in_stretch = False

    def restart(self) -> None:
        """Forget all sound, for a timeline that was restarted; the counts go on."""
        self._ring = AudioRing(self._capacity)
        self._gaps, self._in_stretch, self._held = [], False, (0, 0)

    def append(self, samples: NDArray[np.float32], start: int) -> Iterator[None]:
        """Take float32 [n] whose first sample has index `start`; yields after every piece, before older samples are given up."""
        time = self._time
        first = time.samples < 0
        if not first and abs(start - time.samples) < self._jitter:
            start = time.samples
        if first:
            samples, start = samples[max(-start, 0) :], max(start, 0)
            if not len(samples):
                return
            time.samples = 0
            if start:
                yield from self._silence(start)
        elif start > time.samples:
            self.gaps += 1
            yield from self._silence(start)
        elif start < time.samples:
            self.overlaps += 1
            samples = samples[time.samples - start :]
        for at in range(0, len(samples), self._piece):
            piece = samples[at : at + self._piece]
            finite = np.isfinite(piece)
            if not finite.all():
                self.samples_not_finite += len(piece) - int(finite.sum())
                begins = ~finite & np.concatenate(([not self._in_stretch], finite[:-1]))
                self.stretches_not_finite += int(begins.sum())
                piece = np.where(finite, piece, np.float32(0))
            self._in_stretch = not finite[-1]
            self._ring.push(piece)
            time.samples += len(piece)
            yield

    def window(self, newest: int, mask: NDArray[np.float32]) -> bool:
        """Fill the samples and `mask` [W] (1 where all samples of the tick were received) for the window that ends with tick `newest`, from its
        first sample on. Where the mask is off, and behind the window, the samples are zeros. Returns whether any tick has sound.
        """
        rate, sample_rate, samples = self._time.rate_hz, self._time.sample_rate_hz, self._samples
        first = newest - self._window + 1
        start, end = first_sample(first, rate, sample_rate), first_sample(newest + 1, rate, sample_rate)
        if self._gaps:
            self._gaps = [gap for gap in self._gaps if gap[1] > start]
        if start >= 0 and end <= self._time.samples and not self._gaps:
            mask.fill(1)
            self._slide(start, min(end, start + len(samples)))
        else:
            self._held = (0, 0)
            edges = (self._edges + 2 * first * sample_rate) // (2 * rate)
            on = (edges[:-1] >= 0) & (edges[1:] <= self._time.samples)
            for low, high in self._gaps:
                on &= (edges[:-1] >= high) | (edges[1:] <= low)
            mask[:] = on
            if not on.any():
                samples.fill(0)
                return False
            self._ring.read(start, samples)
            changes = np.flatnonzero(np.diff(on, prepend=True, append=True))
            for low, high in (edges[changes] - start).reshape(-1, 2).tolist():
                samples[low:high] = 0
        samples[end - start :] = 0
        return True

    def _slide(self, start: int, end: int) -> None:
        """Samples `start` to `end` - 1; those that lie there from the window before are moved, which takes half of what fetching them does."""
        low, high = self._held
        kept = high - start if low <= start < high <= end else 0
        if kept:
            self._samples[:kept] = self._samples[start - low : high - low]
        if start + kept < end:
            self._ring.read(start + kept, self._samples[kept : end - start])
        self._held = (start, end)

    def _silence(self, end: int) -> Iterator[None]:
        """Zeros up to index `end`, marked as not received."""
        time = self._time
        self._in_stretch = False
        self._gaps.append((time.samples, end))
        while time.samples < end:
            n = min(self._piece, end - time.samples)
            self._ring.skip(n)
            time.samples += n
            yield
