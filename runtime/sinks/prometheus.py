"""The newest state as Prometheus metrics, for whoever asks `http://HOST:PORT/metrics`.

Of several faces the largest speaks. Ages are those of the moment of asking, so that a run that hangs can be seen; what is not known is left out.

| metric | meaning |
| --- | --- |
| sage_info{model,preset,trained_on,precision,backend,version} | 1 |
| sage_valence, sage_arousal, sage_valence_smooth, sage_arousal_smooth | newest estimate, in [-1, 1] |
| sage_reliability{sense="visual"\\|"audio"}, sage_reliability_temporal | what the model leaned on |
| sage_faces | faces in the newest hop |
| sage_audio_rms_dbfs | level of its sound |
| sage_estimate_age_seconds, sage_frame_age_seconds | ages of the newest tick and of the newest frame, live runs |
| sage_estimates_total, sage_notices_total{what} | lines of the stream |
| sage_frames_stale_total, sage_audio_overruns_total, sage_lines_dropped_total | losses |
| sage_hop_ticks, sage_face_every, sage_degraded{why="overloaded"\\|"hot"} | what the loop does to keep up |
| sage_stage_seconds{stage,quantile} | times of the stages, of the last minute |
| sage_camera_up, sage_camera_frames_total, sage_camera_reopened_total, sage_camera_rate_hertz | the camera; up: it is live |
| sage_microphone_up, sage_microphone_samples_total, sage_microphone_reopened_total, sage_microphone_drift_ppm | the microphone |
| sage_sink_up{sink}, sage_sink_lines_total{sink}, sage_sink_dropped_total{sink} | the other outputs |
| sage_process_resident_bytes, sage_process_cpu_ratio, sage_temperature_celsius | process (1 is one core) and board |
"""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..estimate import Estimate
from ..notice import WHATS, Notice, Status
from ..ticks import NS_PER_S
from .address import Address, check_free
from .broadcast import Broadcast

if TYPE_CHECKING:
    from prometheus_client.core import Metric

WHYS = ("overloaded", "hot")
QUANTILES = {"0.5": "p50", "0.95": "p95", "0.99": "p99"}


class PrometheusSink:
    """Serves at `address`. See `sinks.Sink`; `now_ns` is the clock of the stamps. Raises UsageError where a package is missing."""

    def __init__(self, address: Address, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        if importlib.util.find_spec("prometheus_client") is None:
            raise UsageError("prometheus:// needs the prometheus-client package; pip install 'sage-edge[prometheus]'")
        from prometheus_client import CollectorRegistry

        self.spec = str(address)
        self._collector = _Collector(now_ns)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        self._broadcast = Broadcast(address.host, address.port, http=self._page, token=address.token)
        self.note = self._broadcast.note
        self._serving = False
        check_free(address)

    @property
    def port(self) -> int:
        """Where it listens: the port of the address, or what was free where that is 0."""
        return self._broadcast.port

    def start(self, hello: dict[str, Any]) -> None:
        """Listen. Raises SinkError for an address that cannot be had."""
        self._collector.hello = hello
        if not self._serving:
            self._broadcast.start()
            self._serving = True

    def write(self, estimate: Estimate) -> None:
        """Keep the newest hop."""
        self._collector.write(estimate)

    def notice(self, notice: Notice) -> None:
        """Count it."""
        self._collector.notices[notice.what] += 1

    def status(self, status: Status) -> None:
        """Keep the newest."""
        self._collector.status = status

    def close(self) -> None:
        """Stop listening."""
        self._broadcast.close()

    def _page(self, path: str) -> tuple[str, bytes] | None:
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        return (CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)) if path in ("/", "/metrics") else None


