"""What the machine is made of, from Debian's archive, kept between runs: a root file system of arm64, its kernel, a static busybox.

The root file system is installed as on a real machine, maintainer scripts and all, so its first making takes minutes under emulation. What is
kept is found again by a hash of the recipe: another package, another file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from report import Failure, Report

SUITE = "bookworm"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "e2fsprogs"),
    *("python3", "libportaudio2", "libasound2-plugins"),
    *("alsa-utils", "v4l-utils"),
)
"""The system, what the service needs, and what plays the camera and the microphone."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HANDLER = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-aarch64": "qemu-system-arm",
    "fdtput": "device-tree-compiler",
    "depmod": "kmod",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "cpio": "cpio",
}
"""Executable -> package."""


def check_host() -> None:
    """Raises Failure where this machine cannot make or run one."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    if missing:
        raise Failure(
            f"needs {', '.join(dict.fromkeys(missing))}: apt-get install -y --no-install-recommends {' '.join(dict.fromkeys(TOOLS.values()))}"
        )
    if os.geteuid() != 0:
        raise Failure("must be root, a root file system has owners; run it with sudo")


def root_file_system(cache: Path, report: Report) -> Path:
    """A tar file of the whole system."""

    def make(target: Path) -> None:
        _let_arm64_run(report)
        _debootstrap(target, "apt", PACKAGES, log=cache / "root.log")

    return _kept(cache, "root", ".tar", {"variant": "apt", "packages": PACKAGES}, make, report)


def kernel(cache: Path, report: Report) -> Path:
    """A folder with boot/vmlinuz-* and lib/modules/*."""
    return _extracted(cache, "kernel", "linux-image-arm64", report)


def busybox(cache: Path, report: Report) -> Path:
    """A folder with bin/busybox."""
    return _extracted(cache, "busybox", "busybox-static", report)


def _extracted(cache: Path, name: str, package: str, report: Report) -> Path:
    def make(target: Path) -> None:
        _debootstrap(target, "extract", (package,), log=cache / f"{name}.log")

    return _kept(cache, name, "", {"variant": "extract", "packages": [package]}, make, report)


def _kept(cache: Path, name: str, suffix: str, recipe: dict[str, object], make: Callable[[Path], None], report: Report) -> Path:
    key = hashlib.sha256(json.dumps([SUITE, recipe], sort_keys=True, default=list).encode()).hexdigest()[:12]
    path = cache / f"{name}-{key}{suffix}"
    if path.exists():
        report.did(f"took {path.name} of an earlier run")
        return path
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"unfinished-{name}{suffix}"
    _remove(unfinished)
    make(unfinished)
    unfinished.rename(path)
    report.did(f"made {path.name} from Debian {SUITE}")
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _debootstrap(target: Path, variant: str, packages: tuple[str, ...], log: Path) -> None:
    command = ["mmdebstrap", "--architectures=arm64", f"--variant={variant}", f"--include={','.join(packages)}", SUITE, str(target)]
    with log.open("w") as output:
        if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
            raise Failure(f"{' '.join(command)} failed: {log.read_text(errors='replace').strip().splitlines()[-1:]}, all of it in {log}")


def _let_arm64_run(report: Report) -> None:
    """Programs of arm64 run here, by the kernel's binfmt_misc. Stays so until the machine restarts."""
    if _runs():
        return
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=True)
    if not _runs():
        (_BINFMT / "register").write_text(_HANDLER.read_text().strip())
    report.did(f"registered qemu-aarch64 in binfmt_misc (undo: echo -1 > {_BINFMT}/qemu-aarch64)")


def _runs() -> bool:
    return subprocess.run(["arch-test", "arm64"], stdout=subprocess.DEVNULL, check=False).returncode == 0
