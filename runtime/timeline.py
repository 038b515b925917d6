"""Which ticks are over: the watermark of two streams, in whole numbers only.

Times are int nanoseconds after the epoch (the session's time zero). A frame with stamp t says that no older frame is coming; sound up to
sample n says the same of sound. A tick is over when both streams have passed its end, when one has passed it by more than the greatest lag
while the other stays behind, or when `advance` said so. Only stamps count, never the time at which something was pushed.
"""

from __future__ import annotations

import operator

from .errors import UsageError
from .ticks import NS_PER_S, tick_at_or_after, tick_time_ns

_NEVER = -(1 << 62)
MAX_JUMP_NS = 3600 * NS_PER_S
"""A stamp further than this ahead of everything before it is a mistake of unit or clock."""


class Timeline:
    """Epoch and watermarks. `rate_hz` ticks and `sample_rate_hz` samples a second; `lag_ns` is how long one stream waits for the other."""

    def __init__(self, rate_hz: int, sample_rate_hz: int, lag_ns: int, t0_ns: int | None) -> None:
        self.rate_hz, self.sample_rate_hz, self.lag_ns = rate_hz, sample_rate_hz, lag_ns
        self.epoch_ns = None if t0_ns is None else _whole(t0_ns)
        self.video_ns = _NEVER
        """The newest frame."""
        self.advanced_ns = _NEVER
        self.samples = _NEVER
        """Samples received, as the index of the next one; gaps count."""

    def restart(self, t_ns: int) -> None:
        """Forget both streams; tick 0 becomes the first tick at or after `t_ns`, however far that is. Raises UsageError for what is no int."""
        t_ns = _whole(t_ns)
        if self.epoch_ns is None:
            self.epoch_ns = t_ns
        self.epoch_ns += tick_time_ns(tick_at_or_after(t_ns - self.epoch_ns, self.rate_hz), self.rate_hz)
        self.video_ns = self.advanced_ns = self.samples = _NEVER

    def relative(self, t_ns: int) -> int:
        """`t_ns` after the epoch; the first stamp ever becomes the epoch. Raises UsageError for what is no int and for a jump."""
        if type(t_ns) is not int:
            t_ns = _whole(t_ns)
        if self.epoch_ns is None:
            self.epoch_ns = t_ns
        relative = t_ns - self.epoch_ns
        if relative - self.video_ns > MAX_JUMP_NS and (ahead := relative - max(self.advanced_ns, self._audio_ns(), 0)) > MAX_JUMP_NS:
            raise UsageError(f"t_ns {t_ns} is {ahead / 1e9:.0f} s ahead of the session; stamps are nanoseconds of one clock for frames and sound")
        return relative

    def over(self) -> int:
        """How many ticks are over: 0 .. over - 1."""
        both = min(self.ended(self.video_ns), self.ended_samples(self.samples))
        alone = self.ended(max(self.video_ns, self._audio_ns()) - self.lag_ns)
        return max(both, alone, self.ended(self.advanced_ns))

    def final(self) -> int:
        """How many ticks there are if nothing more comes: up to the first at or after the last frame, the last with all its sound, and
        the last that was advanced over."""
        return max(self.begun(self.video_ns) + 1 if self.video_ns > _NEVER else 0, self.ended_samples(self.samples), self.ended(self.advanced_ns), 0)

    def ended(self, ns: int) -> int:
        """How many ticks have ended by `ns`, a tick ending where the next begins: the greatest n with tick_time_ns(n) <= ns."""
        return ((2 * ns + 1) * self.rate_hz - 1) // (2 * NS_PER_S)

    def begun(self, ns: int) -> int:
        """How many ticks lie before `ns`, at least 0: they cannot take a frame of that time any more."""
        begun = ((2 * ns - 1) * self.rate_hz - 1) // (2 * NS_PER_S) + 1  # ended(ns - 1) + 1
        return begun if begun > 0 else 0

    def ended_samples(self, samples: int) -> int:
        """How many ticks have all their samples before index `samples`: the greatest n with first_sample(n) <= samples."""
        return ((2 * samples + 1) * self.rate_hz - 1) // (2 * self.sample_rate_hz)

    def sample_at(self, ns: int) -> int:
        """The sample index nearest to `ns`."""
        return (2 * ns * self.sample_rate_hz + NS_PER_S) // (2 * NS_PER_S)

    def _audio_ns(self) -> int:
        return self.samples * NS_PER_S // self.sample_rate_hz if self.samples > _NEVER else _NEVER


def _whole(t_ns: object) -> int:
    try:
        return operator.index(t_ns)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"a time is {t_ns!r}, must be a whole number of nanoseconds: int(seconds * 1e9)") from None
