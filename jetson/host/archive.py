"""Close a folder into a release: release.json over its files, then one archive whose bytes depend on nothing but those files."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

from ..release_file import DESCRIPTION, Release, ReleasedFile, sha256_of

FIRST = "systemd/"
_EPOCH_S = 315532800
"""1980-01-01, the oldest time that every archive format can hold: the one time of every file."""


def seal(folder: Path, *, version: str, python: str, arch: str, revision: str, model: str, model_digest: str) -> Release:
    """Write release.json over the files that `folder` holds, and return it; the keys are those of `Release`."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / DESCRIPTION:
            files[path.relative_to(folder).as_posix()] = ReleasedFile(path.stat().st_size, sha256_of(path))
    release = Release(version, python, arch, revision, model, model_digest, files)
    (folder / DESCRIPTION).write_text(release.to_json())
    return release


def pack(folder: Path, out: Path) -> Path:
    """The archive of a sealed folder in the folder `out`, under the name that its release gives it: written beside, then renamed."""
    release = Release.read(folder)
    target = out / release.file_name
    work = target.with_name(f".{target.name}.{os.getpid()}")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            open(work, "wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=4, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            # what is asked before anything is unpacked comes first
            for name in (DESCRIPTION, *sorted(release.files, key=lambda name: (not name.startswith(FIRST), name))):
                _add(archive, folder / name, name)
        os.replace(work, target)
    finally:
        work.unlink(missing_ok=True)
    return target


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = path.stat().st_size, _EPOCH_S
    info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    with open(path, "rb") as stream:
        archive.addfile(info, stream)
