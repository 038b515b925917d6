"""The wheel for a Jetson: cross-built here, one AArch64 library in it, for any Python and for the oldest supported board's glibc."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sage_edge.jetson.host import wheel
from sage_edge.jetson.host.errors import HostError
from sage_edge.runtime.native.library import load

ROOT = Path(__file__).parents[3]
APT = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"

needs_gcc = pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason=f"no cross compiler: apt-get install {APT}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.build_wheel(tmp_path_factory.mktemp("wheel") / "not-there-yet")


def library_digest(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return hashlib.sha256(archive.read(wheel.LIBRARY)).hexdigest()


def check_wheel(path: Path) -> None:
    name, _version, python, abi, platforms = path.stem.split("-")
    assert (name, python, abi) == ("sage_edge", "py3", "none")
    assert path.stat().st_size < 1_000_000
    for tag in platforms.split("."):
        assert tag == "manylinux2014_aarch64" or re.fullmatch(r"manylinux_2_(\d+)_aarch64", tag), tag
    assert re.search(r"manylinux_2_[12]\d_", platforms), f"{platforms}: newer than any board has"
    shown = subprocess.run([sys.executable, "-m", "auditwheel", "show", "--json", str(path)], capture_output=True, text=True, check=True)
    audit = json.loads(shown.stdout)
    assert audit["overall_tag"] in platforms.split("."), audit
    assert audit["external_libs"] == {}, audit
    with zipfile.ZipFile(path) as archive:
        assert [entry for entry in archive.namelist() if ".so" in entry or entry.endswith((".c", ".h"))] == [wheel.LIBRARY]


@needs_gcc
def test_one_library_for_aarch64_and_any_glibc_of_a_board(built: Path) -> None:
    check_wheel(built)
    assert sorted(built.parent.iterdir()) == [built], "something of the build was left"


def test_a_library_for_another_machine_is_refused(tmp_path: Path) -> None:
    if platform.machine() == "aarch64":
        pytest.skip("this machine's own library is one for AArch64")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.write(load()._name, wheel.LIBRARY)
    with pytest.raises(HostError, match="not 183"):
        wheel.check_library(tmp_path / "x.whl")
    with zipfile.ZipFile(tmp_path / "x.whl", "a") as archive:
        archive.write(load()._name, "sage_edge/runtime/native/libsage.so.1")
    with pytest.raises(HostError, match=r"libsage.so.1.* alone"):
        wheel.check_library(tmp_path / "x.whl")


@needs_gcc
def test_what_a_compiler_says_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own compiler under the name of the cross compiler."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/aarch64-linux-gnu-gcc").symlink_to(shutil.which("cc") or "cc")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(HostError, match=r"cross-build of the wheel failed: .*error: .*to see all of it"):
        wheel.build_wheel(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_missing_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"apt-get install gcc-aarch64-linux-gnu .*--compiler zig"):
        wheel.build_wheel(tmp_path)
    with pytest.raises(HostError, match="'icc' is not known: gcc or zig"):
        wheel.build_wheel(tmp_path, "icc")
    if importlib.util.find_spec("ziglang") is None:
        with pytest.raises(HostError, match="pip install ziglang"):
            wheel.build_wheel(tmp_path, "zig")


@needs_gcc
def test_a_newer_glibc_than_the_boards_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel.check_glibc(built)
    monkeypatch.setattr(wheel, "NEWEST_GLIBC", (2, 16))
    with pytest.raises(HostError, match=r"is not for glibc 2\.16.*--compiler zig"):
        wheel.check_glibc(built)


@needs_gcc
@pytest.mark.slow
def test_the_command_builds_the_same_library_again_with_no_install(built: Path, tmp_path: Path) -> None:
    """From a checkout, by whatever python3 there is; the flags of a host's build stay out of it."""
    environment = {**os.environ, "CC": "false", "CFLAGS": "-O0 -DNOT_FOR_THE_BOARD", "LDFLAGS": "-lnothing"}
    done = subprocess.run([ROOT / "jetson/wheel", "--out", tmp_path], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert library_digest(Path(done.stdout.strip())) == library_digest(built)


@pytest.mark.slow
def test_zig_builds_it_with_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cross compiler on PATH; ziglang is 100 MB and so no dependency of the tests."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no ziglang: python -m pip install ziglang")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    check_wheel(wheel.build_wheel(tmp_path, "zig"))