class _Collector:
    """Holds the newest of everything. Written by the sink's thread and read by the server's, one reference at a time."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.hello: dict[str, Any] = {}
        self.status: Status = {}
        self.notices: Counter[str] = Counter(dict.fromkeys(WHATS, 0))
        self._estimates = 0
        self._hop: tuple[Estimate, ...] = ()

    def write(self, estimate: Estimate) -> None:
        self._estimates += 1
        same = bool(self._hop) and self._hop[0].t_ns == estimate.t_ns
        self._hop = (*self._hop, estimate) if same else (estimate,)

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a value."""
        for name, text, kind, samples in (*self._of_hello(), *self._of_hop(), *self._of_counts(), *_of_status(self.status)):
            known = [(labels, float(value)) for labels, value in samples if value is not None]
            if known:
                yield _metric(name, text, kind, known)

    def _of_hello(self) -> Iterator[_Raw]:
        hello = self.hello
        if hello:
            model, trained_on = hello.get("model") or {}, hello.get("trained_on") or {}
            said = {"model": model.get("name"), "preset": model.get("preset"), "trained_on": trained_on.get("name")}
            said.update({key: hello.get(key) for key in ("precision", "backend", "version")})
            yield "sage_info", "What runs", "gauge", [({key: str(value or "") for key, value in said.items()}, 1)]

    def _of_hop(self) -> Iterator[_Raw]:
        hop = self._hop
        if not hop:
            return
        first, now_ns = hop[0], self._now_ns()
        yield _gauge("sage_valence", "Newest estimate, -1 to 1", first.valence)
        yield _gauge("sage_arousal", "Newest estimate, -1 to 1", first.arousal)
        if first.smooth is not None:
            yield _gauge("sage_valence_smooth", "After the filter, -1 to 1", first.smooth.valence)
            yield _gauge("sage_arousal_smooth", "After the filter, -1 to 1", first.smooth.arousal)
        senses = {"visual": first.reliability.visual, "audio": first.reliability.audio}
        yield "sage_reliability", "Share of each sense; they sum to 1", "gauge", [({"sense": name}, value) for name, value in senses.items()]
        yield _gauge("sage_reliability_temporal", "Weight of the newest tick; 1 is the window's mean", first.reliability.temporal)
        yield _gauge("sage_faces", "Faces in the newest hop", sum(estimate.face is not None for estimate in hop))
        yield _gauge("sage_audio_rms_dbfs", "Level of the newest hop's sound", first.audio.rms_dbfs)
        live = first.live
        if live is not None:
            age_s = (now_ns - first.t_ns) / NS_PER_S
            yield _gauge("sage_estimate_age_seconds", "Age of the newest estimate's tick", age_s)
            if live.frame_age_ms is not None:
                yield _gauge(
                    "sage_frame_age_seconds", "Age of the newest frame that an estimate tells of", age_s + (live.frame_age_ms - live.late_ms) / 1000
                )
            yield _gauge("sage_hop_ticks", "Ticks between estimates", live.hop)
            yield _gauge("sage_face_every", "Every n-th frame is read", live.face_every)
            yield "sage_degraded", "1 while the loop does less, and why", "gauge", [({"why": why}, live.why == why) for why in WHYS]

    def _of_counts(self) -> Iterator[_Raw]:
        yield _counter("sage_estimates", "Estimates", self._estimates)
        yield "sage_notices", "Notices", "counter", [({"what": what}, count) for what, count in sorted(self.notices.items())]
        drops: dict[str, Any] = self.status.get("drops") or {}
        if self._hop and not drops:
            lost = self._hop[0].drops
            drops = {"frames_stale": lost.frames_stale, "audio_overruns": lost.audio_overruns, "sinks": lost.sinks}
        yield _counter("sage_frames_stale", "Frames that were too late, or damaged", drops.get("frames_stale"))
        yield _counter("sage_audio_overruns", "Gaps and damage in the sound", drops.get("audio_overruns"))
        yield _counter("sage_lines_dropped", "Lines that outputs gave up", drops.get("sinks"))


_Labels = dict[str, str]
_Raw = tuple[str, str, str, list[tuple[_Labels, "float | None"]]]
"""Name, help, kind, and the value for each set of labels."""


def _of_status(status: Status) -> Iterator[_Raw]:
    stages: dict[str, Any] = status.get("stages") or {}
    times: list[tuple[_Labels, float | None]] = [
        ({"stage": stage, "quantile": quantile}, summary[key] / 1000) for stage, summary in stages.items() for quantile, key in QUANTILES.items()
    ]
    yield "sage_stage_seconds", "Times of the stages, of the last minute", "gauge", times
    for device, counted, measured in (
        ("camera", ("frames", "reopened"), (("rate_hz", "rate_hertz"),)),
        ("microphone", ("samples", "reopened"), (("drift_ppm", "drift_ppm"),)),
    ):
        said: dict[str, Any] = status.get(device) or {}
        yield _gauge(f"sage_{device}_up", f"1 while the {device} is live", said["state"] == "live" if said else None)
        for key in counted:
            yield _counter(f"sage_{device}_{key}", f"{key} of the {device}", said.get(key))
        for key, name in measured:
            yield _gauge(f"sage_{device}_{name}", f"{key} of the {device}", said.get(key))
    sinks: dict[str, Any] = status.get("sinks") or {}
    yield "sage_sink_up", "1 while the output takes lines", "gauge", [({"sink": spec}, said["state"] == "live") for spec, said in sinks.items()]
    yield "sage_sink_lines", "Lines written", "counter", [({"sink": spec}, said["written"]) for spec, said in sinks.items()]
    yield "sage_sink_dropped", "Lines given up", "counter", [({"sink": spec}, said["dropped"]) for spec, said in sinks.items()]
    process: dict[str, Any] = status.get("process") or {}
    for key, name, text, scale in (
        ("rss_mb", "sage_process_resident_bytes", "Memory", 1e6),
        ("cpu_percent", "sage_process_cpu_ratio", "Share of one core", 0.01),
        ("temperature_c", "sage_temperature_celsius", "Highest of the board", 1.0),
    ):
        value = process.get(key)
        yield _gauge(name, text, None if value is None else value * scale)


def _gauge(name: str, text: str, value: float | None) -> _Raw:
    return name, text, "gauge", [({}, value)]


def _counter(name: str, text: str, value: float | None) -> _Raw:
    return name, text, "counter", [({}, value)]


def _metric(name: str, text: str, kind: str, samples: list[tuple[_Labels, float]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = list(samples[0][0])
    family = CounterMetricFamily(name, text, labels=labels) if kind == "counter" else GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric([values[label] for label in labels], value)
    return family
