"""Make an unpacked release the system's own: units, udev rules and settings where the system looks for them, commands on PATH, `current`.

Used by jetson/overlay on an image and by jetson/provision on the board, so it imports nothing but Python's own library. Units and commands are
links through `current`: switching it switches them too. Rules and settings are copied. What is as it should be is left alone;
`systemctl daemon-reload` is the caller's.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .layout import Layout
from .release_file import make_folder

_UNITS = (".service", ".timer", ".path", ".socket", ".target")
_COMMANDS = ("bin/sage-edge", "bin/sage-edge-update", "bin/sage-edge-first-boot")
"""What an owner types; the other launchers are for units."""


def system_targets(names: Iterable[str], layout: Layout) -> dict[str, Path]:
    """Where each of a release's files `names` belongs outside its own folder; those that stay in it alone are left out."""
    targets = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if str(path.parent) == "systemd" and path.suffix in _UNITS:
            targets[name] = layout.root / "etc/systemd/system" / path.name
        elif str(path.parent) == "systemd" and path.suffix == ".rules":
            targets[name] = layout.root / "etc/udev/rules.d" / path.name
        elif str(path.parent) == "systemd" and path.name == layout.settings.name:
            targets[name] = layout.settings
        elif name in _COMMANDS:
            targets[name] = layout.root / "usr/local/bin" / path.name
    return targets


def install_system_files(folder: Path, layout: Layout) -> list[Path]:
    """Put the release's units, commands, rules and settings in their places and return what was written.

    Settings that are there stay. A unit that the system did not have is enabled as its [Install] says; one that it had keeps what its owner
    chose. Raises FileExistsError where something that is no link has the place of a unit or a command.
    """
    written: list[Path] = []
    names = [path.relative_to(folder).as_posix() for path in (*folder.glob("systemd/*"), *folder.glob("bin/*"))]
    for name, target in system_targets(names, layout).items():
        if target == layout.settings or target.suffix == ".rules":
            content = (folder / name).read_bytes()
            if not target.exists() or (target != layout.settings and target.read_bytes() != content):
                write_beside(target, content, 0o600 if target == layout.settings else 0o644)
                written.append(target)
            continue
        if target.is_symlink() and os.readlink(target) == os.devnull:
            continue  # masked
        if target.suffix in _UNITS and not target.is_symlink():
            # before the unit itself: cut off in between, the next run still sees a new unit
            written += _enable(target, (folder / name).read_text(), layout)
        written += point(target, "/" + str((layout.current / name).relative_to(layout.root)))
    return written


def switch(layout: Layout, folder: Path) -> list[Path]:
    """Make `folder` the version that runs, in one step; returns the link when it changed."""
    return point(layout.current, os.path.relpath(folder, layout.prefix))


def point(link: Path, target: str) -> list[Path]:
    """Make `link` a symlink to `target` in one step, and return it in a list; nothing is done and returned when it is one."""
    if link.is_symlink() and os.readlink(link) == target:
        return []
    if link.exists() and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "is there already and no link", str(link))
    make_folder(link.parent)
    work = link.with_name(f".{link.name}.{os.getpid()}")
    work.unlink(missing_ok=True)
    work.symlink_to(target)
    os.replace(work, link)
    _sync(link.parent)
    return [link]


def write_beside(target: Path, content: bytes, mode: int) -> None:
    """`target` with these bytes and permissions, whole or as it was before, on the disk when this returns."""
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            stream.flush()  # fsync knows nothing of Python's own buffer
            os.fsync(stream.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _enable(unit: Path, text: str, layout: Layout) -> list[Path]:
    """The links of the unit's [Install] section."""
    written: list[Path] = []
    install = re.search(r"^\[Install\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    for key, others in re.findall(r"^(WantedBy|RequiredBy)=(.*)$", install[1] if install else "", re.MULTILINE):
        for other in others.split():
            folder = unit.with_name(other + {"WantedBy": ".wants", "RequiredBy": ".requires"}[key])
            written += point(folder / unit.name, "/" + str(unit.relative_to(layout.root)))
    return written


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
