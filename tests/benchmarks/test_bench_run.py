"""benchmarks/run.py prints one complete object; what it measured is not asserted here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_crop_prints_one_object() -> None:
    result = run("crop", "--json", "--n", "5")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert {"name", "machine", "versions", "command", "unit", "variants", "ratios"} <= found.keys()
    assert (found["name"], found["command"]) == ("crop", "python benchmarks/run.py crop --json --n 5")
    assert {"cpu", "cores", "arch", "system"} <= found["machine"].keys()
    assert {"python", "numpy", "opencv-python-headless"} <= found["versions"].keys()
    assert found["notes"]["cv2_threads"] == 1
    cases = {"120_to_48", "200_to_48", "333_to_48", "400_to_112", "96_to_48", "144_to_48", "cold_120_to_48", "cold_96_to_48"}
    for variant in ("libsage", "cv2", "memcpy"):
        assert cases <= found["variants"][variant].keys()
        for case in found["variants"][variant].values():
            assert case["n"] == 5
            assert 0 < case["min"] <= case["median"]
    gated = [found["variants"]["cv2"][case]["median"] / found["variants"]["libsage"][case]["median"] for case in found["notes"]["gated"]]
    middle = sorted(gated)
    assert abs(found["ratios"]["libsage_over_cv2"] - (middle[1] + middle[2]) / 2) < 0.01
    assert found["ratios"]["cold_libsage_over_memcpy"] > 0


def test_every_listed_benchmark_is_a_module() -> None:
    names = run("--list").stdout.split()
    assert "crop" in names
    assert [name for name in names if not (ROOT / "benchmarks" / f"{name}.py").is_file()] == []


def test_wrong_name() -> None:
    result = run("corp")
    assert result.returncode == 2
    assert "crop" in result.stderr


def test_copies_without_a_gpu_is_a_line() -> None:
    result = subprocess.run(
        [sys.executable, "benchmarks/run.py", "copies", "--n", "2"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("copies: ")


@pytest.mark.slow
@pytest.mark.nightly
def test_loop_counts_the_cpu_time_beside_the_engines() -> None:
    result = run("loop", "--json", "--n", "1")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["unit"] == "ms of CPU per second"
    for name in ("loop", "loop_tiny", "beside_engines", "awake"):
        variant, notes = found["variants"][name], found["notes"][name]
        assert 0 < variant["min"] <= variant["median"]
        assert variant["n"] >= 1
        assert abs(found["ratios"][f"{name}_over_budget"] - 10 / variant["median"]) < 0.01
        assert notes["estimates"] >= 10
    assert 0 < found["variants"]["nothing"]["min"] < found["variants"]["loop"]["median"]
    assert found["notes"]["loop"]["engines_ms_per_s"] < found["notes"]["beside_engines"]["engines_ms_per_s"]
