"""A release folder around the small hand-made bundle of tests/runtime, whose commands are this checkout's own."""

from __future__ import annotations

import sys
from pathlib import Path

from released import PYTHON

from sage_edge.jetson.host.archive import seal
from sage_edge.runtime.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from tiny_bundle import make_bundle

_COMMAND = """#!/bin/sh
folder=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "{python}" -c "import sys; from pathlib import Path; from sage_edge.jetson.{module} import main; sys.exit(main(Path(sys.argv[1])))" "$folder"
"""


def micro_release(folder: Path, version: str = "1") -> Path:
    """Make it at `folder`, which must not exist, and return it."""
    make_bundle(folder / "model/by-hand.sage")
    return sealed(folder, version)


def sealed(folder: Path, version: str = "1") -> Path:
    """Write its commands and its release.json anew."""
    commands = {f"sage-edge-{name}": _COMMAND.format(python=sys.executable, module=name.replace("-", "_")) for name in ("service", "prepare")}
    commands["sage-edge"] = f'#!/bin/sh\nexec "{sys.executable}" -m sage_edge.cli.main "$@"\n'
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in commands.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / "release.json").unlink(missing_ok=True)
    digest = Bundle.open(folder / "model/by-hand.sage").manifest.digest
    seal(folder, version=version, python=PYTHON, arch="aarch64", revision="test", model="model/by-hand.sage", model_digest=digest)
    return folder
