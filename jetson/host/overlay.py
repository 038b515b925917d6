"""Lay a release into a root file system, offline: `sudo jetson/overlay ROOTFS --release FILE [--conf KEY=VALUE ...]`.

ROOTFS is a folder: NVIDIA's Linux_for_Tegra/rootfs, or the root partition of a board's disk, mounted. Nothing in it is run, so any host does.
A second run with the same release changes nothing; one with another release makes that the version which starts. Settings that are
there stay, but for those given by --conf.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..lay_in import install_system_files, switch, system_targets
from ..layout import Layout
from ..release_file import Release, ReleaseError
from ..settings_file import SettingsError, change_settings, parse_setting, with_settings
from ..unpack import unpack
from .errors import HostError

PACKAGES = {
    "libportaudio2": "microphones",
    "gstreamer1.0-tools": "CSI cameras",
    "gstreamer1.0-plugins-base": "CSI cameras",
}
"""What Ubuntu brings and a release cannot: Debian package -> what needs it. sage-edge doctor names the rest on the board itself."""


def overlay(root: Path, archive: Path, settings: Mapping[str, str], say: Callable[[str], None] = print) -> Path:
    """Unpack `archive` under `root`, make it the version that runs, link and enable its units; returns its folder.

    Raises HostError, with nothing switched, for a root that is the running system, is no root file system, has another Python or machine,
    belongs to another user, or lacks room, and for a release that is damaged or does not know a setting.
    """
    _check_root(root)
    return lay_in(Layout(root), archive, settings, say)


def lay_in(layout: Layout, archive: Path, settings: Mapping[str, str], say: Callable[[str], None] = print) -> Path:
    """`overlay` without its look at the root, for the system that runs."""
    try:
        release = Release.read(archive)
        _check_links(layout, release.files)
        example = check_settings(layout, release, archive, settings)
        folder = unpack(archive, layout)
        say(f"{_inside(folder, layout)}: sage-edge {release.version}, {len(release.files)} files, {release.unpacked_bytes / 1e6:.0f} MB")
        written = install_system_files(folder, layout)
        if settings and change_settings(layout.settings, settings, example):
            written.append(layout.settings)
        written += switch(layout, folder)
    except (ReleaseError, SettingsError) as error:
        raise HostError(str(error)) from None
    except OSError as error:
        raise HostError(f"{error.filename or layout.root}: {error.strerror or error}; check its permissions and the disk") from None
    for path in dict.fromkeys(written):
        arrow = f" -> {os.readlink(path)}" if path.is_symlink() else ""
        say(f"{_inside(path, layout)}{arrow}")
    if not written:
        say("all else was as it should be")
    return folder


def plan(root: Path, archive: Path, settings: Mapping[str, str]) -> list[str]:
    """What `overlay` would write, a line each. Raises HostError where it would refuse."""
    _check_root(root)
    layout = Layout(root)
    try:
        release = Release.read(archive)
        release.check_fits(root)
        _check_links(layout, release.files)
        check_settings(layout, release, archive, settings)
    except (ReleaseError, SettingsError) as error:
        raise HostError(str(error)) from None
    lines = [f"{_inside(layout.versions / release.version, layout)}: {len(release.files)} files, {release.unpacked_bytes / 1e6:.0f} MB"]
    for name, target in system_targets(release.files, layout).items():
        if target == layout.settings:
            lines.append(f"{_inside(target, layout)}" + (": stays" if target.exists() else ""))
        elif target.suffix == ".rules":
            lines.append(_inside(target, layout))
        else:
            lines.append(f"{_inside(target, layout)} -> {_inside(layout.current / name, layout)}")
    lines += [f"{_inside(layout.settings, layout)}: {key}" for key in settings]
    return [*lines, f"{_inside(layout.current, layout)} -> versions/{release.version}"]


def missing_packages(root: Path) -> list[str]:
    """Of PACKAGES, those that dpkg's own list under `root` does not call installed; none where there is no such list."""
    try:
        text = (root / "var/lib/dpkg/status").read_text(errors="replace")
    except OSError:
        return []
    installed = [each for each in text.split("\n\n") if re.search("^Status: .* installed$", each, re.MULTILINE)]
    present = {name for each in installed for name in re.findall("^Package: (.*)$", each, re.MULTILINE)}
    # Ubuntu 24.04 renamed libraries with 64-bit times: libportaudio2t64 would provide libportaudio2
    return [name for name in PACKAGES if not {name, name + "t64"} & present]


def _check_root(root: Path) -> None:
    if not (root / "usr/bin").is_dir() or not (root / "etc").is_dir():
        raise HostError(f"{root} is no root file system; unpack one there (sudo tar -xpf), or mount the board's root partition and name that folder")
    if os.path.samefile(root, "/"):
        raise HostError(f"{root} is the system that runs; use jetson/provision --local")
    owner = (root / "usr").stat().st_uid
    if os.geteuid() not in (0, owner):
        raise HostError(f"{root} belongs to user {owner} and this is user {os.geteuid()}; run it with sudo")
    if not os.access(root / "etc", os.W_OK):
        raise HostError(f"{root / 'etc'} cannot be written; mount it anew for that (sudo mount -o remount,rw), or mend its permissions")


def check_settings(layout: Layout, release: Release, archive: Path, settings: Mapping[str, str]) -> str:
    """The settings file as the release has it. Raises SettingsError for one of `settings` that does not exist, before anything is written."""
    if not settings:
        return ""
    example = release.read_text(archive, f"systemd/{layout.settings.name}")
    with_settings(layout.settings.read_text() if layout.settings.exists() else "", settings, example)
    return example


def _check_links(layout: Layout, names: Iterable[str]) -> None:
    """Raises HostError where a link of the root file system would lead what is written out of it."""
    root = layout.root.resolve()
    units = layout.root / "etc/systemd/system"
    targets = {
        layout.versions,
        *(target.parent for target in system_targets(names, layout).values()),
        *units.glob("*.wants"),
        *units.glob("*.requires"),
    }
    for folder in sorted(targets):
        if not folder.resolve().is_relative_to(root):
            raise HostError(f"{folder} leads to {folder.resolve()}, outside of {layout.root}; make it a relative link")


def _inside(path: Path, layout: Layout) -> str:
    """`path` as the board will see it."""
    return "/" + str(path.relative_to(layout.root))


def main() -> int:
    parser = argparse.ArgumentParser(prog="jetson/overlay", description="Lay a release of sage-edge into a root file system, offline.")
    parser.add_argument("rootfs", type=Path, help="a folder, such as Linux_for_Tegra/rootfs or a mounted root partition")
    parser.add_argument("--release", type=Path, required=True, metavar="FILE", help="what jetson/release made")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of /etc/sage-edge/sage-edge.conf; any number")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    arguments = parser.parse_args()
    try:
        settings = dict(map(parse_setting, arguments.conf))
        if arguments.dry_run:
            print("\n".join(plan(arguments.rootfs, arguments.release, settings)))
        else:
            overlay(arguments.rootfs, arguments.release, settings)
        if missing := missing_packages(arguments.rootfs):
            needed = ", ".join(dict.fromkeys(PACKAGES[name] for name in missing))
            print(f"note: the root file system has no {' '.join(missing)}, needed for {needed}: apt-get install it there, or on the board")
    except (HostError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again, it goes on from there", file=sys.stderr)
        return 130
    return 0
