"""NVIDIA's driver package as it lies on the host (Linux_for_Tegra): which L4T it is, and what of the preparation is already done in it.

Each step is known by what it leaves behind, so what somebody did by hand counts too. One that was started and never ended is written down
(.sage-edge-flash, a name a line) and counts as not done, whatever it left.
"""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..boards import installed, number
from ..lay_in import write_beside
from .errors import HostError

BEGUN = ".sage-edge-flash"
_PEOPLE = range(1000, 60000)
"""User ids of people's accounts (Debian policy 9.2.2)."""
ARCHIVE_PAGE = "https://developer.nvidia.com/embedded/jetson-linux-archive"
HOST_TOOLS = {
    "abootimg": "abootimg",
    "cpio": "cpio",
    "dtc": "device-tree-compiler",
    "lbzip2": "lbzip2",
    "qemu-aarch64-static": "qemu-user-static",
    "sshpass": "sshpass",
    "xmllint": "libxml2-utils",
    "xxd": "xxd",
    "zstd": "zstd",
}
"""Program -> Debian package, of those that tools/l4t_flash_prerequisites.sh installs: all there means that it ran."""


@dataclass(frozen=True)
class Bsp:
    """A Linux_for_Tegra folder. `owner` is the user id that its root file system must belong to: 0, but for tests without root."""

    root: Path
    path: str
    owner: int = 0

    @property
    def rootfs(self) -> Path:
        return self.root / "rootfs"

    @property
    def l4t(self) -> str:
        """Such as 36.4.3, from nv_tegra/bsp_version. Raises HostError when this is no driver package."""
        file = self.root / "nv_tegra/bsp_version"
        try:
            values = dict(re.findall(r"^(BSP_(?:BRANCH|MAJOR|MINOR))=(\d+)\s*$", file.read_text(encoding="utf-8"), re.MULTILINE))
            return f"{values['BSP_BRANCH']}.{values['BSP_MAJOR']}.{values['BSP_MINOR']}"
        except (OSError, KeyError):
            raise HostError(f"{self.root} is no driver package, it has no {file.relative_to(self.root)}: unpack one from {ARCHIVE_PAGE}") from None

    def interrupted(self) -> set[str]:
        """The steps that were started and never came to their end."""
        return set(_text(self.root / BEGUN).split())

    def begin(self, step: str) -> None:
        self._write_begun(self.interrupted() | {step})

    def end(self, step: str) -> None:
        self._write_begun(self.interrupted() - {step})

    def _write_begun(self, steps: set[str]) -> None:
        write_beside(self.root / BEGUN, "".join(f"{step}\n" for step in sorted(steps)).encode(), 0o644)

    def configurations(self) -> list[str]:
        """Names of the boards that this package can flash."""
        return sorted(path.stem for path in self.root.glob("jetson-*.conf"))

    def missing_tools(self) -> dict[str, str]:
        """Of HOST_TOOLS, those that are not on the PATH."""
        return {tool: package for tool, package in HOST_TOOLS.items() if not which(tool, self.path)}

    def unpacked(self) -> bool:
        """Whether the sample root file system is there, with the owners and the setuid bits that only root and tar -p keep."""
        return (self.rootfs / "etc/passwd").is_file() and self.badly_unpacked() is None

    def badly_unpacked(self) -> str | None:
        """What is wrong with a root file system that is there, else None: sudo must belong to root and be setuid, or nobody becomes root."""
        if not (self.rootfs / "etc/passwd").exists():
            return None
        sudo = self.rootfs / "usr/bin/sudo"
        try:
            found = sudo.stat()
        except OSError:
            return f"{sudo} is missing"
        if found.st_uid != self.owner:
            return f"{sudo} belongs to user {found.st_uid}, not to {self.owner}"
        return None if found.st_mode & stat.S_ISUID else f"{sudo} is not setuid (mode {stat.S_IMODE(found.st_mode):04o})"

    def applied(self) -> str | None:
        """The L4T of NVIDIA's packages in the root file system, or None."""
        return installed(self.rootfs)

    def ubuntu(self) -> str | None:
        """The Ubuntu of the root file system, such as 22.04; None where it does not say."""
        found = re.search(r'^VERSION_ID="?([^"\n]+)"?$', _text(self.rootfs / "etc/os-release"), re.MULTILINE)
        return found[1] if found else None

    def open_driver(self) -> bool:
        """Whether the open GPU driver is among them (nvidia-l4t-*-openrm)."""
        return bool(re.search(r"^Package: nvidia-l4t-\S*openrm", _text(self.rootfs / "var/lib/dpkg/status"), re.MULTILINE))

    def has_user(self, user: str, hostname: str) -> bool:
        """Whether the board is called so and this is a person's account in it."""
        return _text(self.rootfs / "etc/hostname").strip() == hostname and self._uid(user) in _PEOPLE

    def is_system_user(self, user: str) -> bool:
        """Whether the root file system has this account and nobody logs in with it, such as daemon."""
        uid = self._uid(user)
        return uid is not None and uid not in _PEOPLE

    def _uid(self, user: str) -> int | None:
        found = re.search(rf"^{re.escape(user)}:[^:]*:(\d+):", _text(self.rootfs / "etc/passwd"), re.MULTILINE)
        return int(found[1]) if found else None

    def same_l4t(self) -> bool:
        applied = self.applied()
        return applied is not None and number(applied) == number(self.l4t)


def which(tool: str, path: str) -> str | None:
    """Where `tool` is; also in the folders of root, which a user's PATH often lacks."""
    return shutil.which(tool, path=f"{path}:/usr/sbin:/sbin")


def environment(path: str, extra: Mapping[str, str]) -> dict[str, str]:
    """For NVIDIA's tools: `path`, plain English messages, nothing of the caller's Python."""
    return {"PATH": f"{path}:/usr/sbin:/sbin", "LC_ALL": "C", "HOME": "/root", "PYTHONUNBUFFERED": "1", **extra}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
