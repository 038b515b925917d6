"""Small releases and small systems to lay them into: real archives, real folders, an interpreter's own first bytes."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

from sage_edge.jetson.host.archive import pack, seal

PYTHON = f"3.{sys.version_info.minor}"


def elf_head(machine: int) -> bytes:
    """The first bytes of a 64-bit little-endian executable for `machine` (183 AArch64, 62 x86-64)."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, machine, 1) + bytes(40)


def make_system(root: Path, *, pythons: tuple[str, ...] = (PYTHON,), machine: int = 183) -> Path:
    """A folder that has what a release asks of a root file system."""
    for python in pythons:
        path = root / f"usr/bin/python{python}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(elf_head(machine))
    return root


def make_release(out: Path, files: dict[str, str] | None = None, *, version: str = "1.0", python: str = PYTHON, arch: str = "aarch64") -> Path:
    """An archive in `out` that holds a launcher, a model and `files` (path -> text)."""
    folder = out / f"content-{version}"
    manifest = json.dumps({"digest": hashlib.sha256(version.encode()).hexdigest()})
    for name, text in {"bin/sage-edge": f"#!/bin/sh\necho {version}\n", "model/tiny.sage/manifest.json": manifest, **(files or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    digest = json.loads(manifest)["digest"]
    seal(folder, version=version, python=python, arch=arch, revision="test", model="model/tiny.sage", model_digest=digest)
    return pack(folder, out)
