"""A release made and laid, by the tools as people run them, into a real root file system for AArch64, whose own Python then starts from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ssh_server import run_tool
from wheels_by_hand import make_ours, make_wheel

from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import Release, pythons

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests/aarch64"))

from emulated import ORIN, PYTHON, qemu, system  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/runtime"))

from tiny_bundle import make_bundle  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("mmdebstrap") or not qemu(), reason="needs apt-get install mmdebstrap qemu-user"),
]


def test_the_boards_own_python_starts_what_was_laid_in(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "by-hand.sage")
    part = f"board_part-1.0-cp{PYTHON.replace('.', '')}-abi3-manylinux_2_28_aarch64.whl"
    make_wheel(tmp_path / "wheels", part, {"board_part/__init__.py": ""})
    root = tmp_path / "root"
    # without its device nodes, which copytree would read
    shutil.copytree(system(ROOT / "build/aarch64"), root, symlinks=True, ignore=shutil.ignore_patterns("dev", "proc", "sys"))
    (root / "proc").mkdir()
    shutil.copy(system(ROOT / "build/aarch64") / "proc/cpuinfo", root / "proc/cpuinfo")
    assert pythons(root) == {PYTHON: "aarch64"}

    options = ["--bundle", bundle, "--wheel", make_ours(tmp_path), "--wheels", tmp_path / "wheels", "--out", tmp_path]
    for python in ("3.10", PYTHON):
        make_wheel(tmp_path / "wheels", part.replace(PYTHON.replace(".", ""), python.replace(".", "")), {"board_part/__init__.py": ""})
        made = run_tool("release", "--python", python, *options)
        assert made.returncode == 0, made.stderr
    (wrong,) = tmp_path.glob("*-py310-aarch64.tar.gz")
    (archive,) = tmp_path.glob(f"*-py{PYTHON.replace('.', '')}-aarch64.tar.gz")
    refused = run_tool("overlay", root, "--release", wrong)
    assert f"Python {PYTHON}; make one with jetson/release --python {PYTHON}" in refused.stderr
    assert not (root / "opt/sage-edge").exists()

    for _ in range(2):
        done = run_tool("overlay", root, "--release", archive, "--conf", "SAGE_EDGE_ALLOW_DEMO=1")
        assert done.returncode == 0, done.stderr
    assert "all else was as it should be" in done.stdout
    assert "SAGE_EDGE_ALLOW_DEMO=1" in Layout(root).settings.read_text().splitlines()
    folder = Layout(root).current.resolve()
    Release.read(folder).verify(folder)

    # the launcher itself, with the emulator before the board's Python: sh and readlink are this machine's
    launcher = folder / "bin/emulated"
    text = (folder / "bin/sage-edge").read_text()
    launcher.write_text(text.replace(f"/usr/bin/python{PYTHON}", f"env QEMU_CPU={ORIN} {qemu()} -L {root} {root}/usr/bin/python{PYTHON}"))
    launcher.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(launcher)
    (tmp_path / "board_part.py").write_text("raise SystemExit('from the working folder')")
    ran = subprocess.run([link, "one", "two words"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["argv"], said["machine"], said["written"]) == (["one", "two words"], "aarch64", False)
    assert said["part"] == str(folder / "site/board_part/__init__.py")
    assert said["path"][0] == str(folder / "site")
    assert str(tmp_path) not in said["path"]
    assert not any("__pycache__" in str(path) for path in folder.rglob("*"))
