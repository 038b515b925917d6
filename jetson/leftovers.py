"""What versions that are gone have left in the cache: their engines, hundreds of megabytes of a larger model, and their compiled Python."""

from __future__ import annotations

import shutil
from pathlib import Path

from sage_edge.runtime.engines import plans

from .release_file import Release, ReleaseError


def remove_leftovers(versions: Path, pycache: Path | None) -> int:
    """How many bytes that freed. What the releases in the folder `versions` need stays; `pycache` is Python's own folder for what it compiles.

    Engines of models that are in no release go, too: they are built again when they are wanted. They all stay where a release cannot be read,
    for one of them may be its. Raises OSError.
    """
    there = [path for path in versions.iterdir() if path.is_dir()]
    freed = 0
    try:
        files = [file for path in there for file in Release.read(path).files.items()]
    except ReleaseError:
        pass
    else:
        freed += plans.prune({file.sha256 for name, file in files if name.endswith(".onnx")})
    if pycache is not None:
        names = {path.name for path in there}
        for path in (pycache / versions.relative_to("/")).glob("*"):
            if path.name not in names:
                freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                shutil.rmtree(path)
    return freed
