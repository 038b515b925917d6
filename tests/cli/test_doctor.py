"""`doctor` says what works because it has tried it, and fails only for what `run` needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_edge.cli.main import main
from sage_edge.runtime import cpu
from sage_edge.runtime.engines.probe import DEVICES
from sage_edge.runtime.machine import cores


def test_this_machine_runs_what_run_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in said["checks"]}
    assert all(checks[name]["ok"] for name in ("libsage", "video", "faces", "cache folder", "onnxruntime on cpu"))
    assert [(found["backend"], found["device"]) for found in said["backends"]] == list(DEVICES)
    assert said["machine"]["cores"] == cores()
    assert set(said["machine"]["features"]) == cpu.features()
    assert said["ok"] is True
    assert all(check["ok"] or check["fact"] for check in checks.values())
    assert list(tmp_path.iterdir()) == [], "nothing stays behind"


def doctor(tmp_path: Path, **env: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "sage_edge.cli.main", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CACHE_DIRECTORY": str(tmp_path / "cache"), **env}, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_what_is_broken_is_named_with_its_fix(tmp_path: Path) -> None:
    """PyAV that cannot be loaded fails `run`; OpenVINO that cannot is only an offer, and so is a cache folder."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "av.py").write_text("raise ImportError('libavcodec.so.62: cannot open shared object file')\n")
    (broken / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')\n")
    code, text = doctor(tmp_path, PYTHONPATH=str(broken))
    rows = text.splitlines()
    assert code == 1
    assert rows[-1] == "FAILED: video, faces"
    (video,) = [i for i, row in enumerate(rows) if row.startswith("FAIL video")]
    assert "libavcodec.so.62" in rows[video]
    assert "-> pip install --force-reinstall av soxr" in rows[video + 1]
    (openvino,) = [i for i, row in enumerate(rows) if row.startswith("no   openvino on cpu")]
    assert "libtbb.so.12" in rows[openvino]
    assert "-> pip install 'sage-edge[openvino]'" in rows[openvino + 1]
    assert any(row.startswith("no   cache folder") for row in rows)
    assert any(row.startswith("ok   libsage") for row in rows)
