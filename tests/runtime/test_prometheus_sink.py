"""Metrics as Prometheus reads them, parsed by its own client."""

from __future__ import annotations

import dataclasses
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from estimates import FULL_HELLO, LIVE, NOTICE, SEEN, STATUS, UNSEEN
from prometheus_client.parser import text_string_to_metric_families

from sage_edge.runtime.sinks import open_sink
from sage_edge.runtime.sinks.prometheus import PrometheusSink

NOW_NS = LIVE.t_ns + 2_063_100_000


@pytest.fixture
def sink() -> Iterator[PrometheusSink]:
    made = open_sink("prometheus://127.0.0.1:0", lambda: NOW_NS)
    assert isinstance(made, PrometheusSink)
    made.start(FULL_HELLO)
    yield made
    made.close()


def ask(sink: PrometheusSink, path: str = "/metrics", **headers: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{sink.port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def metrics(sink: PrometheusSink) -> dict[str, float]:
    """`name` or `name{label="value"}` -> value; each family has a help text and a type."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(ask(sink)):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name.startswith("sage_")
            assert name not in found
            found[name] = sample.value
    return found


def test_every_metric_of_a_live_run(sink: PrometheusSink) -> None:
    sink.write(UNSEEN)
    sink.write(LIVE)
    sink.write(dataclasses.replace(LIVE, valence=0.9, smooth=None))  # a second face
    sink.notice(NOTICE)
    sink.status(STATUS)
    found = metrics(sink)
    expected = {
        'sage_info{backend="onnxruntime",model="sage",precision="int8",preset="tiny",trained_on="synthetic",version="0.1.0"}': 1,
        **{"sage_valence": 0.1234567, "sage_arousal": -0.5, "sage_valence_smooth": 0.11, "sage_arousal_smooth": -0.49},
        **{'sage_reliability{sense="visual"}': 0.64, 'sage_reliability{sense="audio"}': 0.36, "sage_reliability_temporal": 0.9},
        **{"sage_faces": 2, "sage_audio_rms_dbfs": -31.04, "sage_estimate_age_seconds": 2.0631, "sage_frame_age_seconds": 2.021},
        **{"sage_estimates_total": 3, 'sage_notices_total{what="camera_gone"}': 1, 'sage_notices_total{what="degraded"}': 0},
        **{"sage_frames_stale_total": 7, "sage_audio_overruns_total": 2, "sage_lines_dropped_total": 5},
        **{"sage_hop_ticks": 15, "sage_face_every": 2, 'sage_degraded{why="hot"}': 1, 'sage_degraded{why="overloaded"}': 0},
        **{'sage_stage_seconds{quantile="0.5",stage="audio"}': 0.012, 'sage_stage_seconds{quantile="0.99",stage="visual"}': 0.004},
        **{"sage_camera_up": 1, "sage_camera_frames_total": 900, "sage_camera_reopened_total": 1, "sage_camera_rate_hertz": 29.97},
        **{"sage_microphone_up": 0, "sage_microphone_samples_total": 480_000, "sage_microphone_reopened_total": 3},
        **{"sage_microphone_drift_ppm": -12.5, 'sage_sink_up{sink="jsonl:-"}': 1, 'sage_sink_lines_total{sink="jsonl:-"}': 40},
        **{'sage_sink_dropped_total{sink="csv:a "b""}': 5, "sage_process_resident_bytes": 160e6, "sage_process_cpu_ratio": 0.125},
    }
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    assert "sage_temperature_celsius" not in found, "what cannot be read is left out"


def test_what_is_not_known_is_left_out(sink: PrometheusSink) -> None:
    before = metrics(sink)
    assert "sage_valence" not in before
    assert before["sage_estimates_total"] == 0
    sink.write(UNSEEN)  # a recording: nothing live, nothing smooth, a model without reliabilities, no status
    found = metrics(sink)
    assert (found["sage_valence"], found["sage_faces"], found["sage_audio_overruns_total"]) == (0, 0, 0)
    for name in ("sage_frame_age_seconds", "sage_estimate_age_seconds", "sage_valence_smooth", "sage_camera_up", "sage_sink_up"):
        assert not any(key.startswith(name) for key in found), name
    assert not any(key.startswith("sage_reliability{") for key in found)
    sink.write(SEEN)
    assert metrics(sink)['sage_reliability{sense="audio"}'] == 0.36


def test_other_pages_are_not_there_and_others_need_the_token(sink: PrometheusSink) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(sink, "/etc/passwd")
    guarded = open_sink("prometheus://0.0.0.0:0?token=open-sesame")
    assert isinstance(guarded, PrometheusSink)
    assert "can be reached from other machines" in str(guarded.note)
    guarded.start(FULL_HELLO)
    for path in ("/metrics", "/metrics?token=guess"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(guarded, path)
    assert "sage_info" in ask(guarded, "/metrics?token=open-sesame")
    assert "sage_info" in ask(guarded, Authorization="Bearer open-sesame")
    guarded.close()
    with pytest.raises(urllib.error.URLError):
        ask(guarded, "/metrics?token=open-sesame")
