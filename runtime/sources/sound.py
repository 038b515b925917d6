"""The sound of a media file as float32 mono at 16 kHz, in chunks of equal size, with exact stamps.

Channels are mixed by weights that depend on where the speakers stand, rates converted by soxr in a stream (its output is aligned with its
input: a click stays where it was). Result and stamps do not depend on how the file cuts its sound into packets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..ticks import NS_PER_S, SAMPLE_RATE_HZ
from . import AudioEvent

if TYPE_CHECKING:
    import soxr

CHUNK = 320
"""Samples in an event, 20 ms; the last one before a gap or the end may be shorter."""

JUMP_S = Fraction(15, 1000)
"""Stamps that differ by more than this from the count of samples are a gap or an overlap (the shortest packets in use are 20 ms);
less is jitter of the container."""

_WEIGHTS = {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "LFE": 0.0, "LFE2": 0.0, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5, "BC": 0.5}
_UNSAID = {6: ("FL", "FR", "FC", "LFE", "BL", "BR"), 8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")}
"""Where the channels stand when a file does not say: the order of WAV."""


class StreamResampler:
    """Mono samples at `from_hz` in pieces of any size -> the same sound at `to_hz`, in step with the input.

    After `finish`, round(n * to_hz / from_hz) samples have come out for n put in, the same whatever the pieces were.
    """

    def __init__(self, from_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> None:
        self._soxr: soxr.ResampleStream | None = None
        if from_hz != to_hz:
            import soxr

            self._soxr = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """What comes out after `samples`, float32 [n] each; often none at first."""
        if self._soxr is None:
            return samples
        resampled: NDArray[np.float32] = self._soxr.resample_chunk(samples)
        return resampled

    def finish(self) -> NDArray[np.float32]:
        """What was still inside; the resampler is used up."""
        if self._soxr is None:
            return np.zeros(0, np.float32)
        resampled: NDArray[np.float32] = self._soxr.resample_chunk(np.zeros(0, np.float32), last=True)
        return resampled


class Segment:
    """Sound without a gap: input at `rate_hz` from `start_s` on, output in events of `CHUNK` samples not before `floor_s`."""

    def __init__(self, start_s: Fraction, rate_hz: int, floor_s: Fraction) -> None:
        self.start_s, self.rate_hz = start_s, rate_hz
        self._resampler = StreamResampler(rate_hz)
        self._fed = 0
        self._skip = max(0, math.ceil((floor_s - start_s) * SAMPLE_RATE_HZ))
        self._at = self._skip  # index, at 16 kHz from start_s, of the first sample not yet emitted
        self._rest: list[NDArray[np.float32]] = []
        self._held = 0

    @property
    def due_s(self) -> Fraction:
        """Time of the next input sample."""
        return self.start_s + Fraction(self._fed, self.rate_hz)

    @property
    def end_s(self) -> Fraction:
        """Time of the first sample not yet emitted."""
        return self.start_s + Fraction(self._at, SAMPLE_RATE_HZ)

    def push(self, samples: NDArray[np.float32]) -> Iterator[AudioEvent]:
        self._fed += len(samples)
        self._take(self._resampler.push(samples))
        if self._held >= CHUNK:
            yield from self._emit(self._held - self._held % CHUNK)

    def finish(self) -> Iterator[AudioEvent]:
        self._take(self._resampler.finish())
        yield from self._emit(self._held)

    def _take(self, samples: NDArray[np.float32]) -> None:
        cut = min(self._skip, len(samples))
        self._skip -= cut
        self._rest.append(samples[cut:])
        self._held += len(samples) - cut

    def _emit(self, count: int) -> Iterator[AudioEvent]:
        joined = np.concatenate(self._rest)
        self._rest, self._held = [joined[count:].copy()], len(joined) - count
        for at in range(0, count, CHUNK):
            chunk = joined[at : min(at + CHUNK, count)]
            t_ns = round(self.end_s * NS_PER_S)
            self._at += len(chunk)
            yield AudioEvent(t_ns, chunk)


def sound_events(frames: Iterator[Any], origin_s: Fraction, damaged: Callable[[], None]) -> Iterator[AudioEvent]:
    """Decoded audio frames -> events in ascending order. Time zero is `origin_s` on the file's clock; what lies before it is left out.

    A jump of the stamps by more than `JUMP_S`, or another rate, starts a new segment; sound that would lie before the end of the last one is
    dropped.
    """
    segment: Segment | None = None
    for frame in _trim_last(frames):
        samples = mono(frame)
        if not np.isfinite(samples).all():
            damaged()
            samples = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
        rate_hz = int(frame.sample_rate)
        t_s = None if frame.pts is None else frame.pts * frame.time_base - origin_s
        if segment is not None and (segment.rate_hz != rate_hz or (t_s is not None and abs(t_s - segment.due_s) > JUMP_S)):
            t_s = segment.due_s if t_s is None else t_s
            yield from segment.finish()
            segment = Segment(t_s, rate_hz, segment.end_s)
        elif segment is None:
            segment = Segment(-origin_s if t_s is None else t_s, rate_hz, Fraction(0))
        yield from segment.push(samples)
    if segment is not None:
        yield from segment.finish()


def mono(frame: Any) -> NDArray[np.float32]:
    """One av.AudioFrame of any sample format and layout -> float32 [n]. The weights sum to 1; the bass channel is left out."""
    names = [channel.name for channel in frame.layout.channels]
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(names)).T
    if array.dtype == np.uint8:
        array = (array.astype(np.float32) - 128.0) / 128.0
    elif array.dtype.kind == "i":
        array = array.astype(np.float32) / float(2 ** (8 * array.dtype.itemsize - 1))
    if len(array) == 1:
        return np.ascontiguousarray(array[0], np.float32)
    if not any(name in _WEIGHTS for name in names):
        names = list(_UNSAID.get(len(names), names))
    weights = np.array([_WEIGHTS.get(name, 1.0) for name in names], np.float32)
    mixed: NDArray[np.float32] = (weights / weights.sum()) @ array.astype(np.float32)
    return mixed


class _Cut:
    """An audio frame of which only the first samples count."""

    def __init__(self, frame: Any, samples: int) -> None:
        self._frame, self._samples = frame, samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)

    def to_ndarray(self) -> NDArray[Any]:
        array: NDArray[Any] = self._frame.to_ndarray()
        per_sample = 1 if self._frame.format.is_planar else len(self._frame.layout.channels)
        return array[:, : self._samples * per_sample]


def _trim_last(frames: Iterator[Any]) -> Iterator[Any]:
    # Codecs of fixed frame length pad the end; MP4 says in the last duration how much of it is sound.
    last = None
    for frame in frames:
        if last is not None:
            yield last
        last = frame
    if last is None:
        return
    ticks = getattr(last, "duration", None)
    if ticks and last.time_base * last.sample_rate <= 1:  # only a clock as fine as the samples can say so exactly
        samples = round(ticks * last.time_base * last.sample_rate)
        if samples < last.samples:
            last = _Cut(last, samples)
    yield last
