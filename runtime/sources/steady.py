"""Samples of a device whose clock drifts -> 16 kHz samples on this machine's clock, so that an hour of sound lasts an hour.

    steady = Steady(48_000)
    for event in steady.push(samples, start, time_ns): ...      # AudioEvents that touch; a gap in their stamps is a gap in the sound

soxr converts the nominal rate. What the device's clock is off by adds up until a sample lies more than `DEADBAND_NS` beside its place; then one
sample is put in or left out. A device that does not drift gives what plain soxr gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..ticks import NS_PER_S, SAMPLE_RATE_HZ
from . import AudioEvent
from .sound import StreamResampler

PERIOD_NS = NS_PER_S // SAMPLE_RATE_HZ
"""From one sample to the next: 62 500 ns, a whole number, so stamps never round."""
DEADBAND_NS = 500_000
"""A sample may lie this far beside its place before anything is done about it."""
LEAP_NS = 20_000_000
"""Further beside it than this is no drift: sound was lost, or comes again. (`Session` takes what lies closer as touching, too.)"""
BLOCK = 320
"""Samples from one look at the clock to the next, 20 ms: at most one slip in each, so up to 3125 ppm are taken out."""
RAMP = 32
"""Samples over which a slip fades from the one alignment to the other."""
_FADE = np.arange(1, RAMP + 1, dtype=np.float32) / np.float32(RAMP + 1)
_NOTHING = np.zeros(0, np.float32)

TimeOf = Callable[[int], int]
"""Index of a device sample -> its time, ns, on a line from one leap to the next. It may change its mind from call to call, slowly."""


class Steady:
    """One stream of one device at a time. Events start at whole multiples of `PERIOD_NS`, never before the end of the last one.

    Within `LEAP_NS` a sample is drawn to its place, at up to 3125 ppm, and then lies within 1 ms of the time that `time_ns` says. The result does
    not depend on how the samples were cut into pieces, as long as `time_ns` gives the same answers, and does not leap there and back within one.
    """

    def __init__(self, rate_hz: int) -> None:
        self.slips = 0
        """Samples put in or left out so far."""
        self.gaps = 0
        """Breaks so far: samples missing, leaps of the clock, what `cut` was told."""
        self.damaged = 0
        """Pieces with samples that were NaN or infinite; those became 0, before they could spread through the resampler."""
        self._next: int | None = None  # place on the grid of the next sample to be ready
        self._ready: list[NDArray[np.float32]] = []
        self._resampler: StreamResampler | None = None
        self._rate_hz = rate_hz
        # Of the stretch, from one break to the next:
        self._start = 0  # the device's index of its first sample
        self._due = 0  # the device's index of the next one
        self._taken = 0  # samples at 16 kHz that have left _held
        self._look = 0  # the one of them at which the clock is looked at next
        self._skip = 0  # samples that came again and are still to be left out
        self._held = _NOTHING

    def cut(self, rate_hz: int) -> list[AudioEvent]:
        """What comes next is a new stream, of `rate_hz`; gives the end of the old one."""
        events = self._finish()
        self._rate_hz = rate_hz
        return events

    def push(self, samples: NDArray[np.float32], start: int, time_ns: TimeOf) -> list[AudioEvent]:
        """Take float32 [n] mono, the device's samples from index `start` on. Mostly one event or none; two around a break."""
        if not len(samples):
            return []
        if not np.isfinite(samples).all():
            self.damaged += 1
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        events: list[AudioEvent] = []
        if self._resampler is not None and start != self._due:
            events += self._finish()
        if self._resampler is None:
            self._begin(start)
        assert self._resampler is not None
        self._due = start + len(samples)
        fresh = self._resampler.push(samples)
        if len(fresh):
            self._held = np.concatenate((self._held, fresh)) if len(self._held) else fresh
            events += self._release(time_ns)
        return events

    def _begin(self, start: int) -> None:
        self._resampler = StreamResampler(self._rate_hz)
        self._start = start
        self._taken = self._look = self._skip = 0
        self._held = _NOTHING

    def _finish(self) -> list[AudioEvent]:
        if self._resampler is None:
            return []
        rest = np.concatenate((self._held, self._resampler.finish()))
        self._resampler = None
        if self._next is None:  # so short that nobody was told when it was
            return []
        self.gaps += 1
        self._put(rest)
        return self._event()

    def _release(self, time_ns: TimeOf) -> list[AudioEvent]:
        events: list[AudioEvent] = []
        while len(self._held):
            late_ns = self._look_on(time_ns)
            self._move(min(len(self._held), self._look - self._taken))  # they belong where they are
            if not late_ns:
                continue
            if abs(late_ns) > LEAP_NS:
                events += self._leap(late_ns)
            elif len(self._held) > RAMP:
                self._slip(1 if late_ns > 0 else -1)
            else:
                break
            self._look += BLOCK
        return events + self._event()

    def _look_on(self, time_ns: TimeOf) -> int:
        """Look at the clock until a sample lies beside its place, or none is left to look at: how much later it was than that, or 0."""
        look, end = self._look, self._taken + len(self._held)
        last = look + (end - 1 - look) // BLOCK * BLOCK
        late_ns = 0
        if look < last and not self._beside(look, time_ns) and not self._beside(last, time_ns):
            look = last + BLOCK  # and none between, on a line
        while look < end:
            late_ns = self._beside(look, time_ns)
            if late_ns:
                break
            look += BLOCK
        self._look = look
        return late_ns

    def _beside(self, look: int, time_ns: TimeOf) -> int:
        """How much later sample `look` is than its place; 0 where that is no more than `DEADBAND_NS`."""
        whole, part = divmod(look * self._rate_hz, SAMPLE_RATE_HZ)
        t_ns = time_ns(self._start + whole)
        if part:
            t_ns += part * NS_PER_S // (SAMPLE_RATE_HZ * self._rate_hz)
        if self._next is None:
            self._next = round(t_ns / PERIOD_NS)
        late_ns = t_ns - (self._next - self._skip + look - self._taken) * PERIOD_NS
        return late_ns if abs(late_ns) > DEADBAND_NS else 0

    def _leap(self, late_ns: int) -> list[AudioEvent]:
        assert self._next is not None
        events = self._event()
        if self._taken:
            self.gaps += 1
        places = round(late_ns / PERIOD_NS) - self._skip
        self._skip = max(0, -places)
        self._next += max(0, places)
        return events

    def _slip(self, by: int) -> None:
        """Put in (1) or leave out (-1) a sample: the next `RAMP` fade from where the sound is to one sample before or after it."""
        self.slips += 1
        head = self._held[: RAMP + 1]
        if by > 0:
            self._put(np.concatenate((head[:1], head[1:] + (head[:-1] - head[1:]) * _FADE)))
            used = RAMP
        else:
            self._put(head[:-1] + (head[1:] - head[:-1]) * _FADE)
            used = RAMP + 1
        self._held = self._held[used:]
        self._taken += used

    def _move(self, n: int) -> None:
        self._put(self._held[:n])
        self._held = self._held[n:]
        self._taken += n

    def _put(self, samples: NDArray[np.float32]) -> None:
        skip = min(self._skip, len(samples))
        self._skip -= skip
        if len(samples) > skip:
            assert self._next is not None
            self._ready.append(samples[skip:])
            self._next += len(samples) - skip

    def _event(self) -> list[AudioEvent]:
        """What is ready, as one event."""
        if not self._ready:
            return []
        assert self._next is not None
        samples = self._ready[0] if len(self._ready) == 1 else np.concatenate(self._ready)
        self._ready = []
        return [AudioEvent((self._next - len(samples)) * PERIOD_NS, samples)]
