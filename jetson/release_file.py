"""A release: everything that a board gets, as one file, `sage-edge-VERSION-pyXY-ARCH.tar.gz`, and as a folder under `versions/`.

release.json comes first in the archive and lists every other file with its size and sha256. Archives hold plain files alone, no links, no
folders of their own; a file is read-only or executable. Used on the host (jetson/overlay) and on the board (sage-edge-update), so it imports
nothing but Python's own library. Every refusal is a ReleaseError of one line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

SCHEMA = 1
DESCRIPTION = "release.json"
_MAX_DESCRIPTION_BYTES = 16 << 20
PIECE_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
"""Of an archive: by tarfile's own 10 KB, passing over a file takes three times as long."""
_MACHINES = {183: "aarch64", 62: "x86_64"}
"""e_machine of an ELF file: EM_AARCH64, EM_X86_64 (elf.h)."""
AGAIN = "copy it again or make it with jetson/release"


class ReleaseError(Exception):
    """A release that is damaged, unsafe or made for another Python or machine."""


@dataclass(frozen=True)
class ReleasedFile:
    """Size and hex sha256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """What release.json says. `python` is "3.10", `arch` is "aarch64", `model` the bundle's path in the release, `model_digest` the digest in
    its manifest, `revision` the git revision of sage-edge, `files` every other file by its relative POSIX path."""

    version: str
    python: str
    arch: str
    revision: str
    model: str
    model_digest: str
    files: dict[str, ReleasedFile]
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        return f"sage-edge-{self.version}-py{self.python.replace('.', '')}-{self.arch}.tar.gz"

    @property
    def unpacked_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> str:
        """The text of release.json. Raises ReleaseError when it would not pass `from_json`."""
        value = {**vars(self), "files": {name: vars(file) for name, file in sorted(self.files.items())}}
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        Release.from_json(text)
        return text

    @classmethod
    def from_json(cls, text: str | bytes, where: str = DESCRIPTION) -> Release:
        """Parse and check every key. Raises ReleaseError."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReleaseError(f"{where} is not valid JSON ({error}); {AGAIN}") from None
        schema = value.get("schema") if isinstance(value, dict) else None
        if type(schema) is not int or schema < 1:
            raise ReleaseError(f"{where}: key 'schema' is {schema!r}, not a whole number; this is no release of sage-edge")
        if schema != SCHEMA:
            raise ReleaseError(f"{where} has schema {schema} and this sage-edge reads {SCHEMA}; install with the jetson/ tools that made it")
        plain = "[0-9A-Za-z][0-9A-Za-z._+-]*"
        rules = {"version": plain, "python": r"3\.[0-9]+", "arch": "[0-9a-z_]+", "revision": plain, "model": "[^\n]+", "model_digest": "[0-9a-f]{64}"}
        for key, rule in rules.items():
            if not isinstance(value.get(key), str) or not re.fullmatch(rule, value[key]):
                raise ReleaseError(f"{where}: key {key!r} is {value.get(key)!r}, which does not fit; {AGAIN}")
        listed = value.get("files")
        if not isinstance(listed, dict):
            raise ReleaseError(f"{where}: key 'files' is no object; {AGAIN}")
        files = {name: _entry(name, entry, where) for name, entry in listed.items()}
        if not any(name.startswith(value["model"] + "/") for name in files):
            raise ReleaseError(f"{where}: model {value['model']!r} is not among its files; {AGAIN}")
        return cls(**{key: value[key] for key in rules}, files=files)

    @classmethod
    def read(cls, path: Path) -> Release:
        """The release in an archive or an unpacked folder, without looking at its files. Raises ReleaseError."""
        path = Path(path)
        if path.is_dir():
            try:
                return cls.from_json((path / DESCRIPTION).read_bytes(), str(path / DESCRIPTION))
            except OSError as error:
                raise ReleaseError(f"{path / DESCRIPTION} cannot be read ({error.strerror}); {path} is no release") from None
        with opened(path) as (release, _):
            return release

    def read_text(self, archive: Path, name: str) -> str:
        """One of its files, out of the archive. Raises ReleaseError."""
        with opened(archive) as (_, stream):
            for member in stream:
                content = stream.extractfile(member) if member.name == name and member.isreg() and member.size <= _MAX_DESCRIPTION_BYTES else None
                if content is not None and name in self.files:
                    data = content.read()
                    if hashlib.sha256(data).hexdigest() == self.files[name].sha256:
                        return data.decode(errors="replace")
        raise ReleaseError(f"{archive} holds no whole {name}; {AGAIN}")

    def verify(self, folder: Path) -> None:
        """Check that `folder` holds these files, whole, and no others but Python's compiled ones. Raises ReleaseError."""
        found = {
            (Path(here) / name).relative_to(folder).as_posix()
            for here, _, names in os.walk(folder)
            if "__pycache__" not in Path(here).relative_to(folder).parts
            for name in names
        }
        if missing := sorted(self.files.keys() - found):
            raise ReleaseError(f"{folder} lacks {missing[0]} ({len(missing)} missing); install the release again")
        if foreign := sorted(found - self.files.keys() - {DESCRIPTION}):
            raise ReleaseError(f"{folder} holds {foreign[0]}, which its release does not list; install the release again")
        for name, file in self.files.items():
            path = folder / name
            if path.is_symlink() or path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
                raise ReleaseError(f"{path} is not what its release lists; install the release again")

    def check_fits(self, root: Path) -> None:
        """Raises ReleaseError where the system under `root` has not the Python or the machine that this release was made for."""
        found = pythons(root)
        if not found:
            raise ReleaseError(f"{root} has no /usr/bin/python3.X; is it a root file system? apt-get install python3 there")
        newest, machine = list(found.items())[-1]
        if machine != self.arch:
            raise ReleaseError(f"the release is for {self.arch} and {root} is {machine}; name the board's root file system, or make a release for it")
        if self.python not in found:
            have = f"{root} has Python {', '.join(found)}"
            raise ReleaseError(f"the release is for Python {self.python} and {have}; make one with jetson/release --python {newest}")


