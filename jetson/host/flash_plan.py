"""What flashing a board takes, as data: ordered steps, each with its command, why it is there and what proves that it was done.

The commands are those of NVIDIA's guides, by line, family and storage (boards.json, `recipes`). Nothing here looks at the host or runs anything.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ..boards import Board, Line, Module, Recipe, Revision, known, number, table
from ..layout import Layout
from ..release_file import Release, ReleaseError
from ..settings_file import SettingsError, parse_setting
from .bsp import Bsp
from .errors import HostError
from .overlay import check_settings

STEPS = ("rootfs", "prerequisites", "binaries", "user", "overlay", "flash")
STORAGES = {"nvme": "nvme0n1p1", "usb": "sda1", "sd": "mmcblk0p1", "emmc": "mmcblk0p1"}
"""Storage -> partition of the system, as the board names it."""
FAMILIES = {"orin-nano": "Jetson Orin Nano and Orin NX", "agx-orin": "Jetson AGX Orin", "thor": "Jetson Thor"}
TARGETS = {"nvme": "NVMe drive", "usb": "USB drive", "sd": "SD card", "emmc": "module's eMMC"}
OVERLAY = Path(__file__).resolve().parents[1] / "overlay"
MASK = "********"


@dataclass(frozen=True)
class Wish:
    """What the caller wants; see `jetson/flash --help`."""

    board: str
    storage: str
    user: str
    hostname: str
    password: str | None = None
    rootfs: Path | None = None
    release: Path | None = None
    settings: tuple[str, ...] = ()
    media_gb: int | None = None
    accept_license: bool = False


@dataclass(frozen=True)
class Step:
    """One command, run in the driver package's folder. `secrets` are arguments that are never shown."""

    name: str
    argv: tuple[str, ...]
    why: str
    proof: str
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def command(self) -> str:
        """For people and the log: quoted for a shell, without secrets."""
        words = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join(words + [MASK if word in self.secrets else shlex.quote(word) for word in self.argv])


@dataclass(frozen=True)
class Plan:
    """All steps for one board, and what they were made from. `warnings` are worth reading before a run."""

    board: Board
    modules: tuple[Module, ...]
    line: Line
    revision: Revision
    l4t: str
    recipe: Recipe
    wish: Wish
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    @property
    def family(self) -> str:
        return self.modules[0].family

    @property
    def media_gb(self) -> int:
        """What the default partition layout needs: Flashing Support of R36 and R38 (64 GB), FlashingSupportJetsonThor of R39.2.1 (234 GB)."""
        return 234 if self.family == "thor" and self.line.major >= 39 else 64

    @property
    def host_gb(self) -> int:
        """Room that archives, root file system and images take on the host, about."""
        return 60 if self.line.major <= 36 else 80


def make_plan(bsp: Bsp, wish: Wish) -> Plan:
    """The plan for `wish` with this driver package. Raises HostError for what can never work: an unknown board, a storage that it has not, an L4T
    that is not for it, a package without the board's configuration, a release for another Python, a setting that it has not."""
    if re.search(r"\s", str(bsp.root)):
        raise HostError(f"{bsp.root} has a space in its path, which NVIDIA's tools do not take; move it to one without")
    board = _board(wish.board)
    l4t = bsp.l4t
    line, revision, warnings = known(l4t)
    modules = tuple(table().modules_of(board))
    _check_line(board, modules, line, l4t)
    if wish.storage not in table().storages_of(board):
        fits = ", ".join(table().storages_of(board))
        raise HostError(f"{board.name} has no {wish.storage}: --storage takes {fits}")
    recipe = next(
        each for each in table().recipes if line.major in each.majors and each.family == modules[0].family and wish.storage in each.storages
    )
    _check_names(wish)
    plan = Plan(board, modules, line, revision, l4t, recipe, wish, (), tuple(warnings))
    if wish.media_gb is not None and wish.storage != "emmc" and wish.media_gb < plan.media_gb:
        fix = "take a larger one, or make the partitions smaller first (num_sectors in the layout, ROOTFSSIZE: NVIDIA's guide, Flashing Support)"
        raise HostError(f"{TARGETS[wish.storage]} of {wish.media_gb} GB: the partition layout needs {plan.media_gb} GB; {fix}")
    _check_package(bsp, plan)
    _check_release(bsp, wish, line)
    return Plan(board, modules, line, revision, l4t, recipe, wish, tuple(_steps(bsp, plan)), tuple(warnings))


def missing_rootfs(plan: Plan) -> str:
    """The error for a root file system that is neither unpacked nor given."""
    file = plan.revision.sample_rootfs
    return f"rootfs/ is empty and no --rootfs is given: download {file} ({plan.revision.where(file)}) and give it with --rootfs"


