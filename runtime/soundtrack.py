"""The sound of a session on the tick grid: chunks with stamps go in, a window of samples and its mask come out.

Samples are float32 mono, addressed by their index after the epoch. A chunk that follows the one before is appended, whatever its stamp says
within 20 ms; a gap becomes zeros with the mask off; what overlaps is dropped; NaN and infinity become 0. All of it is counted as breaks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .engines.arrays import ALIGN, aligned_zeros
from .ticks import first_sample
from .timeline import Timeline

JITTER_NS = 20_000_000
_PIECE_NS = 500_000_000
_LINE = ALIGN // np.dtype(np.float32).itemsize


class Soundtrack:
    """Keeps what a window of `window` ticks needs while the newest sound is at most `lag_ns` ahead of it, and a window that was given for as long as
    another ahead of that. `samples`, float32 [S], is where windows are put together that cannot be read where they lie."""

    def __init__(self, timeline: Timeline, window: int, samples: NDArray[np.float32]) -> None:
        rate, sample_rate = timeline.rate_hz, timeline.sample_rate_hz
        self._time, self._window, self._samples = timeline, window, samples
        self._piece = max(1, timeline.sample_at(_PIECE_NS))
        self._jitter = timeline.sample_at(JITTER_NS)
        capacity = 2 * len(samples) + timeline.sample_at(timeline.lag_ns) + self._piece + 4 * (sample_rate // rate + 1)
        # twice, one behind the other: any stretch of the newest samples is one block; what lies before the first of all is zeros
        self._ring = aligned_zeros((2, -(-capacity // _LINE) * _LINE), np.dtype(np.float32))
        self._flat = self._ring.reshape(-1)
        self._edges = np.arange(window + 1, dtype=np.int64) * (2 * sample_rate) + rate
        self._gaps: list[tuple[int, int]] = []
        self._mute = 0
        """Up to here sound belongs to a tick that a gap has a part of."""
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
        """Forget all sound, for a timeline that was restarted; the counts go on. No window that was given may be read any more."""
        self._ring[:] = 0
        self._gaps, self._mute, self._in_stretch = [], 0, False

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
            if time.samples < self._mute:
                piece = np.where(np.arange(time.samples, time.samples + len(piece)) < self._mute, np.float32(0), piece)
            self._push(piece, len(piece))
            yield

    def window(self, newest: int, mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
        """The samples of the window that ends with tick `newest`, float32 [S], from its first one on, and whether any tick has sound; fills `mask`
        [W], 1 where all samples of the tick were received. Where the mask is off, and behind the window, the samples are zeros.

        Most windows are not copied: they are sound as it lies here, from a cache line on.
        """
        rate, sample_rate, samples = self._time.rate_hz, self._time.sample_rate_hz, self._samples
        first = newest - self._window + 1
        start, end = first_sample(first, rate, sample_rate), first_sample(newest + 1, rate, sample_rate)
        if self._gaps:
            self._gaps = [gap for gap in self._gaps if gap[1] > start]
        place = start % self._ring.shape[1]
        heard, whole = self._flat[place : place + len(samples)], end <= self._time.samples
        if whole and not self._gaps:
            mask[: max(0, -first)] = 0
            mask[max(0, -first) :] = 1
        else:
            edges = (self._edges + 2 * first * sample_rate) // (2 * rate)
            on = (edges[:-1] >= 0) & (edges[1:] <= self._time.samples)
            for low, high in self._gaps:
                on &= (edges[:-1] >= high) | (edges[1:] <= low)
            mask[:] = on
            if not on.any():
                samples.fill(0)
                return samples, False
        if whole and place % _LINE == 0 and end - start == len(samples):
            return heard, True
        np.copyto(samples, heard)
        if not whole:
            samples[max(0, first_sample(self._time.ended_samples(self._time.samples), rate, sample_rate) - start) :] = 0
        samples[end - start :] = 0
        return samples, True

    def _silence(self, end: int) -> Iterator[None]:
        """Zeros up to index `end`, marked as not received, and for what there is of the ticks at both ends, which nobody hears."""
        time = self._time
        rate, sample_rate = time.rate_hz, time.sample_rate_hz
        self._in_stretch = False
        self._gaps.append((time.samples, end))
        first, last = time.ended_samples(time.samples), time.ended_samples(end)
        self._mute = first_sample(last, rate, sample_rate)
        if self._mute < end:
            self._mute = first_sample(last + 1, rate, sample_rate)
        before = time.samples - first_sample(first, rate, sample_rate)
        time.samples -= before
        self._push(0, before)
        while time.samples < end:
            n = min(self._piece, end - time.samples)
            self._push(0, n)
            yield

    def _push(self, samples: NDArray[np.float32] | int, n: int) -> None:
        """The next `n` samples; a piece of them at most."""
        place = self._time.samples % self._ring.shape[1]
        before = min(n, self._ring.shape[1] - place)
        if before == n:
            self._ring[:, place : place + n] = samples
        else:
            self._ring[:, place:] = samples if isinstance(samples, int) else samples[:before]
            self._ring[:, : n - before] = samples if isinstance(samples, int) else samples[before:]
        self._time.samples += n
