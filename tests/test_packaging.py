"""`pip wheel .` gives one wheel for any Python 3 of this platform, and that wheel works in an environment that holds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["runtime", "jetson", "training", "calibration", "compile", "cli"]

USE = """
import sys
import numpy as np
import sage_edge.runtime.native as native
from sage_edge.runtime.native.library import load

assert "site-packages" in native.__file__, native.__file__
assert "site-packages" in load()._name, load()._name
frame = np.full((48, 64, 3), 51, np.uint8)
out = np.empty((3, 4, 4), np.float32)
native.crop(frame, (1.5, 2.5, 30.25, 30.25), out, (0, 0, 0), (1, 1, 1))
assert np.allclose(out, 0.2, atol=1e-6), out
assert native.resize(frame, (0, 0, 10, 10), 5).tolist() == [[[51] * 3] * 5] * 5
ring = native.AudioRing(8)
ring.push(np.arange(5, dtype=np.float32))
assert ring.written == 5
window = native.FeatureWindow(3, 2)
window.push(np.ones(2, np.float32))
assert window.view()[-1].tolist() == [1, 1]
try:
    import torch
except ModuleNotFoundError:
    print("works")
"""


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(word) for word in command], cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_wheel_holds_the_packages_and_the_library(wheel: Path) -> None:
    name, _version, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == ("sage_edge", "py3", "none")
    assert platform != "any"
    names = zipfile.ZipFile(wheel).namelist()
    libraries = [name for name in names if name.endswith((".so", ".dylib"))]
    assert libraries in (["sage_edge/runtime/native/libsage.so"], ["sage_edge/runtime/native/libsage.dylib"])
    assert [name for name in names if name.endswith((".c", ".h", ".o", ".pyc", "CMakeLists.txt"))] == []
    inside = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("sage_edge/") for name in inside)
    modules = {f"sage_edge/{path.relative_to(ROOT)}" for floor in FLOORS for path in (ROOT / floor).rglob("*.py") if path.parent.name != "host"}
    assert modules - inside == set(), "modules missing from the wheel"
    beside = {name for name in inside if name.startswith("sage_edge/jetson/") and not name.endswith((".py", "py.typed"))}
    assert beside == {"sage_edge/jetson/boards.json"}, "tools of the host and units are not for the wheel"
    assert wheel.stat().st_size < 1_000_000
    assert {f"sage_edge/{floor}/py.typed" for floor in FLOORS} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """A real install with the base dependencies; no torch, no source tree, no environment variables of ours."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert run(python, "-c", USE, cwd=tmp_path).strip() == "works"
    assert "usage: sage-edge VERB" in run(tmp_path / "venv/bin/sage-edge", "--help", cwd=tmp_path)
    assert "run" in run(tmp_path / "venv/bin/sage-edge", "run", "--help", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
