"""The commands of a release: small sh scripts that start a module of its site/ with the system's own Python.

They find their release by their own path, links resolved, so what runs stays in its version when `current` is switched. JetPack's own packages
(tensorrt) stay visible; the owner's and the working folder's do not.
"""

from __future__ import annotations

from pathlib import Path

MODULES = {
    "sage-edge": "sage_edge.cli.main",
    "sage-edge-service": "sage_edge.jetson.service",
    "sage-edge-first-boot": "sage_edge.jetson.first_boot",
    "sage-edge-prepare": "sage_edge.jetson.prepare",
    "sage-edge-update": "sage_edge.jetson.update",
}
_LAUNCHER = """#!/bin/sh
release=$(dirname "$(dirname "$(readlink -f "$0")")")
export PYTHONPATH="$release/site"
# a release stays as it was checked: what Python compiles goes where the unit says, or nowhere
[ -n "${{PYTHONPYCACHEPREFIX:-}}" ] || export PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python{python} -s "$release/bin/launch.py" {module} "$@"
"""
# `python3 -m` would put the working folder before all else on the path, and 3.10 has no -P against it.
_START = '''"""launch.py MODULE ARGUMENTS: as `python3 -m` does, without the working folder on the path."""

import runpy
import sys

del sys.argv[0], sys.path[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
'''


def write_launchers(folder: Path, python: str) -> None:
    """One for each of MODULES into the new folder `folder`, for /usr/bin/pythonX.Y."""
    folder.mkdir()
    (folder / "launch.py").write_text(_START)
    for name, module in MODULES.items():
        path = folder / name
        path.write_text(_LAUNCHER.format(python=python, module=module))
        path.chmod(0o755)
