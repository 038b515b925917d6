"""A whole board, emulated: our release laid into a root file system, first boot, a live service, an unplugged camera, updates, power-off.

    make e2e-vm          or:  sudo .venv/bin/python tests/vm/e2e.py --bundle NAME.sage

An AArch64 machine under QEMU with the device tree of a Jetson, Debian's kernel and systemd, a real /dev/video0 (vivid), a real ALSA card
(snd-aloop) and no network. Debian's Python stands for JetPack's; NVIDIA's kernel, drivers and tools are not there. What was done and seen is in
build/e2e-vm/e2e.log; the estimates, the journal and the console are in build/e2e-vm/artefacts. Exit code 0 when every step passed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import debian
import image
from board import ESTIMATES, lay_in, make_root
from end import check_end
from life import live
from life_again import live_again
from machine import Machine
from made import Releases, make_release, make_updates
from report import Failure, Report

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/e2e-vm"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every step passed, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the model of the release (default: three small graphs made by hand)")
    args = parser.parse_args(argv)
    artefacts = WORK / "artefacts"
    shutil.rmtree(artefacts, ignore_errors=True)
    artefacts.mkdir(parents=True)
    report = Report(WORK / "e2e.log")
    try:
        _run(args.bundle, report, artefacts)
    except Failure as failure:
        report.line(f"stopped: {failure}")
    finally:
        passed = report.close()
        shutil.copy(WORK / "e2e.log", artefacts)
    return 0 if passed else 1


def _run(bundle: Path | None, report: Report, artefacts: Path) -> None:
    with report.step("Debian's parts"):
        debian.check_host()
        root_tar = debian.root_file_system(WORK / "cache", report)
        kernel, busybox = debian.kernel(WORK / "cache", report), debian.busybox(WORK / "cache", report)
    with ThreadPoolExecutor(1) as beside:
        made = beside.submit(make_root, root_tar, WORK / "root")
        with report.step("a release"):
            first = make_release(bundle, WORK, report)
        updates = beside.submit(_stick, first)
        with report.step("the release laid into the root file system"):
            root = made.result()
            lay_in(root, first, report)
        with report.step("disk, RAM disk, device tree; a stick with two releases to update to"):
            boot = image.make_boot(kernel, busybox, root, WORK)
            disk = image.make_disk(root, WORK / "disk.ext4", 3000)
            releases, stick = updates.result()
            report.saw(f"disk.ext4 {disk.stat().st_blocks // 2048} MB used, {image.MODEL}")
            for path in sorted(releases.stick.iterdir()):
                report.saw(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB")
    try:
        with Machine(boot, [disk, stick], artefacts / "console.log") as machine:
            version = live(machine, releases, report)
        with Machine(boot, [disk, stick], artefacts / "console-again.log") as machine:
            live_again(machine, version, report)
        with report.step("the file system was unmounted"):
            image.check_disk(disk)
            report.saw("e2fsck: clean")
    finally:
        estimates = image.copy_out(disk, str(Path(ESTIMATES).parent), artefacts / "estimates") / Path(ESTIMATES).name
        journal = image.copy_out(disk, "/var/log/journal", artefacts / "journal")
    with report.step("what is left on the disk"):
        check_end(estimates, journal, report)


def _stick(first: Path) -> tuple[Releases, Path]:
    releases = make_updates(first, WORK)
    return releases, image.make_disk(releases.stick, WORK / "stick.ext4", 1000)


if __name__ == "__main__":
    sys.exit(main())
