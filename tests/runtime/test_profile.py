"""`profile` measures the real loop: every stage, each precision on the same frames, the warm-up left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_edge.cli.main import main
from sage_edge.runtime import SourceError, UsageError
from sage_edge.runtime.clip import write_clip
from sage_edge.runtime.machine import machine, peak_rss_mb, versions
from sage_edge.runtime.profile import NAMES, profile
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.sources.video import VideoFile

STAGES = ["capture", "face", "crop", "visual", "audio", "fusion", "emit", "hop"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 2.0, (320, 240))
    return path


def test_clip_has_a_face_and_a_voice(clip: Path) -> None:
    from sage_edge.runtime.faces import FaceFinder

    finder, found, times, loudest = FaceFinder(), 0, [], 0.0
    with VideoFile(clip) as video:
        assert video.has_sound
        for event in video:
            if isinstance(event, FrameEvent):
                times.append(event.t_ns)
                found += finder.find(event.pixels, event.format, event.t_ns) is not None
            else:
                loudest = max(loudest, float(abs(event.samples).max(initial=0)))
    assert len(times) == 60
    assert found >= 55
    assert 0.05 < loudest < 1


def test_both_precisions_on_the_same_frames(bundle_path: Path, clip: Path) -> None:
    result = profile(bundle_path, ["fp32", "int8"], seconds=2, video=clip, progress=False).to_dict()
    assert list(result["precisions"]) == ["fp32", "int8-cpu"]
    assert 2 <= result["seconds"] < 3
    for timing in result["precisions"].values():
        assert list(timing["latency_ms"]) == STAGES
        for stage in timing["latency_ms"].values():
            assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"] <= stage["max"]
        # two seconds of 30 frames and of a hop in 15 ticks; the three seconds before are not in it
        assert 59 <= timing["latency_ms"]["capture"]["count"] <= 76
        assert 4 <= timing["estimates"] == timing["latency_ms"]["hop"]["count"] <= 5
        assert timing["latency_ms"]["emit"]["count"] == timing["estimates"]
        work_s = sum(timing["latency_ms"][stage]["total_s"] for stage in STAGES if stage not in ("audio", "fusion"))
        assert timing["real_time_factor"] >= 0.99 * work_s / timing["seconds"], "all of the loop is work, its stages are part of it"
        assert timing["cold_start_ms"] == pytest.approx(result["import_ms"] + result["verify_ms"] + timing["load_ms"], abs=0.2)
    assert result["peak_rss_mb"] > 50
    assert list(NAMES.values()) == STAGES


def test_same_precision_twice_is_one(bundle_path: Path, clip: Path) -> None:
    result = profile(bundle_path, ["int8", "int8-cpu"], seconds=0.5, video=clip, hop=5, threads=1, progress=False)
    assert list(result.timings) == ["int8-cpu"]
    assert (result.hop, result.threads) == (5, 1)


def test_wrong_use(bundle_path: Path, tmp_path: Path) -> None:
    for options in ({"seconds": 0}, {"seconds": float("nan")}, {"size": (641, 480)}, {"size": (2, 2)}, {"backend": "x"}, {"precisions": []}):
        with pytest.raises(UsageError):
            profile(bundle_path, progress=False, **options)  # type: ignore[arg-type]
    with pytest.raises(SourceError):
        profile(bundle_path, video=tmp_path / "none.mp4", progress=False)


def test_command(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profile", str(bundle_path), "--size", "160x120", "--seconds", "1", "--precision", "fp32"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["precisions"]["fp32"]["latency_ms"]) == STAGES
    assert result["feed"].startswith("drawn face, 160x120")
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "below 1 keeps up" in text
    assert "not counted" in text
    assert main([*arguments, "--size", "160"]) == 2
    assert "--size '160' is not WIDTHxHEIGHT" in capsys.readouterr().err
    assert main(["profile", "/nowhere.sage"]) == 1


def test_machine() -> None:
    assert machine()["cores"] >= 1
    assert machine()["cpu"]
    assert "numpy" in versions()
    rss = pytest.importorskip("psutil").Process().memory_info().rss / 1e6
    assert len(b"x" * (200 << 20)) == 200 << 20
    assert peak_rss_mb() >= rss + 200
