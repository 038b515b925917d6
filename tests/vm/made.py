"""The releases of a run: the one that is laid in, a good one after it, and one that must not stay."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from releases import altered
from report import Failure, Report

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from tiny_bundle import make_bundle, write_manifest

from sage_edge.jetson.release_file import Release
from sage_edge.runtime.bundle import GOLDEN

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
"""Debian 12's."""
LOOP = "site/sage_edge/runtime/live_devices.py"
"""What crashes: where estimates are emitted."""
UNUSED = (
    *("site/av/", "site/av.libs/", "site/onnxruntime/quantization/", "site/onnxruntime/tools/", "site/onnxruntime/transformers/"),
    *("site/numpy/distutils/", "site/numpy/f2py/"),
)
"""What plays files, prepares models and builds extensions, which nobody does here; an emulated core unpacks 10 MB a second."""
_EMIT = b"    def _emit(self) -> None:\n"


@dataclass(frozen=True)
class Releases:
    """Archives; the last two are on the stick."""

    first: Path
    good: Path
    crashing: Path
    """Passes every check before it is switched to, and fails when it has given a few estimates."""

    @property
    def stick(self) -> Path:
        return self.good.parent


def make_release(bundle: Path | None, work: Path, report: Report) -> Path:
    """The archive of the one that is laid in, made by `jetson/release`, as a person would."""
    model = bundle or _by_hand(work)
    command = [str(ROOT / "jetson/release"), "--python", PYTHON, "--bundle", str(model), "--out", str(work / "release")]
    command += ["--wheels", str(work / "wheels")]
    report.did(" ".join(command))
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    report.saw(done.stdout + done.stderr)
    if done.returncode:
        raise Failure(f"jetson/release ended with exit code {done.returncode}")
    return max((work / "release").glob("sage-edge-*.tar.gz"), key=lambda path: path.stat().st_mtime_ns)


def make_updates(first: Path, work: Path) -> Releases:
    """The release `first`, and those that it can be updated to."""
    stick = work / "stick"
    stick.mkdir(exist_ok=True)
    for old in stick.iterdir():
        old.unlink()
    version, plain = Release.read(first).version, work / "release.tar"
    with gzip.open(first) as packed, open(plain, "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    good = altered(plain, stick, f"{version}.good", {}, UNUSED)
    crashing = altered(plain, stick, f"{version}.crashing", {LOOP: crash}, UNUSED)
    plain.unlink()
    return Releases(first, good, crashing)


def _by_hand(work: Path) -> Path:
    """A whole bundle of three small graphs with one golden window: an emulated core takes 8 seconds for a hop of the `tiny` preset."""
    target = work / "model/by-hand.sage"
    shutil.rmtree(target, ignore_errors=True)
    make_bundle(target)
    with np.load(target / GOLDEN) as arrays:
        first = {name: array[:1] for name, array in arrays.items()}
    np.savez_compressed(target / GOLDEN, **first)
    write_manifest(target, tolerance={"fp32": 1e-3, "int8-cpu": 0.05})
    return target


def crash(code: bytes) -> bytes:
    """The loop, but its second hop kills the process."""
    if code.count(_EMIT) != 1:
        raise Failure(f"{LOOP} has no {_EMIT.decode().strip()!r} any more: tell tests/vm/made.py where estimates are emitted")
    return code.replace(_EMIT, _EMIT + b"        if self._estimates > 1:\n            __import__('os').abort()\n")
