"""Other releases made from one: the same files under another version, some of them changed, so that there is something to update to."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from sage_edge.jetson.release_file import DESCRIPTION, Release, ReleasedFile

Change = Callable[[bytes], bytes]


def altered(source: Path, folder: Path, version: str, changes: dict[str, Change], without: tuple[str, ...] = ()) -> Path:
    """A release in `folder` that calls itself `version`; `changes` maps a path in it to what becomes of its bytes, and what lies in the folders
    `without` is left out. `source` may be a plain tar of the archive, which is read faster. What comes out verifies like any other, and is not
    compressed: an emulated core would spend its time on that."""
    with tarfile.open(source) as archive:
        release = Release.from_json(_bytes(archive, DESCRIPTION))
        changed = {name: change(_bytes(archive, name)) for name, change in changes.items()}
        files = {name: ReleasedFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in changed.items()}
        kept = {name: file for name, file in release.files.items() if not name.startswith(without)} if without else release.files
        other = dataclasses.replace(release, version=version, files={**kept, **files})
        changed[DESCRIPTION] = other.to_json().encode()
        target = folder / other.file_name
        with tarfile.open(target, "w:gz", compresslevel=0) as out:
            for member in archive:
                if member.name != DESCRIPTION and member.name not in other.files:
                    continue
                data = changed.get(member.name)
                if data is None:
                    out.addfile(member, archive.extractfile(member))
                else:
                    member.size = len(data)
                    out.addfile(member, io.BytesIO(data))
    return target


def _bytes(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()
