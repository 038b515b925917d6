"""An AArch64 machine for our Python, with none at hand: Debian's python3 in a folder, under qemu's user emulation. No root, no chroot.

    machine = Emulated.make(ROOT / "build/aarch64", wheel)
    machine.run("-m", "pytest", "tests/runtime/test_bundle.py")

Its packages are what a release holds, put there by the same code, at the versions of constraints.txt: so ONNX Runtime is that of .venv. Needs
mmdebstrap and qemu-user; what was fetched stays in the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_edge.jetson.host.release import EXTRAS
from sage_edge.jetson.host.site_folder import fill_site

ROOT = Path(__file__).resolve().parents[2]
SUITE, PYTHON = "bookworm", "3.11"
DEBIAN = ("python3", "libstdc++6", "libgcc-s1")
PINS = (ROOT / "constraints.txt", ROOT / "pyproject.toml")
FOR_TESTS = ("onnx", "pytest", "hypothesis", "psutil")
ORIN = "neoverse-n1"
"""Has what Orin's Cortex-A78AE has: dot products and half precision, no SVE, no 8-bit matrix products. Emulating `max`, with SVE, is far slower."""
CPUINFO = """processor\t: {}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat ilrcpc flagm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""


class Failed(Exception):
    """A step that did not work; the message is all of what it said."""


def call(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    """What `command` prints. Raises Failed with that when it fails."""
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def qemu() -> str | None:
    """qemu's emulator of AArch64 programs, as Debian's qemu-user or qemu-user-static call it."""
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


@dataclass(frozen=True)
class Emulated:
    """`system` holds Debian's python3, `site` what a release holds, `tools` what tests need beside it, each in a folder of its own."""

    system: Path
    site: Path
    ours: Path
    """Our wheel as it is now: it comes before the one in `site`, which is kept as long as the others stay the same."""
    tools: tuple[Path, ...]
    bytecode: Path

    @classmethod
    def make(cls, folder: Path, wheel: Path) -> Emulated:
        """Fetch what is not in `folder` yet and unpack `wheel`, ours for AArch64. Raises Failed or HostError."""
        ours = folder / "ours"
        shutil.rmtree(ours, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(ours)
        site = packages(folder, "site", f"{wheel}[{','.join(EXTRAS)}]")
        return cls(system(folder), site, ours, tuple(packages(folder, name, name) for name in FOR_TESTS), folder / "bytecode")

    def run(self, *arguments: str | Path, cpu: str = ORIN) -> str:
        """What the emulated python prints, given `arguments`; Failed when it fails."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "QEMU_CPU": cpu,
            "QEMU_LD_PREFIX": str(self.system),
            "PYTHONPATH": os.pathsep.join(map(str, (self.ours, self.site, *self.tools))),
            "PYTHONPYCACHEPREFIX": str(self.bytecode),
            "PYTHONNOUSERSITE": "1",
        }
        return call([qemu() or "qemu-aarch64", self.system / f"usr/bin/python{PYTHON}", *arguments], environment)

    @property
    def installed_mb(self) -> float:
        """Of `site`: all that a board gets but Python and the model, in MB of 2^20 bytes as du counts them."""
        return sum(path.lstat().st_blocks * 512 for path in self.site.rglob("*")) / (1 << 20)


def system(folder: Path) -> Path:
    """Debian's packages, unpacked and never configured: no maintainer script runs, so nothing has to be emulated."""
    target = folder / f"system-{SUITE}-{_key(*DEBIAN)}"
    if not target.is_dir():
        work = _fresh(target)
        call(["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract", f"--include={','.join(DEBIAN)}", SUITE, work])
        # Device nodes would be read without end by whoever copies the folder.
        shutil.rmtree(work / "dev")
        (work / "proc").mkdir(exist_ok=True)
        # ONNX Runtime reads it at import and dies of an x86 one; qemu opens this one in its place.
        (work / "proc/cpuinfo").write_text("".join(CPUINFO.format(core) for core in range(2)))
        work.rename(target)
    return target


def packages(folder: Path, name: str, requirement: str) -> Path:
    """A folder with the wheels of `requirement` for AArch64."""
    target = folder / f"{name}-{PYTHON}-{_key(*(path.read_text() for path in PINS))}"
    if not target.is_dir():
        work = _fresh(target)
        fill_site(work, PYTHON, requirement, folder / "wheels", lambda line: print(line, flush=True))
        work.rename(target)
    return target


def _fresh(target: Path) -> Path:
    work = target.with_name(f".{target.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    work.parent.mkdir(parents=True, exist_ok=True)
    return work


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
