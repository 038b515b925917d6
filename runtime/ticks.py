"""The one clock: a uniform grid of ticks, shared by training, evaluation and the live session.

Tick k is at `k / rate_hz` seconds after the epoch. A window of W ticks that starts at tick s covers ticks s .. s + W - 1 and
the audio samples `[first_sample(s), first_sample(s) + window_samples(W))`. Times are int64 nanoseconds, everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 30
SAMPLE_RATE_HZ = 16_000
NS_PER_S = 1_000_000_000
MAX_FRAME_AGE_NS = 150_000_000
"""A tick takes the newest frame that is not older than this; else its visual mask is off (15 frames/s and one lost frame fit)."""
TOKEN_STRIDE = 320
"""Samples between two audio tokens."""
TOKEN_FIELD = 400
"""Samples that one audio token sees; its time is the middle of them."""


def first_sample(tick: int, rate_hz: int = RATE_HZ, sample_rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Index of the first audio sample of `tick`: floor(tick * sample_rate / rate + 0.5), in integers so that it never drifts."""
    return (2 * tick * sample_rate_hz + rate_hz) // (2 * rate_hz)


def window_samples(window: int, rate_hz: int = RATE_HZ, sample_rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Samples in a window of `window` ticks (160000 for 300 ticks at 30 Hz and 16 kHz)."""
    return first_sample(window, rate_hz, sample_rate_hz)


def tick_time_ns(tick: int, rate_hz: int = RATE_HZ) -> int:
    """Time of `tick` after the epoch, rounded to the nearest nanosecond."""
    return (2 * tick * NS_PER_S + rate_hz) // (2 * rate_hz)


def tick_at_or_after(t_ns: int, rate_hz: int = RATE_HZ) -> int:
    """The first tick whose time is not before `t_ns`."""
    k = t_ns * rate_hz // NS_PER_S
    while tick_time_ns(k, rate_hz) < t_ns:
        k += 1
    return k


def ticks_at_or_after(t_ns: NDArray[np.int64], rate_hz: int = RATE_HZ) -> NDArray[np.int64]:
    """`tick_at_or_after` of many times, int64 [n]."""
    k = t_ns * rate_hz // NS_PER_S
    late: NDArray[np.int64] = k + (_tick_times_ns(k, rate_hz) < t_ns)
    return late


def _tick_times_ns(tick: NDArray[np.int64], rate_hz: int) -> NDArray[np.int64]:
    times: NDArray[np.int64] = (2 * NS_PER_S * tick + rate_hz) // (2 * rate_hz)
    return times


def frames_of_ticks(frame_t_ns: NDArray[np.int64], n_ticks: int, rate_hz: int = RATE_HZ, max_age_ns: int = MAX_FRAME_AGE_NS) -> NDArray[np.int32]:
    """For each tick the index of the newest frame at or before it, -1 where that is older than `max_age_ns` or missing.

    `frame_t_ns` is ascending, int64 [F]; the result is int32 [n_ticks].
    """
    times = _tick_times_ns(np.arange(n_ticks, dtype=np.int64), rate_hz)
    newest = np.searchsorted(frame_t_ns, times, side="right") - 1
    age = times - frame_t_ns[np.maximum(newest, 0)] if len(frame_t_ns) else np.zeros(n_ticks, np.int64)
    return np.where((newest >= 0) & (age <= max_age_ns), newest, -1).astype(np.int32)


def token_weights(
    tokens: int, window: int, rate_hz: int = RATE_HZ, sample_rate_hz: int = SAMPLE_RATE_HZ, stride: int = TOKEN_STRIDE, field: int = TOKEN_FIELD
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Linear interpolation from audio tokens to ticks: (lower index int64 [window], weight of the upper neighbour float32 [window]).

    Token j is centred at (field / 2 + j * stride) samples (12.5 ms for WavLM); ticks outside the tokens take the nearest one.
    """
    position = np.array([(i * sample_rate_hz / rate_hz - field / 2) / stride for i in range(window)])
    position = np.clip(position, 0.0, tokens - 1)
    lower = np.minimum(np.floor(position), max(tokens - 2, 0)).astype(np.int64)
    return lower, (position - lower).astype(np.float32)


def rms_dbfs(samples: NDArray[np.float32]) -> float:
    """Level of `samples` in dB below full scale, at least -120 (silence or no samples)."""
    power = float(np.square(samples, dtype=np.float64).sum()) / len(samples) if len(samples) else 0.0
    return max(-120.0, 10.0 * math.log10(power)) if power > 0 else -120.0
