"""Jetson modules, boards and JetPack releases as data (boards.json, with a source for each row), and which of them this machine is.

A revision that the table does not know is never an error: `detect` takes the nearest of its line and says so. Nothing but Python's own library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Module:
    """The part with the processor, such as p3767-0005. `usb` is its product number in recovery mode, under NVIDIA's vendor number 0955."""

    id: str
    name: str
    family: str
    soc: str
    sm: int
    memory_gb: int
    usb: str
    storages: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Board:
    """What NVIDIA's tools call a board: a configuration of the driver package, by name. `since` is the first L4T that has it, by line."""

    name: str
    modules: tuple[str, ...]
    since: dict[int, str]
    source: str


@dataclass(frozen=True)
class Line:
    """A major number of L4T: what every JetPack of it shares. `hosts` are the Ubuntu releases that may flash it.

    `kmod_below`: a host's depmod as new as this writes module indexes that the board cannot read; None where none is known.
    """

    major: int
    jetpack: str
    supported: bool
    why_not: str | None
    families: tuple[str, ...]
    ubuntu: str
    python: str
    glibc: str
    kernel: str
    hosts: tuple[str, ...]
    kmod_below: int | None
    source: str


@dataclass(frozen=True)
class Revision:
    """One release of L4T. `downloads` is a folder (it ends in /) or a page; None in `cuda` and `tensorrt`: not read anywhere yet."""

    l4t: str
    jetpack: str
    cuda: str | None
    tensorrt: str | None
    downloads: str | None
    tag: str | None
    source: str

    @property
    def driver_package(self) -> str:
        return f"Jetson_Linux_{self.tag or 'R' + self.l4t}_aarch64.tbz2"

    @property
    def sample_rootfs(self) -> str:
        return f"Tegra_Linux_Sample-Root-Filesystem_{self.tag or 'R' + self.l4t}_aarch64.tbz2"

    def where(self, file: str) -> str:
        """The public address of `file`, or of the page that links it."""
        folder = self.downloads or "https://developer.nvidia.com/embedded/jetson-linux-archive"
        return folder + file if folder.endswith("/") else folder


@dataclass(frozen=True)
class Recipe:
    """How the guide of a line flashes one family onto some storages. In `argv`, {board}, {device} and {erase} stand for what the plan knows.

    `erase_all_since`: the first L4T whose guide passes --erase-all; None where none does.
    """

    majors: tuple[int, ...]
    family: str
    storages: tuple[str, ...]
    erase_all_since: str | None
    env: dict[str, str]
    argv: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Quirk:
    """Something that is known to go wrong. `l4t` holds whole revisions (36.5.0) or majors (36)."""

    id: str
    l4t: tuple[str, ...]
    families: tuple[str, ...]
    fact: str
    fix: str
    source: str

    def concerns(self, l4t: str, family: str | None) -> bool:
        return (family is None or family in self.families) and (l4t in self.l4t or l4t.split(".")[0] in self.l4t)


@dataclass(frozen=True)
class Failure:
    """What a failed run of NVIDIA's tools is known by: `pattern`, searched in its output."""

    pattern: str
    fact: str
    fix: str
    source: str


@dataclass(frozen=True)
class Table:
    """All of boards.json."""

    sources: dict[str, str]
    modules: dict[str, Module]
    boards: dict[str, Board]
    lines: dict[int, Line]
    revisions: dict[str, Revision]
    recipes: tuple[Recipe, ...]
    quirks: tuple[Quirk, ...]
    failures: tuple[Failure, ...]

    def modules_of(self, board: Board) -> list[Module]:
        return [self.modules[name] for name in board.modules]

    def storages_of(self, board: Board) -> list[str]:
        """What some module of the board can hold its system on, the usual one first."""
        found = [storage for module in self.modules_of(board) for storage in module.storages]
        return list(dict.fromkeys(found))


def number(l4t: str) -> tuple[int, ...]:
    """36.4.3 as a tuple that compares; 36.4 is 36.4.0."""
    parts = [int(part) for part in re.findall(r"\d+", l4t)[:3]]
    return tuple(parts + [0] * (3 - len(parts)))


def _row(cls: type, row: dict[str, Any]) -> Any:
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})


@lru_cache(maxsize=1)
def table() -> Table:
    """boards.json, read once."""
    data = json.loads(Path(__file__).with_name("boards.json").read_text(encoding="utf-8"))
    boards = [_row(Board, {**row, "since": {int(major): l4t for major, l4t in row["since"].items()}}) for row in data["boards"]]
    return Table(
        sources=data["sources"],
        modules={row["id"]: _row(Module, row) for row in data["modules"]},
        boards={board.name: board for board in boards},
        lines={row["major"]: _row(Line, row) for row in data["lines"]},
        revisions={row["l4t"]: _row(Revision, row) for row in data["revisions"]},
        recipes=tuple(_row(Recipe, row) for row in data["recipes"]),
        quirks=tuple(_row(Quirk, row) for row in data["quirks"]),
        failures=tuple(_row(Failure, row) for row in data["failures"]),
    )


