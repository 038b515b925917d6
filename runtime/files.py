"""Write beside, then rename: a reader sees a whole file or folder, or none; a failure or Ctrl-C leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UsageError


@contextlib.contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an exception.

    Raises UsageError when `target` exists and `replace` is false, or is no folder. With `replace`, the old folder goes only once the new one is
    whole, and is back in its place when that fails. Parents that were missing are made, and gone again after a failure.
    """
    target = Path(target)
    if os.path.lexists(target):
        if not replace:
            raise UsageError(f"{target} exists already; choose another path or remove it")
        if not target.is_dir():
            raise UsageError(f"{target} is not a folder and would be replaced by one; choose another path or remove it")
    with _parents(target):
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        old = work.with_name(work.name + ".old")
        try:
            work.chmod(0o777 & ~_umask())
            yield work
            if os.path.lexists(target):
                os.rename(target, old)
            os.rename(work, target)
        finally:
            # Also after an interrupt, wherever it came: either `target` is there by now, or the old one takes its place again.
            if os.path.lexists(old) and not os.path.lexists(target):
                os.rename(old, target)
            for rest in (work, old):
                if rest.is_symlink():
                    rest.unlink()
                shutil.rmtree(rest, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` (same suffix) that replaces `target` when the block ends without an exception."""
    target = Path(target)
    with _parents(target):
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
        work = Path(name)
        try:
            os.close(handle)
            work.chmod(0o666 & ~_umask())
            yield work
            os.replace(work, target)
        except BaseException:
            work.unlink(missing_ok=True)
            raise


def check_file(target: Path, replace: bool) -> None:
    """UsageError where `atomic_file` could not make `target`, so that long work need not begin; with `replace` a file may be there already."""
    target = Path(target)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file in it")
    if os.path.lexists(target) and not replace:
        raise UsageError(f"{target} exists already; choose another name or give --force")
    near = next(parent for parent in target.absolute().parents if parent.exists())
    if not near.is_dir():
        raise UsageError(f"{near} is no folder, so {target} cannot be written; choose another place")
    if not os.access(near, os.W_OK | os.X_OK):
        raise UsageError(f"{near} cannot be written: permission denied; choose another place")


@contextlib.contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the missing parents of `target`; after a failure those that are empty go again."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise


def lock(path: Path) -> IO[bytes]:
    """Open `path` and hold its lock until the file is closed or the process ends. Raises UsageError where another process holds it."""
    import fcntl

    stream = open(path, "wb")  # noqa: SIM115 - held until the end
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UsageError(f"{path.parent} is being written by another process; wait for it, or end it") from None
    except OSError:
        pass  # a file system without locks
    held = weakref.ref(stream)

    def let_go() -> None:
        if (inherited := held()) is not None:
            inherited.close()

    # processes forked later would hold the lock too, and may outlive this one by some seconds
    os.register_at_fork(after_in_child=let_go)
    return stream


def cache_folder() -> Path:
    """Where this user's machine-specific results live: $CACHE_DIRECTORY, else $XDG_CACHE_HOME/sage-edge, else ~/.cache/sage-edge."""
    if folder := os.environ.get("CACHE_DIRECTORY"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sage-edge"


def _umask() -> int:
    """The bits that this process takes from new files."""
    # It cannot be read without being set; 0o077 in between lets no file of another thread out to others.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
