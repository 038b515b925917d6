"""Lay a release under `versions/`, whole or not at all.

A file that the version which runs has, too, is linked, not written: most of an update costs no room and wears no card. Used on the host and on
the board, so it imports nothing but Python's own library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .layout import Layout
from .release_file import AGAIN, DESCRIPTION, PIECE_BYTES, Release, ReleaseError, make_folder, opened, sha256_of


def unpack(archive: Path, layout: Layout) -> Path:
    """Lay the release in `archive` under `layout.versions` and return its folder; what is there already and whole is left as it is.

    Checked before anything is written: that the system under `layout.root` has its Python and machine, and the room for what the running
    version does not list, and that no other release of this version is `current`. Checked while writing: each file's name, size and sha256. Of
    linked files those on the disk are read, not the archive's; one that is not as it was released comes from the archive. It is written beside
    and renamed once it is on the disk, so that no power cut leaves half a release under its name. Raises ReleaseError.
    """
    archive = Path(archive)
    with opened(archive) as (release, stream):
        release.check_fits(layout.root)
        target = layout.versions / release.version
        if _is_whole(target, release):
            return target
        if os.path.realpath(layout.current) == os.path.realpath(target) and _is_another(target, release):
            raise ReleaseError(f"{target} runs and is another release of that version; make this one with another version")
        make_folder(layout.versions)
        with _alone(layout.versions):
            there = _alike(layout, release)
            needed_bytes = sum(file.bytes for name, file in release.files.items() if name not in there)
            free_mb, needed_mb = shutil.disk_usage(layout.versions).free >> 20, int(needed_bytes * 1.1) >> 20
            if free_mb < needed_mb:
                raise ReleaseError(f"{layout.versions} has {free_mb} MB free and the release needs {needed_mb}; make room there")
            work = Path(tempfile.mkdtemp(prefix=f".{release.version}.", dir=layout.versions))
            old = work.with_name(work.name + ".old")
            try:
                work.chmod(0o755)
                _extract(stream, archive, release, there, work)
                os.sync()
                if os.path.lexists(target):
                    os.rename(target, old)
                os.rename(work, target)
            finally:
                if os.path.lexists(old) and not os.path.lexists(target):
                    os.rename(old, target)
                for rest in (work, old):
                    shutil.rmtree(rest, ignore_errors=True)
    return target


def _is_whole(folder: Path, release: Release) -> bool:
    try:
        if Release.read(folder) != release:
            return False
        release.verify(folder)
    except ReleaseError:
        return False
    return True


def _is_another(folder: Path, release: Release) -> bool:
    try:
        return Release.read(folder) != release
    except ReleaseError:
        return False


def _alike(layout: Layout, release: Release) -> dict[str, Path]:
    """Where the version that runs has the very files of `release`, by its own word; empty where none runs, or it lies elsewhere."""
    folder = Path(os.path.realpath(layout.current))
    if folder.parent != Path(os.path.realpath(layout.versions)):
        return {}
    try:
        files = Release.read(folder).files
    except ReleaseError:
        return {}
    return {name: folder / name for name, file in release.files.items() if files.get(name) == file}


@contextmanager
def _alone(versions: Path) -> Iterator[None]:
    """Nobody else unpacks there meanwhile; what one left that was cut off is gone."""
    handle = os.open(versions, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for rest in versions.glob(".*"):
            shutil.rmtree(rest, ignore_errors=True)
        yield
    except BlockingIOError:
        raise ReleaseError(f"{versions} is being written by another process; wait for it") from None
    finally:
        os.close(handle)


def _extract(archive: tarfile.TarFile, path: Path, release: Release, there: Mapping[str, Path], folder: Path) -> None:
    """Every file of the archive into `folder`, each checked against `release` as it is written, or linked to the one of `there`."""
    left = dict(release.files)
    while member := archive.next():
        file = left.pop(member.name, None)
        stream = archive.extractfile(member) if file is not None and member.isreg() and member.size == file.bytes else None
        if file is None or stream is None:
            raise ReleaseError(f"{path}: {member.name!r} is not what {DESCRIPTION} lists; {AGAIN}")
        target, mode = folder / member.name, 0o755 if member.mode & 0o100 else 0o644
        make_folder(target.parent)
        if member.name in there and _linked(there[member.name], target, mode, file.sha256):
            continue
        if _copied_sha256(stream, target, mode) != file.sha256:
            raise ReleaseError(f"{path}: {member.name} does not have the sha256 that {DESCRIPTION} lists; {AGAIN}")
    if left:
        raise ReleaseError(f"{path}: {min(left)} is missing ({len(left)} files); {AGAIN}")
    (folder / DESCRIPTION).write_text(release.to_json())
    (folder / DESCRIPTION).chmod(0o644)  # the service reads it, as its own user


def _linked(source: Path, target: Path, mode: int, sha256: str) -> bool:
    """Make `target` another name of `source`; False where that is not this file any more, or others may write it, or it cannot be linked."""
    try:
        found = os.lstat(source)
        if (found.st_mode, found.st_uid) != (stat.S_IFREG | mode, os.geteuid()) or os.path.realpath(source) != str(source):
            return False
        if sha256_of(source) != sha256:
            return False
        os.link(source, target)
    except OSError:
        return False
    return True


def _copied_sha256(stream: IO[bytes], target: Path, mode: int) -> str:
    """Write `stream` to `target`, which must not exist, and return the hex sha256 of what was written."""
    digest = hashlib.sha256()
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            out.write(piece)
        os.fchmod(out.fileno(), mode)
    return digest.hexdigest()
