"""What happens beside the estimates, for the same sinks: `Notice` when something changes, a status line once a second.

{"type":"notice","v":1,"t_ns":...,"what":"camera_gone","detail":"v4l2:///dev/video0 gave no frame for 2.0 s; opening it again"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WHATS = (
    *("camera_open", "camera_stalled", "camera_gone", "camera_changed"),
    *("microphone_open", "microphone_stalled", "microphone_gone", "microphone_changed"),
    *("clock_jump", "ticks_skipped", "degraded", "recovered", "sink_failed", "sink_recovered"),
)
"""Every value of `Notice.what`."""


@dataclass(frozen=True)
class Notice:
    """One change, at `t_ns` of CLOCK_MONOTONIC. `what` is one of `WHATS`; `detail` is a line for people: fact, value, what is done about it."""

    t_ns: int
    what: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"type": "notice", "v": 1, "t_ns": self.t_ns, "what": self.what, "detail": self.detail}

    def to_json(self) -> str:
        """One line of JSON, without the line break."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


Status = dict[str, Any]
"""JSON types, once a second: {"type":"status","v":1,"t_ns":...,
 "stages":{NAME:{"count","mean","p50","p95","p99","max","total_s"}},            milliseconds, since the last minute began
 "drops":{"frames_stale","audio_overruns","sinks"},
 "camera":{"uri","state","asked","granted","frames","stale","reopened","rate_hz"} or null,
 "microphone":{"uri","state","asked","granted","samples","overruns","reopened","drift_ppm","lateness_p99_ms"} or null,
 "sinks":{SPEC:{"state","written","dropped","queued"}},
 "process":{"rss_mb","cpu_percent","temperature_c"}}; what cannot be read is null."""