def pythons(root: Path) -> dict[str, str]:
    """Python version -> machine ("aarch64") of every /usr/bin/python3.X under `root`, read from the files themselves: nothing is run."""
    found = {}
    for path in sorted((Path(root) / "usr/bin").glob("python3.*"), key=lambda path: (len(path.name), path.name)):
        version = path.name.removeprefix("python")
        if re.fullmatch(r"3\.\d+", version) and path.is_file() and (machine := machine_of(path)):
            found[version] = machine
    return found


def machine_of(path: Path) -> str | None:
    """The machine of an executable or a library ("aarch64"); None for any other file."""
    with open(path, "rb") as stream:
        head = stream.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    (machine,) = struct.unpack("<H", head[18:20])
    return _MACHINES.get(machine, f"machine {machine}")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _entry(name: str, entry: Any, where: str) -> ReleasedFile:
    if not is_safe(name):
        raise ReleaseError(f"{where}: path {name!r} leads out of the release; do not install it")
    size, sha256 = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if type(size) is not int or not 0 <= size < 1 << 40 or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ReleaseError(f"{where}: {name!r} has no size and sha256; {AGAIN}")
    return ReleasedFile(size, sha256)


def is_safe(name: str) -> bool:
    """Whether `name` is a relative path in its one spelling, which stays inside and is not the description itself."""
    path = PurePosixPath(name)
    return path.parts != () and str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name and name != DESCRIPTION


@contextmanager
def opened(path: Path) -> Iterator[tuple[Release, tarfile.TarFile]]:
    """The release in an archive and the stream of its files, read once from its start; whatever is wrong with it is a ReleaseError."""
    try:
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|gz", bufsize=_BUFFER_BYTES) as archive:
            first = archive.next()
            if first is None or first.name != DESCRIPTION or not first.isreg() or first.size > _MAX_DESCRIPTION_BYTES:
                raise ReleaseError(f"{path} does not begin with {DESCRIPTION}: it is no release of sage-edge; {AGAIN}")
            stream = archive.extractfile(first)
            assert stream is not None
            yield Release.from_json(stream.read(), f"{path}: {DESCRIPTION}"), archive
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ReleaseError(f"{path} is damaged or no release ({error}); {AGAIN}") from None
    except OSError as error:
        raise ReleaseError(f"{error.filename or path}: {error.strerror or error}; check the path, its permissions and the disk") from None


def make_folder(folder: Path) -> None:
    """`folder` and its missing parents, readable by all whatever the umask."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)
