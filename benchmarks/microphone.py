"""How late the sound callback runs: libsage's and one in Python, two streams of one microphone at once, the interpreter free and held.

A user-space PulseAudio with a pipe source plays noise; samples that are not where they belong, bit for bit, are counted as missing. Lateness is how
long after the fitted time of its last sample a callback ran; "held" holds the interpreter for 500 ms again and again, as does one long call
into a library does that does not let go of it.
"""

from __future__ import annotations

import ctypes
import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOLD_S = 0.5
FREE_S = 0.05
"""Between two holds, so that a callback in Python gets its turn."""
RATE_HZ = 16_000
_BLOCK = RATE_HZ // 50


class _InPython:
    """What people write: a callback that keeps a copy, here with the time at which it ran."""

    def __init__(self) -> None:
        import sounddevice

        self.pieces: list[NDArray[np.float32]] = []
        self.ran_ns: list[int] = []
        self.flags = 0
        self._stream = sounddevice.InputStream(
            device="pulse", samplerate=RATE_HZ, channels=1, dtype="float32", blocksize=_BLOCK, latency=0.1, callback=self._callback
        )
        self._stream.start()

    def _callback(self, samples: NDArray[np.float32], frames: int, times: object, flags: Any) -> None:
        self.ran_ns.append(time.monotonic_ns())
        self.pieces.append(samples[:, 0].copy())
        self.flags += bool(flags)

    def close(self) -> tuple[NDArray[np.float32], list[int]]:
        self._stream.close()
        return np.concatenate(self.pieces), self.ran_ns


class _InC:
    """libsage's callback, with room for all that comes."""

    def __init__(self, room_s: float) -> None:
        from sage_edge.runtime.native import AudioCapture
        from sage_edge.runtime.sources.portaudio import Recording, find_microphone

        self.capture = AudioCapture("float32", 1, RATE_HZ, round(room_s * RATE_HZ))
        self._recording = Recording(find_microphone("noise"), RATE_HZ, 1, self.capture)

    def close(self) -> NDArray[np.float32]:
        self._recording.close()
        samples = np.empty(self.capture.written, np.float32)
        self.capture.read(0, samples)
        return samples


def _late_ms(ran_ns: list[int]) -> list[float]:
    """What libsage counts for its own callback, for one in Python."""
    from sage_edge.runtime.native import SampleClock

    clock, late_ms = SampleClock(RATE_HZ), []
    for k, t_ns in enumerate(ran_ns, 1):
        if k > 1:
            late_ms.append(max(0.0, (t_ns - clock.time_ns(k * _BLOCK)) / 1e6))
        clock.add(k * _BLOCK, t_ns)
    return late_ms


def _missing(played: NDArray[np.int16], recorded: NDArray[np.float32]) -> int:
    """Samples of `played` that are not where they belong in `recorded`, counted from where most of them are."""
    levels = np.round(recorded * 32_768).astype(np.int64)
    best = len(played)
    for begin in range(0, len(played) - 64, RATE_HZ // 2):
        for k in np.flatnonzero(levels == played[begin]):
            if k >= begin and np.array_equal(levels[k : k + 64], played[begin : begin + 64]):
                found = levels[k - begin : k - begin + len(played)]
                best = min(best, len(played) - int((found == played[: len(found)]).sum()))
    return best


def _phase(pipe: Any, seconds: float, held: bool, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(statistics, losses) of both callbacks over `seconds`."""
    played = np.random.default_rng(seed).integers(-32_768, 32_768, round(seconds * RATE_HZ)).astype(np.int16)
    library, python = _InC(seconds + 40), _InPython()
    try:
        deadline_s = time.monotonic() + 30
        while library.capture.written < RATE_HZ or len(python.pieces) < 50:
            if time.monotonic() > deadline_s:
                raise SystemExit("microphone: no sound comes from the sound server; nothing was measured")
            time.sleep(0.01)
        pipe.play(played)
        hold, end_s = ctypes.PyDLL(None).usleep, time.monotonic() + seconds + 1.0
        while time.monotonic() < end_s:
            if held:
                hold(int(HOLD_S * 1e6))
            time.sleep(FREE_S)
        stats = library.capture.stats()
    finally:
        in_c = library.close()
        in_python, ran_ns = python.close()
    late_ms = _late_ms(ran_ns)
    figures = {
        "libsage": {"median": round(stats.lateness_p50_ns / 1e6, 2), "p99": round(stats.lateness_p99_ns / 1e6, 2), "n": stats.calls},
        "python": {"median": round(statistics.median(late_ms), 2), "p99": round(float(np.quantile(late_ms, 0.99)), 2), "n": len(ran_ns)},
    }
    losses = {
        "libsage": {"samples_missing": _missing(played, in_c), "overruns": stats.overruns, "longest_gap_ms": round(stats.longest_gap_ns / 1e6, 1)},
        "python": {"samples_missing": _missing(played, in_python), "overflow_flags": python.flags},
        "samples_played": len(played),
    }
    return figures, losses


def run(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """`variants`: {CALLBACK: {PHASE: {median, p99, n}}}, milliseconds of lateness; `ratios` of the 99th percentiles. `n` callbacks are 20 ms each."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))
    pulse = importlib.import_module("pulse")
    if pulse.MISSING:
        raise SystemExit(f"microphone: {pulse.NEEDED}")
    variants: dict[str, dict[str, Any]] = {"libsage": {}, "python": {}}
    losses, ratios = {}, {}
    with pulse.PulseServer() as server, server.microphone("noise", RATE_HZ) as pipe:
        from sage_edge.runtime.sources.portaudio import refresh

        refresh()
        for phase in ("free", "held"):
            figures, losses[phase] = _phase(pipe, n / 50, phase == "held", seed)
            for name, found in figures.items():
                variants[name][phase] = found
            ratios[f"{phase}_libsage_over_python"] = round(figures["python"]["p99"] / max(figures["libsage"]["p99"], 0.01), 2)
    notes = {
        "timed": "lateness of callbacks of 20 ms",
        "ratios": "of the 99th percentiles",
        "interpreter held": f"{HOLD_S:g} of every {HOLD_S + FREE_S:g} s",
    }
    return {"unit": "ms", "variants": variants, "ratios": ratios, "notes": {**notes, "losses": losses}}
