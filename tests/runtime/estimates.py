"""Lines of a run for tests of what becomes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from sage_edge.runtime.estimate import AudioLevel, Drops, Estimate, Face, Live, Reliability, Smooth
from sage_edge.runtime.notice import Notice, Status

HELLO = {"type": "hello", "v": 1}
FULL_HELLO: dict[str, Any] = {
    **HELLO,
    "model": {"name": "sage", "preset": "tiny", "revision": "abc", "reliability": "modality"},
    "trained_on": {"name": "synthetic", "synthetic": True},
    **{"precision": "int8", "backend": "onnxruntime", "window": 300, "hop": 15, "version": "0.1.0"},
}
SEEN = Estimate(
    t_ns=466_666_667,
    age_ms=12.345,
    valence=0.1234567,
    arousal=-0.5,
    reliability=Reliability(0.9, 0.64, 0.36),
    face=Face(2, (10.04, 20.0, 96.0, 96.0), 0.97),
    audio=AudioLevel(-31.04, True),
    drops=Drops(3, 1, 0),
    trail=((433_333_333, 0.1, -0.4), (466_666_667, 0.1234567, -0.5)),
)
UNSEEN = Estimate(966_666_667, None, 0.0, 0.0, Reliability(0.0, None, None), None, AudioLevel(-120.0, False), Drops(), ((966_666_667, 0.0, 0.0),))
LIVE = dataclasses.replace(SEEN, smooth=Smooth(0.11, -0.49), live=Live(63.1, 21.0, -12.5, "live", "stalled", 2, 15, "hot"))
NOTICE = Notice(500_000_000, "camera_gone", "camera:0 gave no frame for 2.0 s; opening it again")
_TIMES = {"count": 30, "mean": 1.5, "p50": 1.25, "p95": 2.5, "p99": 4.0, "max": 5.0, "total_s": 0.045}
STATUS: Status = {
    **{"type": "status", "v": 1, "t_ns": 600_000_000},
    "stages": {"visual": _TIMES, "audio": {**_TIMES, "p50": 12.0}},
    "drops": {"frames_stale": 7, "audio_overruns": 2, "sinks": 5},
    "camera": {
        **{"uri": "camera:0", "state": "live", "asked": {}, "granted": {}},
        **{"frames": 900, "stale": 7, "reopened": 1, "rate_hz": 29.97},
    },
    "microphone": {
        **{"uri": "mic:default", "state": "gone", "asked": {}, "granted": None},
        **{"samples": 480_000, "overruns": 2, "reopened": 3, "drift_ppm": -12.5, "lateness_p99_ms": 3.0},
    },
    "sinks": {
        "jsonl:-": {"state": "live", "written": 40, "dropped": 0, "queued": 0},
        'csv:a "b"': {**dict.fromkeys(("written", "dropped", "queued"), 5), "state": "slow"},
    },
    "process": {"rss_mb": 160.0, "cpu_percent": 12.5, "temperature_c": None},
}


def at(t_ns: int) -> Estimate:
    """An estimate that is known by its time."""
    return dataclasses.replace(SEEN, t_ns=t_ns)
