"""Every shell script that is in here, or that we write onto a board, is clean by shellcheck."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sage_edge.jetson.host.launchers import write_launchers
from sage_edge.jetson.host.provision import _PROBE

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "benchmarks", "jetson", "tests")

pytestmark = pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck: apt-get install shellcheck")


def scripts() -> list[Path]:
    """Files that begin as a shell script does, whatever they are called."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in files if path.open("rb").read(40).startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))]


def complaints(*paths: Path) -> str:
    return subprocess.run(["shellcheck", "--format=gcc", *map(str, paths)], capture_output=True, text=True, check=False).stdout


def test_scripts_are_clean() -> None:
    found = scripts()
    assert ROOT / ".ci/run" in found
    assert complaints(*found) == ""


def test_what_starts_a_release_is_clean(tmp_path: Path) -> None:
    write_launchers(tmp_path / "bin", "3.10")
    launchers = [path for path in (tmp_path / "bin").iterdir() if path.read_text().startswith("#!/bin/sh")]
    assert launchers
    assert complaints(*launchers) == ""


def test_what_asks_a_board_over_ssh_is_clean(tmp_path: Path) -> None:
    script = tmp_path / "probe"
    script.write_text(f"#!/bin/sh\n{_PROBE}")
    assert complaints(script) == ""
