"""`profile --camera --mic` measures the loop that `run` has, over the live devices, after a warm-up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pulse import MISSING, NEEDED, PulseServer

from sage_edge.cli.main import main
from sage_edge.runtime.clip import write_clip
from sage_edge.runtime.errors import SourceError, UsageError
from sage_edge.runtime.profile_live import profile_live


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.profile_live.WARM_UP_S", 0.3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face at 30 frames a second, played as if it were a camera."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 1.5, (160, 120))
    return path


def test_each_precision_has_the_camera_in_turn(bundle_path: Path, clip: Path) -> None:
    result = profile_live(bundle_path, ["fp32", "int8"], camera=str(clip), seconds=0.5, hop=3, progress=False).to_dict()
    assert result["feed"] == f"{clip}, live"
    assert list(result["precisions"]) == list(result["live"]) == ["fp32", "int8-cpu"]
    assert result["seconds"] == pytest.approx(sum(timing["seconds"] for timing in result["precisions"].values()) / 2, abs=1e-3)
    assert result["seconds"] > 0.4
    for name, timing in result["precisions"].items():
        stages, live = timing["latency_ms"], result["live"][name]
        assert {"capture", "face", "visual", "hop", "emit"} <= set(stages)
        assert 0 < timing["estimates"] == stages["emit"]["count"] == live["late_ms"]["count"]
        work_s = sum(stages[stage]["total_s"] for stage in ("face", "crop", "visual", "hop", "emit") if stage in stages)
        assert timing["real_time_factor"] == pytest.approx(work_s / timing["seconds"], rel=1e-3, abs=1e-4), "of its own seconds"
        assert live["camera"]["granted"]["width"] == 160
        assert live["microphone"] is None
        assert live["degraded"] == 0
    assert result["power"] is None


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=NEEDED)
def test_a_microphone_alone(bundle_path: Path) -> None:
    with PulseServer() as server, server.microphone("pipemic", 48_000, 2):
        result = profile_live(bundle_path, ["fp32"], microphone="mic:pipemic", seconds=2, hop=6, progress=False).to_dict()
    stages, live = result["precisions"]["fp32"]["latency_ms"], result["live"]["fp32"]
    assert {"audio", "fusion", "hop", "emit"} <= set(stages)
    assert not {"capture", "face", "visual"} & set(stages)
    assert (live["camera"], live["microphone"]["granted"]["rate_hz"], live["audio_overruns"]) == (None, 48_000, 0)


def test_wrong_use(bundle_path: Path, tmp_path: Path) -> None:
    for options in ({}, {"camera": "camra:0"}, {"microphone": "headset"}, {"camera": "camera:0", "seconds": 0}):
        with pytest.raises(UsageError):
            profile_live(bundle_path, progress=False, **options)  # type: ignore[arg-type]
    write_clip(tmp_path / "short.mp4", 0.2, (160, 120))
    with pytest.raises(SourceError, match="over before anything could be counted"):
        profile_live(bundle_path, camera=str(tmp_path / "short.mp4"), progress=False)
    with pytest.raises(SourceError, match=r"nothing\.mp4"):
        profile_live(bundle_path, camera=str(tmp_path / "nothing.mp4"), progress=False)


def test_command(bundle_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profile", str(bundle_path), "--camera", str(clip), "--seconds", "0.3", "--precision", "fp32", "--hop", "3"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "ms late at p50" in text
    assert "clip.mp4: asked nothing; granted width 160, height 120" in text
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["live"]["fp32"]["camera"]["granted"]["height"] == 120
    assert main([*arguments, "--video", "x.mp4"]) == 2
    assert "leave it or the live devices away" in capsys.readouterr().err
