"""Capture and clock through ctypes: what a device gives is what is read, its times survive drift, jitter and jumps, and the callback is plain C."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import INPUT_OVERFLOW, INPUT_UNDERFLOW, AudioCapture, SampleClock

MS = 1_000_000


@settings(max_examples=50, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 3000), max_size=8),
    channels=st.integers(1, 4),
    format=st.sampled_from(["int16", "float32"]),
    seed=st.integers(0, 9),
)
def test_what_is_fed_is_what_is_read(chunks: list[int], channels: int, format: str, seed: int) -> None:
    random, total = np.random.default_rng(seed), sum(chunks)
    given_samples = random.integers(-32768, 32768, (total, channels)).astype(np.int16)
    if format == "float32":
        given_samples = (given_samples / np.float32(7919)).astype(np.float32)
    capture, at = AudioCapture(format, channels, 48000, max(1, total)), 0
    for chunk in chunks:
        assert capture.feed(given_samples[at : at + chunk], at * 20_000) == 0
        at += chunk
    out = np.full(total, np.nan, np.float32)
    assert capture.read(0, out) == total == capture.written
    expected = given_samples.astype(np.float64).mean(1) / (32768 if format == "int16" else 1)
    assert np.allclose(out, expected, rtol=1e-6, atol=1e-7)
    if channels == 1:
        assert np.array_equal(out, expected.astype(np.float32))


def test_callback_is_called_as_portaudio_would() -> None:
    capture, out = AudioCapture("int16", 2, 16000, 16000), np.empty(160, np.float32)
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p)(
        capture.callback
    )
    samples = np.arange(320, dtype=np.int16)
    before_ns = time.monotonic_ns()
    assert call(samples.ctypes.data, None, 160, None, INPUT_OVERFLOW, capture.pointer) == 0
    after_ns = time.monotonic_ns()
    stats = capture.stats()
    assert before_ns <= stats.last_call_ns <= after_ns
    assert capture.time_ns(160) == stats.last_call_ns
    assert call(None, None, 40, None, INPUT_UNDERFLOW, capture.pointer) == 0
    stats = capture.stats()
    assert (stats.calls, stats.samples, stats.input_overflows, stats.input_underflows, stats.overruns) == (2, 200, 1, 1, 0)
    assert capture.read(40, out) == 160
    assert np.array_equal(out[:120], (np.arange(40, 160) * 2 + 0.5).astype(np.float32) / 32768)
    assert not out[120:].any(), "no input is silence"


@pytest.mark.parametrize("drift_ppm", [-200, 0, 35, 200])
def test_drift_is_found_and_taken_out(drift_ppm: float) -> None:
    random, rate_hz, chunk = np.random.default_rng(3), 44_100, 882
    clock, period_ns = SampleClock(rate_hz), 1e9 / (rate_hz * (1 + drift_ppm / 1e6))
    off_ns = 0.0
    for k in range(1, 50 * 120):
        clock.add(k * chunk, round(k * chunk * period_ns + random.uniform(0, 10) * MS))
        if k > 50 * 10:
            off_ns = max(off_ns, abs(clock.time_ns(k * chunk) - k * chunk * period_ns))
    fit = clock.fit()
    assert off_ns < 5 * MS
    assert fit.settled
    assert (fit.resets, fit.since) == (0, 0)
    assert fit.drift_ppm == pytest.approx(drift_ppm, abs=40)


def test_lost_samples_begin_a_new_line_where_they_were_lost() -> None:
    capture, chunk = AudioCapture("int16", 1, 16000, 16000), np.zeros(320, np.int16)
    for k in range(1, 601):
        capture.feed(chunk, k * 20 * MS)
    before_ns, lost_at = capture.time_ns(500 * 320), capture.written
    assert capture.clock().settled
    for k in range(601, 661):
        capture.feed(chunk, k * 20 * MS + 250 * MS)
    clock = capture.clock()
    assert (clock.since, clock.resets, clock.settled) == (lost_at, 1, False)
    assert clock.drift_ppm == pytest.approx(0, abs=0.1), "known from before"
    assert capture.time_ns(500 * 320) == pytest.approx(before_ns, abs=MS)
    assert capture.time_ns(lost_at) - capture.time_ns(lost_at - 320) == pytest.approx(270 * MS, abs=MS)
    assert capture.stats().longest_gap_ns == 270 * MS


def test_lateness_is_that_of_the_calls() -> None:
    capture, chunk = AudioCapture("float32", 1, 16000, 16000), np.zeros(320, np.float32)
    for k in range(1, 1001):
        capture.feed(chunk, k * 20 * MS + (15 * MS if k % 20 == 0 else 0))
    stats = capture.stats()
    assert stats.lateness_p50_ns < 100_000
    assert stats.lateness_p99_ns == pytest.approx(15 * MS, rel=0.02)
    assert stats.overruns == 1000 * 320 - 16000


def test_wrong_use() -> None:
    with pytest.raises(NativeError, match="unknown sample format 'int24': one of int16, float32"):
        AudioCapture("int24", 1, 16000, 100)
    with pytest.raises(NativeError, match="SAGE_E_SIZE"):
        AudioCapture("int16", 0, 16000, 100)
    with pytest.raises(NativeError, match="SAGE_E_SIZE"):
        SampleClock(3)
    capture = AudioCapture("int16", 2, 16000, 100)
    for samples in (np.zeros(4, np.int16), np.zeros((4, 1), np.int16), np.zeros((4, 2), np.float32)):
        with pytest.raises(NativeError, match=r"expected int16 \[n, 2\]"):
            capture.feed(samples, 0)
    with pytest.raises(NativeError, match="nothing has come yet") as caught:
        capture.time_ns(0)
    assert caught.value.code == -7
    assert capture.clock().drift_ppm is None
    with pytest.raises(NativeError, match="C-contiguous"):
        capture.read(0, np.zeros(6, np.float32)[::2])
    clock = SampleClock(16000)
    clock.add(320, 0)
    with pytest.raises(NativeError, match="arrival of sample 319"):
        clock.add(319, 0)
