"""Whether something slows the board down: heat, too little voltage, too much current.

Cooling devices of /sys/class/thermal that are at work, fans left out, and the counters of /sys/class/hwmon/*/ocN_event_cnt (name soctherm_oc):
undervoltage, average and instantaneous overcurrent (NVIDIA's Developer Guide, "Jetson Orin ... Series", Over-Current Throttling). The
instantaneous kind lasts for microseconds and rises under load on healthy boards, so it is counted and alone it means nothing. Not run on a board.
"""

from __future__ import annotations

from pathlib import Path

from .sysfs import SYSFS, number, text

EVENTS = {"oc1_event_cnt": "undervoltage", "oc2_event_cnt": "average overcurrent", "oc3_event_cnt": "instantaneous overcurrent"}
BRIEF = "instantaneous overcurrent"
"""What healthy boards have, too."""


def events(sysfs_root: str | Path = SYSFS) -> dict[str, int]:
    """How often the hardware has slowed the board down since it booted, by cause; empty where it does not count."""
    found: dict[str, int] = {}
    for chip in sorted((Path(sysfs_root) / "class/hwmon").glob("hwmon*")):
        for file, cause in EVENTS.items():
            if (count := number(chip / file)) is not None:
                found[cause] = found.get(cause, 0) + count
    return found


def cooling(sysfs_root: str | Path = SYSFS) -> list[str]:
    """Kinds of cooling that slow something down now: cpufreq-cpu0, devfreq-17000000.gpu, ..."""
    devices = sorted((Path(sysfs_root) / "class/thermal").glob("cooling_device*"))
    at_work = [text(path / "type") or path.name for path in devices if (number(path / "cur_state") or 0) > 0]
    return sorted({kind for kind in at_work if "fan" not in kind.lower()})