def _steps(bsp: Bsp, plan: Plan) -> list[Step]:
    wish = plan.wish
    archive = str(wish.rootfs.resolve()) if wish.rootfs else plan.revision.sample_rootfs
    thor = plan.family == "thor"
    steps = [
        Step(
            "rootfs",
            ("tar", "xpf", archive, "-C", "rootfs"),
            "the sample root file system, with its owners and setuid bits (root and -p)",
            f"rootfs/usr/bin/sudo belongs to root and is setuid, and it is Ubuntu {plan.line.ubuntu}",
        ),
        Step(
            "prerequisites",
            ("./tools/l4t_flash_prerequisites.sh",),
            "the programs that NVIDIA's tools call; it downloads packages of this host's distribution with apt-get",
            "all of them are on the PATH",
        ),
        Step(
            "binaries",
            ("./apply_binaries.sh", *(["--openrm"] if thor else [])),
            "NVIDIA's drivers and firmware into the root file system" + (", with the open GPU driver that Thor needs" if thor else ""),
            f"rootfs/etc/nv_tegra_release says {plan.l4t}" + (" and an openrm package is installed" if thor else ""),
        ),
        Step(
            "user",
            ("./tools/l4t_create_default_user.sh", "-u", wish.user, *_password(wish), "-n", wish.hostname, "--accept-license"),
            f"the user {wish.user}, so that the board starts without its first questions",
            f"rootfs/etc/passwd has {wish.user}, rootfs/etc/hostname is {wish.hostname}",
            secrets=(wish.password,) if wish.password else (),
        ),
    ]
    if wish.release:
        settings = [word for setting in wish.settings for word in ("--conf", setting)]
        steps.append(
            Step(
                "overlay",
                (sys.executable, str(OVERLAY), "rootfs", "--release", str(wish.release.resolve()), *settings),
                "sage-edge, its model and its units: the board senses after its first start",
                "rootfs/opt/sage-edge/current is that release",
            )
        )
    erase = plan.recipe.erase_all_since is not None and number(plan.l4t) >= number(plan.recipe.erase_all_since)
    words = {"board": plan.board.name, "device": STORAGES[wish.storage], "erase": "--erase-all"}
    argv = tuple(word.format(**words) for word in plan.recipe.argv if word != "{erase}" or erase)
    target = TARGETS[wish.storage]
    steps.append(
        Step(
            "flash",
            argv,
            f"firmware into the module, the system onto the {target}; ALL DATA ON IT IS LOST",
            "nothing: it runs each time",
            plan.recipe.env,
        )
    )
    return steps


def _password(wish: Wish) -> list[str]:
    return ["-p", wish.password] if wish.password else []


def _board(name: str) -> Board:
    boards = table().boards
    if name not in boards:
        near = get_close_matches(name, boards, n=1)
        raise HostError(f"unknown board {name!r}: " + (f"did you mean {near[0]}?" if near else f"--board takes {', '.join(boards)}"))
    return boards[name]


def _check_line(board: Board, modules: tuple[Module, ...], line: Line, l4t: str) -> None:
    lines = [table().lines[major] for major in sorted(board.since)]
    fits = " or ".join(f"{board.since[each.major]} and newer of R{each.major} (JetPack {each.jetpack})" for each in lines)
    if not line.supported:
        raise HostError(f"L4T {l4t} is JetPack {line.jetpack}, which is not supported: {line.why_not}; take L4T {fits}")
    if modules[0].family not in line.families:
        raise HostError(f"L4T {l4t} is not made for {FAMILIES[modules[0].family]}: {board.name} takes L4T {fits}")
    if line.major not in board.since or number(l4t) < number(board.since[line.major]):
        raise HostError(f"L4T {l4t} does not know {board.name} yet: take L4T {fits}")


def _check_package(bsp: Bsp, plan: Plan) -> None:
    if not (bsp.root / f"{plan.board.name}.conf").exists():
        raise HostError(f"{bsp.root} has no {plan.board.name}.conf: it knows {', '.join(bsp.configurations()) or 'no board'}; {_unpack_again(plan)}")
    scripts = ["apply_binaries.sh", "tools/l4t_flash_prerequisites.sh", "tools/l4t_create_default_user.sh", plan.recipe.argv[0]]
    layouts = [word.removeprefix("-c ") for word in plan.recipe.argv if word.endswith(".xml")]
    missing = [name.removeprefix("./") for name in [*scripts, *layouts] if not (bsp.root / name).exists()]
    if missing:
        raise HostError(f"{bsp.root} lacks {', '.join(missing)}: {_unpack_again(plan)}")


def _unpack_again(plan: Plan) -> str:
    file = plan.revision.driver_package
    return f"unpack {file} again ({plan.revision.where(file)})"


def _check_release(bsp: Bsp, wish: Wish, line: Line) -> None:
    if wish.release is None:
        if wish.settings:
            raise HostError("--conf without --release: settings go into the board together with sage-edge")
        return
    try:
        release = Release.read(wish.release)
        check_settings(Layout(bsp.rootfs), release, wish.release, dict(map(parse_setting, wish.settings)))
    except (ReleaseError, SettingsError, OSError) as error:
        raise HostError(str(error)) from None
    if release.python != line.python or release.arch != "aarch64":
        found = f"Python {release.python} on {release.arch}"
        raise HostError(
            f"{wish.release.name} is for {found}, JetPack {line.jetpack} has {line.python} on aarch64: jetson/release --python {line.python}"
        )


def _check_names(wish: Wish) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", wish.user) or wish.user in ("root", "sage-edge"):
        raise HostError(f"--user {wish.user!r}: small letters, digits, _ and -, not starting with a digit, and neither root nor sage-edge")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", wish.hostname):
        raise HostError(f"--hostname {wish.hostname!r}: small letters, digits and - inside, 63 at most")
