"""A board for tests: files as a Jetson has them under a folder, and stand-ins for NVIDIA's tools on PATH, which write down how they were called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def put(root: Path, files: dict[str, object]) -> Path:
    """Write each file under `root`."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


class Tools:
    """Executables in a folder of their own, alone on PATH but for what a shell needs; every call is a line of `calls`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._log = folder, folder / "calls.log"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def add(self, name: str, body: str) -> None:
        """A tool that runs `body` (sh)."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self._log}"\n{body}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """How they were called, in order."""
        return self._log.read_text().splitlines() if self._log.exists() else []


ORIN_NANO_MODES = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
# < POWER_MODEL ID=9 NAME=COMMENTED >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
# mandatory section
< PM_CONFIG DEFAULT=1 >
"""
"""Names and numbers of an Orin Nano (NVIDIA's format: NVIDIA/skills, jetson-customize-nvpmodel)."""


def nvpmodel(tools: Tools, state: Path, *, on_set: str = 'printf "%s" "$2" > "$S"') -> None:
    """An nvpmodel of an Orin Nano in 25W whose mode is kept in `state`; `on_set` is what it does for -m."""
    state.write_text("1")
    names = 'case "$(cat "$S")" in 0) n=15W;; 1) n=25W;; 2) n=MAXN_SUPER;; esac'
    tools.add("nvpmodel", f'S="{state}"\nif [ "$1" = -q ]; then {names}; echo "NV Power Mode: $n"; cat "$S"; echo; else {on_set}; fi')


def rail(chip: str, channel: int, label: str, millivolts: int, milliamperes: int) -> dict[str, object]:
    """The files of one channel of the INA3221 `chip` (hwmon1)."""
    at = f"class/hwmon/{chip}"
    return {
        f"{at}/name": "ina3221",
        f"{at}/in{channel}_label": label,
        f"{at}/in{channel}_input": millivolts,
        f"{at}/curr{channel}_input": milliamperes,
        f"{at}/curr{channel}_crit": "4984 mA",
    }


def orin_nano_rails(root: Path) -> Path:
    """Add the rails of an Orin Nano: 6 W at the input, of which 2 and 1 W are known."""
    rails = [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 200)]
    for i, (label, millivolts, milliamperes) in enumerate(rails):
        put(root, rail("hwmon1", i + 1, label, millivolts, milliamperes))
    return put(
        root, {"class/hwmon/hwmon1/in7_label": "sum of shunt voltages", "class/hwmon/hwmon1/in7_input": 40, "class/hwmon/hwmon0/name": "pwmfan"}
    )


def orin_nano(root: Path, l4t: str = "36.4.4") -> Path:
    """The root of an Orin Nano developer kit with JetPack, nothing wrong with it but what a test changes."""
    major, _, rest = l4t.partition(".")
    put(root, {"etc/nv_tegra_release": f"# R{major} (release), REVISION: {rest}, GCID: 41062509, BOARD: generic, EABI: aarch64"})
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0")
    (tree / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0")
    put(root, {"etc/nvpmodel.conf": ORIN_NANO_MODES, "var/lib/nvpmodel/status": "pmode:0001", "dev/nvmap": "", "dev/video0": ""})
    put(root, {"usr/lib/python3.10/dist-packages/tensorrt/__init__.py": ""})
    orin_nano_rails(root / "sys")
    return root
