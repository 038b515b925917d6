"""The board's clocks: how fast processor and GPU run now and may run, the GPU's load, and all of them held at their fastest for a while.

    for clock in read_clocks(): print(clock.name, clock.mhz, clock.most_mhz)
    with fastest_clocks():                    # as root; the clocks are as they were afterwards
        build_engines()

From cpufreq and devfreq by name, whatever the numbers. `fastest_clocks` is NVIDIA's jetson_clocks with --store and --restore, read back: it makes
times steadier, it does not make a power mode faster. Not run on a board: there, `sage-edge doctor --json` shows what is read.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_edge.runtime.errors import BoardError

from .sysfs import SYSFS, number, text
from .tools import run_tool

_GPU = re.compile(r"gpu|ga10b|gv11b")
"""In the names of GPUs under /sys/class/devfreq: 17000000.gpu and 17000000.ga10b (Orin), gpu-gpc-0 (Thor: jetson_stats pull request 738)."""


@dataclass(frozen=True)
class Clock:
    """One clock, in MHz: now, the least and the most that it may go to, and the most that the hardware has."""

    name: str
    mhz: float
    least_mhz: float
    most_mhz: float
    hardware_mhz: float

    @property
    def held(self) -> bool:
        """It has nowhere to go."""
        return self.least_mhz == self.most_mhz


def read_clocks(sysfs_root: str | Path = SYSFS) -> list[Clock]:
    """The processor's clusters, each under the name of its first core, and the GPU's parts; those that cannot be read are left out."""
    root = Path(sysfs_root)
    found = [_cluster(path) for path in sorted((root / "devices/system/cpu/cpufreq").glob("policy*"), key=lambda path: int(path.name[6:]))]
    found += [_gpu(path) for path in _gpus(root)]
    return [clock for clock in found if clock is not None]


def gpu_load(sysfs_root: str | Path = SYSFS) -> float | None:
    """Share of the time in which the GPU is busy, 0 to 1; None where the kernel does not say (Thor keeps it in NVML alone)."""
    loads = [load for path in _gpus(Path(sysfs_root)) if (load := number(path / "device/load")) is not None]
    return max(loads) / 1000 if loads else None


@contextlib.contextmanager
def fastest_clocks(sysfs_root: str | Path = SYSFS) -> Iterator[list[Clock]]:
    """Hold every clock at its fastest meanwhile; gives what they are then. Raises BoardError where that does not work or cannot be undone."""
    with tempfile.TemporaryDirectory(prefix="sage-edge-") as folder:
        kept = Path(folder) / "clocks"  # not there yet: jetson_clocks asks before it overwrites
        before = _floors(sysfs_root)
        _jetson_clocks("--store", str(kept))
        if not kept.exists():
            raise BoardError("jetson_clocks --store kept nothing; run it as root, and leave the clocks alone until it works")
        try:
            _jetson_clocks()
            clocks = read_clocks(sysfs_root)
            loose = [clock.name for clock in clocks if not clock.held]
            if loose or not clocks:
                raise BoardError(f"jetson_clocks ended well and does not hold {', '.join(loose) or 'any clock'}; run 'sudo jetson_clocks --show'")
            yield clocks
        finally:
            _jetson_clocks("--restore", str(kept))
            if (after := _floors(sysfs_root)) != before:
                moved = ", ".join(sorted(name for name in before if after.get(name) != before[name]))
                raise BoardError(f"jetson_clocks --restore did not bring back {moved}; reboot the board, which does")


def _jetson_clocks(*args: str) -> None:
    said = run_tool("jetson_clocks", *args)
    if said is None:
        raise BoardError("there is no jetson_clocks here; sudo apt install nvidia-l4t-tools")
    if said.code != 0:
        raise BoardError(f"{' '.join(['jetson_clocks', *args[:1]])} says {said.last!r}; run it as root")


def _floors(sysfs_root: str | Path) -> dict[str, float]:
    # not the most: heat may lower that meanwhile
    return {clock.name: clock.least_mhz for clock in read_clocks(sysfs_root)}


def _gpus(root: Path) -> list[Path]:
    return sorted(path for path in (root / "class/devfreq").glob("*") if _GPU.search(path.name))


def _cluster(path: Path) -> Clock | None:
    cores = (text(path / "related_cpus") or path.name[6:]).split()
    values = [number(path / name) for name in ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")]
    return _clock(f"cpu{cores[0]}", values, 1e3)


def _gpu(path: Path) -> Clock | None:
    values = [number(path / name) for name in ("cur_freq", "min_freq", "max_freq")]
    top = [int(each) for each in (text(path / "available_frequencies") or "").split() if each.isdecimal()]
    return _clock(path.name, [*values, max(top, default=values[2] or 0)], 1e6)


def _clock(name: str, values: list[int | None], per_mhz: float) -> Clock | None:
    mhz = [value / per_mhz for value in values if value is not None]
    return Clock(name, *mhz) if len(mhz) == len(values) else None
