"""What must be right before anything is written: the host, the board in recovery mode, the order of the steps.

Every finding is one line with its fix. `refusals` stop a run, `cautions` are known to spoil one and are only said.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..boards import Module, table
from ..layout import Layout
from ..release_file import Release, ReleaseError
from .bsp import Bsp, environment, which
from .errors import HostError
from .flash_plan import FAMILIES, STEPS, TARGETS, Plan, missing_rootfs

RECOVERY = {
    "orin-nano": "take its power away, bridge FC_REC and GND (pins 9 and 10 of the button header), connect its USB-C port, give it power",
    "agx-orin": "hold Force Recovery, press and release Power, release Force Recovery; the USB-C port is the one beside the 40-pin header",
    "thor": "hold Force Recovery, press and release Reset, release Force Recovery; the USB-C port is the recovery port",
}
"""Family -> how its developer kit gets into recovery mode (the Quick Starts of R36, R38 and R39)."""


@dataclass(frozen=True)
class Host:
    """The machine that flashes. `usb` are the product numbers of NVIDIA's USB devices, None without lsusb; `kmod` None where it is not known."""

    machine: str
    uid: int
    distribution: str
    release: str
    kmod: int | None
    usb: tuple[str, ...] | None
    autosuspend: bool
    network_manager: bool
    firewall: bool

    @staticmethod
    def read(path: str, root: Path = Path("/")) -> Host:
        """This machine's, with programs from `path` and files from under `root`."""
        system = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', _text(root / "etc/os-release"), re.MULTILINE))
        autosuspend = _text(root / "sys/module/usbcore/parameters/autosuspend").strip()
        return Host(
            machine=platform.machine(),
            uid=os.geteuid(),
            distribution=system.get("ID", ""),
            release=system.get("VERSION_ID", ""),
            kmod=kmod_version(path),
            usb=recovery_devices(path),
            autosuspend=autosuspend not in ("", "-1"),
            network_manager=(root / "run/NetworkManager").is_dir(),
            firewall="ENABLED=yes" in _text(root / "etc/ufw/ufw.conf"),
        )


def kmod_version(path: str) -> int | None:
    """The major number of this host's depmod, which writes the module indexes of the image."""
    found = re.search(r"kmod version (\d+)", _said(path, "depmod", "--version"))
    return int(found[1]) if found else None


def recovery_devices(path: str) -> tuple[str, ...] | None:
    """Product numbers of all USB devices of NVIDIA (0955), None when there is no lsusb to ask."""
    if not which("lsusb", path):
        return None
    return tuple(re.findall(r"ID 0955:([0-9a-fA-F]{4})", _said(path, "lsusb")))


def selected(only: str | None, until: str | None, plan: Plan) -> list[str]:
    """Names of the steps that this run is about: all, one, or those up to one. Raises HostError for one that the plan has not."""
    names = [step.name for step in plan.steps]
    for name in (only, until):
        if name and name not in names:
            raise HostError(f"step {name!r} needs --release FILE: make one with jetson/release")
    if only:
        return [only]
    return names[: names.index(until) + 1] if until else names


def proven(name: str, bsp: Bsp, plan: Plan) -> bool:
    """Whether what step `name` leaves behind is there and nobody stopped it half-way. Flashing leaves nothing on the host."""
    if name in bsp.interrupted():
        return False
    if name == "rootfs":
        return bsp.unpacked() and bsp.ubuntu() in (None, plan.line.ubuntu)
    if name == "prerequisites":
        return not bsp.missing_tools()
    if name == "binaries":
        return bsp.same_l4t() and (plan.family != "thor" or bsp.open_driver())
    if name == "user":
        return bsp.has_user(plan.wish.user, plan.wish.hostname)
    return name == "overlay" and _overlaid(bsp, plan)


def refusals(host: Host, bsp: Bsp, plan: Plan, steps: list[str], todo: list[str]) -> list[str]:
    """Why a run of `steps`, of which `todo` are not done yet, must not begin."""
    found = []
    if host.machine != "x86_64":
        found.append(f"this host is {host.machine}: NVIDIA's tools are programs for x86_64, take another host")
    if host.uid != 0:
        found.append("not root: the root file system needs its owners, run it with sudo")
    found += _host_too_new(host, plan, todo)
    found += _rootfs(bsp, plan, steps, todo)
    found += _order(bsp, plan, steps)
    if "user" in todo and bsp.is_system_user(plan.wish.user):
        found.append(f"--user {plan.wish.user} is an account of the system in rootfs/, nobody can log in with it: take another name")
    if "user" in todo and not plan.wish.accept_license:
        text = bsp.root / "Tegra_Software_License_Agreement-Tegra-Linux.txt"
        found.append(f"NVIDIA's licence is not accepted: read {text}, then give --accept-license")
    if "flash" in steps and plan.wish.release is None:
        found.append("no --release: the board would have no sage-edge; make one with jetson/release, or stop before with --until user")
    if "flash" in steps:
        found += _board(host, plan)
    return found


