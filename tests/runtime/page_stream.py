"""A stream to show on the page: real `Estimate`s, status lines and notices, as a live loop makes them, with faces that wander."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from sage_edge.runtime.estimate import AudioLevel, Drops, Estimate, Face, Live, Reliability
from sage_edge.runtime.notice import Notice, Status
from sage_edge.runtime.smooth_tracks import SmoothTracks
from sage_edge.runtime.smoothing import Smoothing
from sage_edge.runtime.ticks import NS_PER_S

HOP = 15
HOP_NS = HOP * NS_PER_S // 30


def hello(**changes: Any) -> dict[str, Any]:
    return {
        **{"type": "hello", "v": 1, "model": {"name": "sage", "preset": "tiny", "revision": "0123456789ab", "reliability": "modality"}},
        **{"trained_on": {"name": "synthetic, 60 people", "synthetic": True}, "bundle": "0" * 64, "precision": "int8", "backend": "onnxruntime"},
        **{"auto": None, "rungs": None, "threads": 2, "window": 300, "hop": HOP, "rate_hz": 30, "sample_rate_hz": 16000, "warm_up_ms": 10000},
        **{"version": "0.1.0", "smooth": {"kind": "one-euro", "min_cutoff_hz": 0.5, "beta": 1.0, "by_track": True}, "budget_ms": 500},
        **{"camera": "v4l2:///dev/video0", "microphone": "mic:default", "faces": "largest", "finder": "cascade", **changes},
    }


class Stream:
    """Hops that end at `now_ns`, `faces` tracks in each; `away` is a share of time without any face."""

    def __init__(self, faces: int = 1, live: bool = True, temporal: bool = False) -> None:
        self._faces, self._live, self._temporal = faces, live, temporal
        self._smooth = SmoothTracks(Smoothing.parse("one-euro"), by_track=faces > 1)

    def hop(self, t_ns: int, away: bool = False, why: str | None = None) -> Iterator[Estimate]:
        """The estimates of the hop whose newest tick is at `t_ns`, largest face first."""
        for track in range(1) if away else range(1, self._faces + 1):
            trail = tuple((at, *self._value(at, track)) for at in (t_ns - (HOP - 1 - i) * NS_PER_S // 30 for i in range(HOP)))
            visual = 0.5 + 0.4 * math.sin(t_ns / 9e9 + track)
            estimate = Estimate(
                t_ns,
                None if away else 21.0,
                *trail[-1][1:],
                Reliability(0.9, None, None) if self._temporal else Reliability(0.93, 0.05 if away else visual, 0.95 if away else 1 - visual),
                None if away else Face(track, (30.0 + 180 * (track - 1), 60.0 + 40 * (track - 1), 140.0, 140.0), 0.97),
                AudioLevel(-31.0, True),
                Drops(3, 1, 0),
                trail,
            )
            live = Live(63.0, 21.0, -12.5, "live", "live", 1 if why is None else 3, HOP, why) if self._live else None
            yield Estimate(**{**estimate.__dict__, "smooth": self._smooth.add(estimate), "live": live})

    @staticmethod
    def _value(t_ns: int, track: int) -> tuple[float, float]:
        t = t_ns / NS_PER_S + 40 * track
        jitter = [0.05 * math.sin(4.1 * t + phase) + 0.03 * math.sin(9.7 * t + 2 * phase) for phase in (0.0, 1.3)]
        return 0.5 * math.sin(t / 7) + 0.2 * math.sin(t / 2.9) + jitter[0], 0.45 * math.cos(t / 5) - 0.15 * math.sin(t / 2.1) + jitter[1]


def status(t_ns: int, **changes: Any) -> Status:
    stage = {"count": 120, "mean": 1.0, "max": 20.0, "total_s": 0.1}
    times = {"capture": (0.02, 0.05, 0.1), "find": (0.2, 2.4, 3.1), "crop": (0.05, 0.1, 0.2), "visual": (0.25, 0.44, 0.6)}
    times |= {"audio": (11.7, 12.6, 15.2), "fusion": (4.8, 5.2, 6.0), "wait": (0.0, 0.0, 0.1), "emit": (0.03, 0.06, 0.2)}
    return {
        **{"type": "status", "v": 1, "t_ns": t_ns},
        "stages": {name: {**stage, "p50": p50, "p95": p95, "p99": p99} for name, (p50, p95, p99) in times.items()},
        "drops": {"frames_stale": 3, "audio_overruns": 1, "sinks": 0},
        "camera": {
            **{"uri": "v4l2:///dev/video0?fourcc=MJPG&fps=30", "state": "live", "frames": 36_051, "stale": 12, "reopened": 1, "rate_hz": 29.9},
            "asked": {"width": None, "height": None, "rate_hz": 30, "fourcc": "MJPG"},
            "granted": {"width": 640, "height": 480, "rate_hz": 30, "fourcc": "MJPG"},
        },
        "microphone": {
            **{
                "uri": "mic:default",
                "state": "live",
                "samples": 57_600_000,
                "overruns": 0,
                "reopened": 0,
                "drift_ppm": -12.5,
                "lateness_p99_ms": 1.3,
            },
            **{"asked": {"rate_hz": None, "channels": None}, "granted": {"device": "USB microphone", "rate_hz": 48_000, "channels": 1}},
        },
        "sinks": {"jsonl:-": {"state": "live", "written": 2400, "dropped": 0, "queued": 0}},
        "process": {"rss_mb": 164.2, "cpu_percent": 37.0, "temperature_c": 61.0},
        **changes,
    }


def past(page: Any, stream: Stream, seconds: float, now_ns: int | None = None, away: tuple[float, float] = (0.0, 0.0)) -> int:
    """Write the hops of the last `seconds` to `page`, without a face between `away` seconds ago; the time of the newest."""
    now_ns = time.monotonic_ns() if now_ns is None else now_ns
    count = int(seconds * NS_PER_S // HOP_NS)
    for i in range(count):
        t_ns = now_ns - (count - 1 - i) * HOP_NS
        ago_s = (now_ns - t_ns) / NS_PER_S
        for estimate in stream.hop(t_ns, away=away[1] < ago_s < away[0]):
            page.write(estimate)
    return now_ns


def soon() -> int:
    """A minute from now: estimates up to then do not grow old while a test looks at them, however slow the machine is."""
    return time.monotonic_ns() + 60 * NS_PER_S


@contextlib.contextmanager
def running(page: Any, stream: Stream, t_ns: int | None = None) -> Iterator[None]:
    """Write a hop every half second, from now on or with stamps from `t_ns` on."""
    ended, begun_ns = threading.Event(), time.monotonic_ns()

    def write() -> None:
        while True:
            past_ns = time.monotonic_ns() - begun_ns
            for estimate in stream.hop((begun_ns if t_ns is None else t_ns) + past_ns):
                page.write(estimate)
            if ended.wait(HOP_NS / NS_PER_S):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


NOTICES = (
    ("camera_open", "v4l2:///dev/video0: asked MJPG 30 Hz, granted 640 x 480 MJPG 30 Hz"),
    ("microphone_open", "mic:default: USB microphone, 48000 Hz, 1 channel"),
    ("camera_stalled", "v4l2:///dev/video0 gave no frame for 2.0 s; opening it again"),
    ("camera_open", "v4l2:///dev/video0: granted 640 x 480 MJPG 30 Hz, after 1.2 s"),
)


def notices(page: Any, now_ns: int) -> None:
    for i, (what, detail) in enumerate(NOTICES):
        page.notice(Notice(now_ns - (50 - 12 * i) * NS_PER_S, what, detail))
