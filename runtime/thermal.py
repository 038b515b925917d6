"""How hot the machine is, by its own thermal zones: `Thermometer().read()`.

Linux: /sys/class/thermal/thermal_zoneN/{type,temp,trip_point_M_type,trip_point_M_temp}, millidegrees Celsius. A zone's limit is its lowest
`passive` or `hot` trip point, where the kernel begins to slow the machine down; `critical`, where it switches it off, less `SAFE_C` where a
zone has no other. Zones that cannot be read (switched off, or not there at all) count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SAFE_C = 10.0


@dataclass(frozen=True)
class Heat:
    """One zone: degrees Celsius, and its limit; None where it has no trip point."""

    zone: str
    celsius: float
    limit: float | None

    @property
    def room(self) -> float:
        """Degrees up to the limit; negative above it, endless without one."""
        return float("inf") if self.limit is None else self.limit - self.celsius


class Thermometer:
    """Finds the zones once; `read` then costs one small file a zone."""

    def __init__(self, sysfs_root: str | Path = "/sys") -> None:
        found = sorted((Path(sysfs_root) / "class" / "thermal").glob("thermal_zone*"))
        self._zones = [(_text(path / "type") or path.name, path / "temp", _limit(path)) for path in found]

    def read(self) -> Heat | None:
        """The zone nearest to its limit, the hottest of those without one; None where there is no zone that can be read."""
        return min(self.zones(), key=lambda heat: (heat.room, -heat.celsius), default=None)

    def zones(self) -> list[Heat]:
        """Every zone that can be read."""
        return [Heat(name, celsius, limit) for name, path, limit in self._zones if (celsius := _degrees(path)) is not None]


def _limit(zone: Path) -> float | None:
    trips: dict[str, list[float]] = {}
    for path in zone.glob("trip_point_*_type"):
        celsius = _degrees(path.with_name(path.name.replace("_type", "_temp")))
        if celsius is not None and celsius > 0:  # a trip point that is switched off reads 0 or -274
            trips.setdefault(_text(path) or "", []).append(celsius)
    slowed = trips.get("passive", []) + trips.get("hot", [])
    if slowed:
        return min(slowed)
    return min(trips["critical"]) - SAFE_C if "critical" in trips else None


def _degrees(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else int(text) / 1000
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