def cautions(host: Host, bsp: Bsp, plan: Plan, steps: list[str]) -> list[str]:
    """What has spoilt runs of others and cannot be known to spoil this one."""
    found = list(plan.warnings)
    if "flash" not in steps:
        return found
    if host.release not in plan.line.hosts or host.distribution != "ubuntu":
        found.append(f"NVIDIA flashes R{plan.line.major} from Ubuntu {' or '.join(plan.line.hosts)}, this is {host.distribution} {host.release}")
    if host.autosuspend:
        found.append("USB autosuspend is on and breaks long writes: echo -1 > /sys/module/usbcore/parameters/autosuspend")
    if plan.family != "thor" and host.network_manager:
        unmanaged = r"[keyfile]\nunmanaged-devices+=driver:rndis_host;driver:cdc_ncm"
        file = "/etc/NetworkManager/conf.d/99-jetson-flash.conf"
        found.append(f"NetworkManager takes the board's USB network: printf '{unmanaged}\\n' > {file} && nmcli general reload, remove it afterwards")
    if plan.family != "thor" and host.firewall:
        found.append("the firewall (ufw) is on and the board fetches its system over NFS: ufw allow nfs")
    if plan.wish.media_gb is None and plan.wish.storage != "emmc":
        found.append(f"the partition layout needs {plan.media_gb} GB or more on the {TARGETS[plan.wish.storage]} (--media-gb N checks it)")
    free_gb = shutil.disk_usage(bsp.root).free / 1e9
    if free_gb < plan.host_gb:
        found.append(f"{free_gb:.0f} GB are free under {bsp.root}, unpacking and images take about {plan.host_gb} GB")
    connected = _connected(host, plan)
    without = [module for module in connected if plan.wish.storage not in module.storages]
    if without and len(without) < len(connected):
        has = next(module for module in connected if module not in without)
        found.append(f"{without[0].name} has the same USB number as {has.name} and no {TARGETS[plan.wish.storage]}: see that yours is {has.id}")
    family = [quirk for quirk in table().quirks if quirk.id in ("rcm-minimal-uefi", "firmware-stays") and quirk.concerns(plan.l4t, plan.family)]
    return found + [f"{quirk.fact}: {quirk.fix}" for quirk in family]


def _host_too_new(host: Host, plan: Plan, todo: list[str]) -> list[str]:
    """Matters while the image is made; flashing one that is ready does not write into it."""
    line = plan.line
    if not {"prerequisites", "binaries"} & set(todo):
        return []
    container = f"prepare it on Ubuntu {line.hosts[-1]}, or in a container of it (docker run --privileged), up to --until overlay"
    if host.distribution != "ubuntu" or host.release not in line.hosts:
        return [f"this host is {host.distribution or 'no known system'} {host.release}: JetPack {line.jetpack} is prepared on Ubuntu, {container}"]
    if "binaries" in todo and line.kmod_below and host.kmod is not None and host.kmod >= line.kmod_below:
        newest = line.kmod_below - 1
        return [f"kmod {host.kmod} of this host writes module indexes that JetPack {line.jetpack} cannot read ({newest} is the newest): {container}"]
    return []


