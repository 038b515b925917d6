"""Sound without Python: libsage's capture behind PortAudio's callback, and the clock that says when a sample was recorded."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native.handle import Handle, address, check
from sage_edge.runtime.native.library import CaptureStatistics, ClockState, load

SAMPLE_FORMATS = {"int16": 0, "float32": 1}
INPUT_UNDERFLOW, INPUT_OVERFLOW = 1, 2
"""Of the flags that `AudioCapture.feed` takes: PaStreamCallbackFlags."""


@dataclass(frozen=True)
class ClockFit:
    """`since`: the first sample that the present line holds for, those before it keep the line before it. `resets`: times that the line began
    anew, because arrivals jumped. `settled`: it rests on 10 s of arrivals without a reset. `drift_ppm`: how much faster than the nominal rate
    the samples come, as arrivals last told it to some ppm; None before (10 s to a minute, many minutes where they come in coarse steps)."""

    since: int
    resets: int
    settled: bool
    drift_ppm: float | None

    @staticmethod
    def of(state: ClockState) -> ClockFit:
        """From libsage's."""
        return ClockFit(state.since, state.resets, bool(state.settled), state.drift_ppb / 1000 if state.known else None)


@dataclass(frozen=True)
class CaptureStats:
    """Since the capture was made. Every number is right by itself; beside a running callback they may be of two calls.

    `samples` per channel, the index of the next one; `overruns` are those that nobody had read when newer ones took their place.
    `input_overflows` and `input_underflows` are calls with that flag of PortAudio. `last_call_ns` (CLOCK_MONOTONIC) and `longest_gap_ns`, between
    two calls, are 0 before the first; lateness is how long after the fitted time of its last sample a call came.
    """

    calls: int
    samples: int
    overruns: int
    input_overflows: int
    input_underflows: int
    last_call_ns: int
    longest_gap_ns: int
    lateness_p50_ns: int
    lateness_p99_ns: int


class SampleClock:
    """When a sample was recorded, fitted to arrivals that are late by a jitter and never early. One thread adds, any thread asks.

    The time is the true one plus the least delay of the device. The fitted line bends twice a second, without a step but for resets.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._handle = Handle("sage_clock_create", "sage_clock_destroy", rate_hz)
        self._pointer = self._handle.pointer

    def add(self, samples: int, t_ns: int) -> None:
        """`samples` had come, counted from the beginning, when the newest of them arrived at `t_ns`."""
        check(load().sage_clock_add(self._pointer, samples, t_ns), f"arrival of sample {samples} at {t_ns} ns")

    def time_ns(self, sample: int) -> int:
        """When `sample` begins, past or yet to come. NativeError before the first `add`."""
        t_ns = ctypes.c_int64()
        check(load().sage_clock_time(self._pointer, sample, ctypes.byref(t_ns)), f"time of sample {sample}")
        return t_ns.value

    def fit(self) -> ClockFit:
        """What is known of the line."""
        state = ClockState()
        check(load().sage_clock_read(self._pointer, ctypes.byref(state)), "state of the clock")
        return ClockFit.of(state)


class AudioCapture:
    """The newest `capacity` samples that a device gave, float32 mono by absolute index, with their times and counts.

    Hand `callback` and `pointer` to PortAudio as the stream's callback and its user data; the stream must be closed before the last reference to
    this object goes. `format` is "int16" or "float32", interleaved; channels are averaged, no input is silence. The callback runs without
    Python: it never allocates, locks or waits. One thread reads; everything else may be asked by any thread.
    """

    def __init__(self, format: str, channels: int, rate_hz: int, capacity: int) -> None:
        if format not in SAMPLE_FORMATS:
            raise NativeError(f"unknown sample format {format!r}: one of {', '.join(SAMPLE_FORMATS)}", -3)
        self.format, self.channels, self.rate_hz, self.capacity = format, channels, rate_hz, capacity
        self._handle = Handle("sage_capture_create", "sage_capture_destroy", SAMPLE_FORMATS[format], channels, rate_hz, capacity)
        self._pointer = self._handle.pointer
        self._time = partial(load().sage_capture_time, self._pointer)

    @property
    def callback(self) -> int:
        """Address of a PaStreamCallback."""
        return cast(int, ctypes.cast(load().sage_capture_callback, ctypes.c_void_p).value)

    @property
    def pointer(self) -> int:
        """Address of the capture: the callback's user data."""
        return cast(int, self._pointer.value)

    def feed(self, samples: NDArray[Any], t_ns: int, flags: int = 0) -> int:
        """What the callback does, with its time given: `samples` is int16 or float32 [n, channels], or [n] mono. Returns the overruns of this call.

        For sources that are no PortAudio and for simulated time; never beside a running callback.
        """
        shapes = ((len(samples), self.channels), (len(samples),)) if self.channels == 1 else ((len(samples), self.channels),)
        if samples.dtype != np.dtype(self.format) or samples.shape not in shapes:
            raise NativeError(f"feed of samples {samples.dtype} {samples.shape}: expected {self.format} [n, {self.channels}]")
        samples = np.ascontiguousarray(samples)
        return check(load().sage_capture_feed(self._pointer, address(samples), len(samples), flags, t_ns), "feed of samples")

    def read(self, start: int, out: NDArray[np.float32]) -> int:
        """Copy samples start .. start + n - 1 to `out` float32 [n]; what is not held is zero. Returns how many were held, as `AudioRing.read`."""
        if out.dtype != np.float32 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
            raise NativeError(f"read into {out.dtype} {out.shape}: expected writeable C-contiguous float32 [n]")
        return check(load().sage_capture_read(self._pointer, start, address(out), len(out)), f"read of samples from {start}")

    @property
    def written(self) -> int:
        """Samples that came so far: the index of the next one."""
        return check(load().sage_capture_written(self._pointer), "samples written")

    def time_ns(self, sample: int) -> int:
        """When `sample` begins, on CLOCK_MONOTONIC, as `SampleClock.time_ns`. NativeError before the first samples."""
        t_ns = ctypes.c_int64()
        if code := self._time(sample, ctypes.byref(t_ns)):
            check(code, f"time of sample {sample}")
        return t_ns.value

    def clock(self) -> ClockFit:
        """What is known of the samples' clock."""
        state = ClockState()
        check(load().sage_capture_clock(self._pointer, ctypes.byref(state)), "state of the clock")
        return ClockFit.of(state)

    def stats(self) -> CaptureStats:
        """The counts so far."""
        counts = CaptureStatistics()
        check(load().sage_capture_stats(self._pointer, ctypes.byref(counts)), "counts of the capture")
        return CaptureStats(
            *(counts.calls, counts.samples, counts.overruns, counts.input_overflows, counts.input_underflows),
            *(counts.last_call_ns, counts.longest_gap_ns, counts.lateness_p50_ns, counts.lateness_p99_ns),
        )
