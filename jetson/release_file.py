"""A release: everything that a board gets, as one file, `sage-edge-VERSION-pyXY-ARCH.tar.gz`, and as a folder under `versions/`.

release.json comes first in the archive and lists every other file with its size and sha256. Archives hold plain files alone, no links, no
folders of their own; a file is read-only or executable. Used on the host (jetson/overlay) and on the board (sage-edge-update), so it imports
nothing but Python's own library. Every refusal is a ReleaseError of one line.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .layout import Layout

SCHEMA = 1
DESCRIPTION = "release.json"
_MAX_DESCRIPTION_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_MACHINES = {183: "aarch64", 62: "x86_64"}
"""e_machine of an ELF file: EM_AARCH64, EM_X86_64 (elf.h)."""
_AGAIN = "copy it again or make it with jetson/release"


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
            raise ReleaseError(f"{where} is not valid JSON ({error}); {_AGAIN}") from None
        schema = value.get("schema") if isinstance(value, dict) else None
        if type(schema) is not int or schema < 1:
            raise ReleaseError(f"{where}: key 'schema' is {schema!r}, not a whole number; this is no release of sage-edge")
        if schema != SCHEMA:
            raise ReleaseError(f"{where} has schema {schema} and this sage-edge reads {SCHEMA}; install with the jetson/ tools that made it")
        plain = "[0-9A-Za-z][0-9A-Za-z._+-]*"
        rules = {"version": plain, "python": r"3\.[0-9]+", "arch": "[0-9a-z_]+", "revision": plain, "model": "[^\n]+", "model_digest": "[0-9a-f]{64}"}
        for key, rule in rules.items():
            if not isinstance(value.get(key), str) or not re.fullmatch(rule, value[key]):
                raise ReleaseError(f"{where}: key {key!r} is {value.get(key)!r}, which does not fit; {_AGAIN}")
        listed = value.get("files")
        if not isinstance(listed, dict):
            raise ReleaseError(f"{where}: key 'files' is no object; {_AGAIN}")
        files = {name: _entry(name, entry, where) for name, entry in listed.items()}
        if not any(name.startswith(value["model"] + "/") for name in files):
            raise ReleaseError(f"{where}: model {value['model']!r} is not among its files; {_AGAIN}")
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
        with _opened(path) as archive:
            return _description(archive, path)

    def read_text(self, archive: Path, name: str) -> str:
        """One of its files, out of the archive. Raises ReleaseError."""
        with _opened(archive) as stream:
            for member in stream:
                content = stream.extractfile(member) if member.name == name and member.isreg() and member.size <= _MAX_DESCRIPTION_BYTES else None
                if content is not None and name in self.files:
                    data = content.read()
                    if hashlib.sha256(data).hexdigest() == self.files[name].sha256:
                        return data.decode(errors="replace")
        raise ReleaseError(f"{archive} holds no whole {name}; {_AGAIN}")

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


def unpack(archive: Path, layout: Layout) -> Path:
    """Lay the release in `archive` under `layout.versions` and return its folder; what is there already and whole is left as it is.

    Checked before anything is written: that the system under `layout.root` has its Python and machine, and the room, and that no other release
    of this version is `current`. Checked while writing: each file's name, size and sha256. It is written beside and renamed once it is on
    the disk, so that no power cut leaves half a release under its name. Raises ReleaseError.
    """
    archive = Path(archive)
    with _opened(archive) as stream:
        release = _description(stream, archive)
        release.check_fits(layout.root)
        target = layout.versions / release.version
        if _is_whole(target, release):
            return target
        if os.path.realpath(layout.current) == os.path.realpath(target) and _is_another(target, release):
            raise ReleaseError(f"{target} runs and is another release of that version; make this one with another version")
        make_folder(layout.versions)
        with _alone(layout.versions):
            free_mb, needed_mb = shutil.disk_usage(layout.versions).free >> 20, int(release.unpacked_bytes * 1.1) >> 20
            if free_mb < needed_mb:
                raise ReleaseError(f"{layout.versions} has {free_mb} MB free and the release needs {needed_mb}; make room there")
            work = Path(tempfile.mkdtemp(prefix=f".{release.version}.", dir=layout.versions))
            old = work.with_name(work.name + ".old")
            try:
                work.chmod(0o755)
                _extract(stream, archive, release, work)
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


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _entry(name: str, entry: Any, where: str) -> ReleasedFile:
    if not is_safe(name):
        raise ReleaseError(f"{where}: path {name!r} leads out of the release; do not install it")
    size, sha256 = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if type(size) is not int or not 0 <= size < 1 << 40 or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ReleaseError(f"{where}: {name!r} has no size and sha256; {_AGAIN}")
    return ReleasedFile(size, sha256)


def is_safe(name: str) -> bool:
    """Whether `name` is a relative path in its one spelling, which stays inside and is not the description itself."""
    path = PurePosixPath(name)
    return path.parts != () and str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name and name != DESCRIPTION


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


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, read once from its start; whatever is wrong with it is a ReleaseError."""
    try:
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ReleaseError(f"{path} is damaged or no release ({error}); {_AGAIN}") from None
    except OSError as error:
        raise ReleaseError(f"{error.filename or path}: {error.strerror or error}; check the path, its permissions and the disk") from None


def _description(archive: tarfile.TarFile, path: Path) -> Release:
    first = archive.next()
    if first is None or first.name != DESCRIPTION or not first.isreg() or first.size > _MAX_DESCRIPTION_BYTES:
        raise ReleaseError(f"{path} does not begin with {DESCRIPTION}: it is no release of sage-edge; {_AGAIN}")
    stream = archive.extractfile(first)
    assert stream is not None
    return Release.from_json(stream.read(), f"{path}: {DESCRIPTION}")


def _extract(archive: tarfile.TarFile, path: Path, release: Release, folder: Path) -> None:
    """Every file of the archive into `folder`, each checked against `release` as it is written."""
    left = dict(release.files)
    while member := archive.next():
        file = left.pop(member.name, None)
        stream = archive.extractfile(member) if file is not None and member.isreg() and member.size == file.bytes else None
        if file is None or stream is None:
            raise ReleaseError(f"{path}: {member.name!r} is not what {DESCRIPTION} lists; {_AGAIN}")
        target = folder / member.name
        make_folder(target.parent)
        if _copied_sha256(stream, target, 0o755 if member.mode & 0o100 else 0o644) != file.sha256:
            raise ReleaseError(f"{path}: {member.name} does not have the sha256 that {DESCRIPTION} lists; {_AGAIN}")
    if left:
        raise ReleaseError(f"{path}: {min(left)} is missing ({len(left)} files); {_AGAIN}")
    (folder / DESCRIPTION).write_text(release.to_json())
    (folder / DESCRIPTION).chmod(0o644)  # the service reads it, as its own user


def make_folder(folder: Path) -> None:
    """`folder` and its missing parents, readable by all whatever the umask."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _copied_sha256(stream: IO[bytes], target: Path, mode: int) -> str:
    """Write `stream` to `target`, which must not exist, and return the hex sha256 of what was written."""
    digest = hashlib.sha256()
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            out.write(piece)
        os.fchmod(out.fileno(), mode)
    return digest.hexdigest()
