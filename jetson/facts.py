"""What a Jetson says of itself, for `doctor --json` and bug reports: module, releases, power mode, watts, heat, clocks, load; None elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sage_edge.runtime.thermal import Thermometer

from .boards import detect
from .clocks import gpu_load, read_clocks
from .nvpmodel import current_mode, read_modes
from .power import Rails
from .throttling import cooling, events


def board_facts(root: str | Path = "/") -> dict[str, Any] | None:
    """JSON types, as they are now. `root` is where the board's / is; nothing is changed, NVIDIA's nvpmodel is asked."""
    device = detect(root)
    if device is None:
        return None
    sysfs = Path(root) / "sys"
    rails, modes = Rails(sysfs), read_modes(root)
    return {
        "model": device.model,
        "module": device.module.name if device.module else None,
        "l4t": device.l4t,
        "jetpack": device.revision.jetpack if device.revision else None,
        "cuda": device.revision.cuda if device.revision else None,
        "tensorrt": device.revision.tensorrt if device.revision else None,
        "sm": device.module.sm if device.module else None,
        "super_mode": device.super_mode,
        "warnings": list(device.warnings),
        "quirks": [quirk.id for quirk in device.quirks],
        "power_mode": current_mode(root),
        "power_modes": list(modes.numbers) if modes else [],
        "watts": {label: round(watts, 3) for label, watts in rails.read().items()},
        "zones": [asdict(heat) for heat in Thermometer(sysfs).zones()],
        "clocks": [asdict(clock) for clock in read_clocks(sysfs)],
        "gpu_load": gpu_load(sysfs),
        "throttle_events": events(sysfs),
        "cooling": cooling(sysfs),
    }
