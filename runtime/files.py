"""Write beside, then rename: a reader sees a whole file or folder, or none; a failure or Ctrl-C leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UsageError


@contextlib.contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an exception.

    Raises UsageError when `target` exists and `replace` is false. With `replace`, the old folder goes only once the new one is whole.
    """
    target = Path(target)
    if target.exists() and not replace:
        raise UsageError(f"{target} exists already; choose another path or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    work.chmod(0o755)
    try:
        yield work
        if target.exists():
            old = work.with_name(work.name + ".old")
            os.rename(target, old)
            os.rename(work, target)
            shutil.rmtree(old)
        else:
            os.rename(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` (same suffix) that replaces `target` when the block ends without an exception."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    work = Path(name)
    work.chmod(0o644)
    try:
        yield work
        os.replace(work, target)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