def _rootfs(bsp: Bsp, plan: Plan, steps: list[str], todo: list[str]) -> list[str]:
    fresh = f"rm -rf {bsp.rootfs} && mkdir {bsp.rootfs}, then run this again with --rootfs"
    found = []
    wrong = None if "rootfs" in bsp.interrupted() else bsp.badly_unpacked()
    ubuntu = bsp.ubuntu()
    if ubuntu not in (None, plan.line.ubuntu) and set(steps) - {"prerequisites"}:
        found.append(f"rootfs/ is Ubuntu {ubuntu}, that of JetPack {plan.line.jetpack} is {plan.line.ubuntu}: {fresh} {plan.revision.sample_rootfs}")
    elif wrong and "rootfs" in todo:
        found.append(f"{wrong}: the root file system was unpacked without root or without tar -p; {fresh}")
    elif "rootfs" in todo and plan.wish.rootfs is None:
        found.append(missing_rootfs(plan))
    elif "rootfs" in todo and plan.wish.rootfs is not None and not plan.wish.rootfs.is_file():
        file = plan.revision.sample_rootfs
        found.append(f"no file {plan.wish.rootfs}: download {file} ({plan.revision.where(file)})")
    elif "rootfs" in todo and plan.wish.rootfs is not None and (major := _named_major(plan.wish.rootfs)) not in (None, plan.line.major):
        file = plan.revision.sample_rootfs
        found.append(f"{plan.wish.rootfs.name} is for R{major}, this package is R{plan.line.major}: download {file} ({plan.revision.where(file)})")
    applied = bsp.applied()
    if applied and not bsp.same_l4t() and set(steps) - {"prerequisites"}:
        found.append(f"rootfs/ holds NVIDIA's packages of L4T {applied}, this package is {bsp.l4t}: {fresh}")
    return found


def _named_major(archive: Path) -> int | None:
    """The L4T that the name of NVIDIA's archive says, None for another name."""
    found = re.search(r"Sample-Root-Filesystem_[rR](\d+)\.", archive.name)
    return int(found[1]) if found else None


def _order(bsp: Bsp, plan: Plan, steps: list[str]) -> list[str]:
    """A step that is asked for alone needs those before it; one that was done by hand before its time must be undone."""
    found = []
    first = STEPS.index(steps[0])
    needed = [step for step in plan.steps if STEPS.index(step.name) < first]
    missing = [step for step in needed if not proven(step.name, bsp, plan)]
    if missing:
        detail = ""
        if missing[0].name == "prerequisites":
            detail = f" ({', '.join(bsp.missing_tools())} missing)"
        found.append(f"step '{steps[0]}' before '{missing[0].name}'{detail}: run --step {missing[0].name} first, or all of it without --step")
    if (bsp.rootfs / "opt/sage-edge/current").exists() and bsp.applied() is None:
        found.append(f"sage-edge was laid into rootfs/ before NVIDIA's binaries: rm -rf {bsp.rootfs}, mkdir it, and start again")
    return found


def _board(host: Host, plan: Plan) -> list[str]:
    if host.usb is None:
        return ["lsusb is missing, so nobody knows which board is connected: apt-get install usbutils"]
    by_usb: dict[str, list[Module]] = {}
    for module in table().modules.values():
        by_usb.setdefault(module.usb, []).append(module)
    ready = [usb for usb in host.usb if usb in by_usb]
    if not ready:
        others = f" (0955:{host.usb[0]} is NVIDIA's, but not in recovery mode)" if host.usb else ""
        return [f"no board in recovery mode on USB{others}: {RECOVERY[plan.family]}"]
    if len(ready) > 1:
        return [f"{len(ready)} boards in recovery mode ({', '.join('0955:' + usb for usb in ready)}): leave one connected"]
    connected = _connected(host, plan)
    if not connected:
        other = by_usb[ready[0]][0]
        boards = [board.name for board in table().boards.values() if other.id in board.modules]
        return [f"{other.name} (0955:{ready[0]}) is connected, {plan.board.name} is for {FAMILIES[plan.family]}: --board {' or '.join(boards)}"]
    if not any(plan.wish.storage in module.storages for module in connected):
        fits = list(dict.fromkeys(storage for module in connected for storage in module.storages))
        return [f"{connected[0].name} (0955:{ready[0]}) has no {plan.wish.storage}: --storage {' or '.join(fits)}"]
    return []


def _connected(host: Host, plan: Plan) -> list[Module]:
    """What the board on USB may be, of the modules that its configuration is for: some share a number."""
    return [module for module in plan.modules if module.usb in (host.usb or ())]


def _overlaid(bsp: Bsp, plan: Plan) -> bool:
    if plan.wish.release is None:
        return False
    try:
        return Release.read(Layout(bsp.rootfs).current).version == Release.read(plan.wish.release).version
    except (ReleaseError, OSError):
        return False


def _said(path: str, *command: str) -> str:
    """What a program prints, empty when it is missing or fails."""
    program = which(command[0], path)
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], env=environment(path, {}), capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
