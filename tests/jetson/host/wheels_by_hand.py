"""Wheels of a few lines: a sage-edge of one command and what it needs, in the forms that wheels for a board come in."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

OURS = "sage_edge-9.9-py3-none-manylinux_2_17_aarch64.whl"
COMMAND = """import json, platform, sys, os
import board_part
print(json.dumps({"argv": sys.argv[1:], "machine": platform.machine(), "python": platform.python_version(), "path": sys.path,
                  "part": board_part.__file__, "written": not sys.dont_write_bytecode}))
"""


def make_wheel(folder: Path, name: str, files: dict[str, str | bytes], requires: Sequence[str] = (), extras: Sequence[str] = ()) -> Path:
    """The wheel NAME-VERSION-TAGS.whl in `folder`, holding `files`."""
    project, version, tags = name.removesuffix(".whl").split("-", 2)
    info = f"{project}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires] + [f"Provides-Extra: {each}" for each in extras]
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def make_ours(folder: Path, requires: Sequence[str] = ("board-part>=1",)) -> Path:
    """sage-edge 9.9: its command prints how it was started, as JSON."""
    extras = ("serve", "mqtt", "prometheus")
    return make_wheel(folder, OURS, {"sage_edge/cli/main.py": COMMAND}, requires, extras)