def nearest(l4t: str, known: Iterable[str]) -> str:
    """Of `known`, the newest that is not newer than `l4t`, else the oldest; `known` is not empty."""
    ordered = sorted(known, key=number)
    older = [each for each in ordered if number(each) <= number(l4t)]
    return older[-1] if older else ordered[0]


@dataclass(frozen=True)
class Device:
    """This Jetson. `line` and `revision` are the nearest known ones; `warnings` says where that is not the one that was read.

    `l4t` and all that hangs on it is None on a Jetson without NVIDIA's system, `module` where the device tree names none that is known.
    """

    model: str
    compatible: tuple[str, ...]
    l4t: str | None
    line: Line | None
    revision: Revision | None
    module: Module | None
    super_mode: bool
    warnings: tuple[str, ...]

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """What is known to go wrong with exactly this L4T on this family."""
        family = self.module.family if self.module else None
        return tuple(quirk for quirk in table().quirks if self.l4t and quirk.concerns(self.l4t, family))


def detect(root: Path | str = "/") -> Device | None:
    """The Jetson whose system lies under `root`, or None when it is none. Reads files alone and raises nothing."""
    base = Path(root)
    model, compatible = (_strings(base / "proc/device-tree" / name) for name in ("model", "compatible"))
    l4t = installed(base)
    if l4t is None and not any(name.startswith("nvidia,tegra") or re.match(r"nvidia,p\d{4}", name) for name in compatible):
        return None
    line, revision, warnings = known(l4t) if l4t else (None, None, ["no NVIDIA system found (/etc/nv_tegra_release): flash the board with JetPack"])
    control = _text(base / "etc/nv_boot_control.conf")
    module = _module(compatible, control)
    if module is None:
        warnings.append(f"unknown module {', '.join(compatible[:2]) or 'without a device tree'}: what is said about it may be wrong")
    elif line is not None and line.supported and module.family not in line.families:
        warnings.append(f"L4T {l4t} is not made for {module.name}")
    boosted = any(name.endswith("-super") for name in compatible) or "-super" in control
    return Device(model[0] if model else "", compatible, l4t, line, revision, module, boosted, tuple(warnings))


def installed(root: Path) -> str | None:
    """The L4T revision of the system under `root`, such as 36.4.4: from /etc/nv_tegra_release, else from dpkg's own record."""
    found = re.search(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", _text(root / "etc/nv_tegra_release"))
    if found:
        return ".".join(map(str, number(f"{found[1]}.{found[2]}")))
    for stanza in _text(root / "var/lib/dpkg/status").split("\n\n"):
        if re.search(r"^Package: nvidia-l4t-core$", stanza, re.MULTILINE):
            version = re.search(r"^Version: (\d+\.\d+(?:\.\d+)?)", stanza, re.MULTILINE)
            return ".".join(map(str, number(version[1]))) if version else None
    return None


def known(l4t: str) -> tuple[Line, Revision, list[str]]:
    """The line and revision to go by for `l4t`, and what to warn of. An unknown one takes the nearest: new ones appear by apt every few months."""
    all_of = table()
    major = number(l4t)[0]
    lines = sorted(all_of.lines)
    taken = max([each for each in lines if each <= major], default=lines[0])
    line = all_of.lines[taken]
    revision = all_of.revisions[nearest(l4t, [each for each in all_of.revisions if number(each)[0] == taken])]
    warnings = []
    if taken != major:
        warnings.append(f"L4T {l4t} is of a line that is not known yet, taken for {revision.l4t} (JetPack {revision.jetpack})")
    elif revision.l4t != l4t:
        warnings.append(f"L4T {l4t} is not known yet, taken for {revision.l4t} (JetPack {revision.jetpack})")
    if not line.supported:
        warnings.append(f"JetPack {line.jetpack} (L4T {l4t}) is not supported: {line.why_not}; flash JetPack 6 or newer")
    return line, revision, warnings


def _module(compatible: tuple[str, ...], control: str) -> Module | None:
    """By the device tree; Thor's does not always tell T4000 from T5000, there the record of flashing comes first (TNSPEC 3834-...-0008-...)."""
    modules = table().modules
    flashed = re.search(r"TNSPEC\s+(\d{4})-(?:[^-\s]*-)?(\d{4})\b", control)
    by_control = modules.get(f"p{flashed[1]}-{flashed[2]}") if flashed else None
    named = [found[0] for name in compatible for found in [re.search(r"p(?:3767|3701|3834)-\d{4}", name)] if found]
    by_tree = next((modules[name] for name in named if name in modules), None)
    return by_control if by_control and by_control.family == "thor" else by_tree or by_control


def _strings(path: Path) -> tuple[str, ...]:
    """A property of the device tree: strings, each ended by NUL."""
    return tuple(part.strip() for part in _text(path).split("\0") if part.strip())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
