"""What versions that are gone have left in the cache: their engines, hundreds of megabytes of a larger model, and their compiled Python."""

from __future__ import annotations

import shutil
from pathlib import Path

from sage_edge.runtime.engines import plans

from .release_file import Release, ReleaseError


def remove_leftovers(versions: Path, pycache: Path | None) -> int:
    """How many bytes that freed. What the releases in the folder `versions` need stays; `pycache` is Python's own folder for what it compiles.

    Engines of models that are in no release go, too: they are built again when they are wanted. Raises OSError.
    """
    there = {path.parent.name: _release(path.parent) for path in versions.glob("*/release.json")}
    onnx = {file.sha256 for release in there.values() if release for name, file in release.files.items() if name.endswith(".onnx")}
    freed = plans.prune(onnx)
    if pycache is not None:
        for path in (pycache / versions.relative_to("/")).glob("*"):
            if path.name not in there:
                freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                shutil.rmtree(path)
    return freed


def _release(folder: Path) -> Release | None:
    try:
        return Release.read(folder)
    except ReleaseError:
        return None
