"""The real service under the pretended systemd: `sage-edge run` over the hand-made bundle and a video file, ready, alive, watched, ended."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from micro_release import micro_release
from pretend_systemd import Systemd

from sage_edge.jetson import health
from sage_edge.jetson.health import Service


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
    from make_video import even_stamps, write_video

    video = write_video(tmp_path / "face.mp4", stamps_s=even_stamps(30, 30 * 60))
    made = Systemd(tmp_path / "systemd", micro_release(tmp_path / "release") / "bin/sage-edge-service")
    made.environment |= {
        "SAGE_EDGE_CAMERA": str(video),
        "SAGE_EDGE_OPTIONS": f"--precision int8 --backend onnxruntime --hop 3 --out jsonl:{tmp_path}/estimates.jsonl",
        "WATCHDOG_USEC": "2000000",
        "CACHE_DIRECTORY": str(tmp_path / "cache"),
    }
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    yield made
    made.close()


@pytest.mark.slow
def test_a_real_run_is_ready_alive_and_healthy_and_says_when_it_stops(systemd: Systemd, tmp_path: Path) -> None:
    service = Service()
    assert service.start_again() is None
    assert service.watch(2.0) is None
    systemd.wait_for(lambda: "WATCHDOG=1" in systemd.heard)
    assert re.fullmatch(r"\d+ estimates, \d+ ms late, camera live [\d.]+/s(, \d+ \w+ lost)*, \d+ MB", service.state().status)
    assert systemd.terminate() == 0
    assert any(message.startswith("STOPPING=1") for message in systemd.heard)
    assert len((tmp_path / "estimates.jsonl").read_text().splitlines()) > 10


@pytest.mark.slow
def test_a_run_that_hangs_is_found_out(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STALLED_S", 2.0)
    service = Service()
    assert service.start_again() is None
    assert systemd.pid is not None
    os.kill(systemd.pid, signal.SIGSTOP)
    why = service.watch(1.0)
    assert why is not None
    assert why.startswith("no new estimate for 2 s")


@pytest.mark.slow
def test_settings_that_cannot_be_taken_end_the_service_with_the_code_that_is_not_tried_again(systemd: Systemd) -> None:
    systemd.environment["SAGE_EDGE_OPTIONS"] += " --hop never"
    why = Service().start_again()
    assert why is not None
    assert "exit code 2" in why
