"""What is measured beside the estimates, once a second: `notice.Status`, put together from the parts of a live loop."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from .clock import Clock
from .estimate import Drops
from .notice import Status
from .sinks import Sink
from .sources import Camera, Microphone
from .stages import Stages
from .thermal import Heat
from .ticks import NS_PER_S

MINUTE_NS = 60 * NS_PER_S
RSS_NS = 5 * NS_PER_S
"""So often memory is asked for: the kernel takes as long to say it as all else that is not of a stage."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StatusLine:
    """`stages` are those of the loop; what is said of them is of the minute that runs."""

    def __init__(self, clock: Clock, stages: Stages, camera: Camera | None, microphone: Microphone | None, sinks: Sequence[Sink]) -> None:
        self._clock, self._stages, self._camera, self._microphone, self._sinks = clock, stages, camera, microphone, sinks
        self._before = stages.copy()
        """What had been counted when the minute began."""
        now_ns = clock.now_ns()
        self._minute_ns = self._last_ns = now_ns
        self._rss_ns, self._rss_mb = now_ns, rss_mb()
        self._frames = 0 if camera is None else camera.counts.frames
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def line(self, drops: Drops, heat: Heat | None) -> Status:
        """The status now."""
        now_ns = self._clock.now_ns()
        elapsed_s = max(1e-9, (now_ns - self._last_ns) / NS_PER_S)
        status: Status = {
            **{"type": "status", "v": 1, "t_ns": now_ns},
            "stages": self._stages.to_dict(self._before),
            "drops": {"frames_stale": drops.frames_stale, "audio_overruns": drops.audio_overruns, "sinks": drops.sinks},
            "camera": self._of_camera(elapsed_s),
            "microphone": self._of_microphone(),
            "sinks": {sink.spec: counts(sink) for sink in self._sinks},
            "process": self._of_process(now_ns, heat),
        }
        self._last_ns = now_ns
        if now_ns - self._minute_ns >= MINUTE_NS:
            self._minute_ns = now_ns
            self._before = self._stages.copy()
        return status

    def _of_camera(self, elapsed_s: float) -> dict[str, Any] | None:
        camera = self._camera
        if camera is None:
            return None
        frames, self._frames = camera.counts.frames - self._frames, camera.counts.frames
        return {
            **{"uri": camera.uri, "state": camera.state, "asked": camera.asked, "granted": camera.granted},
            **{"frames": camera.counts.frames, "stale": camera.counts.stale, "reopened": camera.counts.reopened},
            "rate_hz": round(frames / elapsed_s, 1),
        }

    def _of_microphone(self) -> dict[str, Any] | None:
        microphone = self._microphone
        if microphone is None:
            return None
        return {
            **{"uri": microphone.uri, "state": microphone.state, "asked": microphone.asked, "granted": microphone.granted},
            **{"samples": microphone.counts.samples, "overruns": microphone.counts.overruns, "reopened": microphone.counts.reopened},
            "drift_ppm": _round(microphone.drift_ppm),
            "lateness_p99_ms": _round(getattr(microphone, "lateness_p99_ms", None)),
        }

    def _of_process(self, now_ns: int, heat: Heat | None) -> dict[str, Any]:
        if now_ns - self._rss_ns >= RSS_NS:
            self._rss_ns, self._rss_mb = now_ns, rss_mb()
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        share = (cpu_s - self._cpu_s) / max(1e-9, wall_s - self._wall_s)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return {"rss_mb": self._rss_mb, "cpu_percent": round(100 * share, 1), "temperature_c": _round(None if heat is None else heat.celsius)}


def counts(sink: Sink) -> dict[str, Any]:
    """What a sink behind a queue says of itself; one without has lost nothing."""
    found: dict[str, Any] = sink.counts() if hasattr(sink, "counts") else {"state": "live", "written": None, "dropped": 0, "queued": 0}
    return found


def rss_mb() -> float | None:
    """Memory that this process holds, MB; None where /proc does not say."""
    try:
        with open("/proc/self/statm", "rb") as stream:
            return round(int(stream.read().split()[1]) * _PAGE / 1e6, 1)
    except (OSError, IndexError, ValueError):
        return None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
