"""Turn a filled root file system into what QEMU boots: kernel, initial RAM disk, device tree, disk.

The kernel is Debian's own and has its drivers as modules, so a RAM disk loads those of the disk; the modules that the machine has use for are
picked by name, with what they depend on. The device tree is QEMU's with the names of a Jetson. Every failure is a `Failure` of one line.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from report import Failure

CPU = "cortex-a76"
"""Has the instructions of Orin's Cortex-A78AE: dot products and half floats, no SVE."""
CORES, MEMORY_MB = 2, 2048
MODEL = "NVIDIA Jetson Orin Nano Developer Kit"
COMPATIBLE = ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234", "linux,dummy-virt")
"""As /proc/device-tree says on that board; the last one is QEMU's."""
L4T_RELEASE = "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 16:07:13 UTC 2025\n"
_DISK = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
_MODULES = (*_DISK, "virtio_console", "vivid", "snd_aloop", "snd_seq", "rtc_pl031", "efi_pstore", "autofs4", "configfs")
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do /bin/busybox insmod $module; done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox usleep 100000; n=$((n+1)); done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || exec /bin/busybox sh
for folder in dev sys proc; do /bin/busybox mount --move /$folder /root/$folder; done
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True)
class Boot:
    """Files for QEMU."""

    kernel: Path
    initrd: Path
    device_tree: Path


def make_boot(kernel: Path, busybox: Path, root: Path, work: Path) -> Boot:
    """Kernel, RAM disk and device tree in `work`; the modules go into `root`, too."""
    modules = next((kernel / "lib/modules").iterdir())
    names = _with_dependencies(modules)
    target = root / "usr/lib/modules" / modules.name
    for path in names:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / path, target / path)
    for path in modules.glob("modules.*"):
        shutil.copyfile(path, target / path.name)
    _run("depmod", "-b", str(root), modules.name)
    disk = [path for path in names if path in set(_with_dependencies(modules, _DISK))]
    return Boot(next((kernel / "boot").glob("vmlinuz-*")), _initrd(modules, disk, busybox, work), _device_tree(work))


def make_disk(folder: Path, path: Path, megabytes: int) -> Path:
    """An ext4 file system with what is in `folder`; what is not used takes no room."""
    path.unlink(missing_ok=True)
    _run("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(folder), "-F", str(path), f"{megabytes}M")
    return path


def copy_out(disk: Path, folder: str, target: Path) -> Path:
    """The folder `folder` of a disk that no machine has mounted, as the new folder `target`. Where the power was cut, the journal is played first."""
    subprocess.run(["e2fsck", "-p", str(disk)], env=_environment(), capture_output=True, check=False)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    _run("debugfs", "-R", f"rdump {folder} {target}", str(disk))
    return target / Path(folder).name


def check_disk(disk: Path) -> None:
    """Raises Failure for a file system that was not unmounted, or has errors."""
    state = subprocess.run(["dumpe2fs", "-h", str(disk)], env=_environment(), capture_output=True, text=True, check=True).stdout
    if "needs_recovery" in state or "Filesystem state:         clean" not in state:
        raise Failure("the file system was not unmounted before power went off")
    done = subprocess.run(["e2fsck", "-f", "-n", str(disk)], env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"e2fsck finds errors: {done.stdout.strip()[-300:]}")


def _with_dependencies(modules: Path, wanted: tuple[str, ...] = _MODULES) -> list[Path]:
    """Paths under `modules`, each after those that it needs."""
    where = {path.stem.replace("-", "_"): path.relative_to(modules) for path in modules.rglob("*.ko")}
    found: list[Path] = []

    def add(name: str) -> None:
        path = where.get(name)
        if path is None or path in found:
            return  # built into the kernel, or there already
        for needed in _depends(modules / path):
            add(needed)
        found.append(path)

    for name in wanted:
        add(name)
    return found


def _depends(module: Path) -> list[str]:
    """What `modinfo -F depends` says."""
    text = subprocess.run(["modinfo", "-F", "depends", str(module)], env=_environment(), capture_output=True, text=True, check=True).stdout
    return [name.replace("-", "_") for name in text.strip().split(",") if name]


def _initrd(modules: Path, paths: list[Path], busybox: Path, work: Path) -> Path:
    tree = work / "initrd"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox / "bin/busybox", tree / "bin/busybox")
    for number, path in enumerate(paths):
        shutil.copyfile(modules / path, tree / "modules" / f"{number:02d}-{path.name}")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    names = b"\0".join(os.fsencode(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(["cpio", "-0", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, capture_output=True, check=True).stdout
    target = work / "initrd.img"
    target.write_bytes(gzip.compress(archive, 1))
    return target


def _device_tree(work: Path) -> Path:
    target = work / "jetson.dtb"
    _run("qemu-system-aarch64", "-M", f"virt,dumpdtb={target}", "-cpu", CPU, "-smp", str(CORES), "-m", str(MEMORY_MB), "-nographic", "-nic", "none")
    _run("fdtput", "-t", "s", str(target), "/", "model", MODEL)
    _run("fdtput", "-t", "s", str(target), "/", "compatible", *COMPATIBLE)
    return target


def _run(*command: str) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
