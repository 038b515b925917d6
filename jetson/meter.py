"""The board's power monitors, clocks and thermal zones as a meter for `profile`: `profile(path, meter=open_meter())`.

Rails are read `RATE_HZ` times a second while something is measured, in a thread that the engines leave room for; the monitors themselves
average over milliseconds. That costs power, too, but as much at rest. Heat, cooling and clocks are looked at once a second.
Not run on a board: there, `sage-edge profile NAME.sage` shows it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from sage_edge.runtime.energy import Drawn
from sage_edge.runtime.thermal import Heat, Thermometer

from .clocks import gpu_load, read_clocks
from .power import Rails
from .sysfs import SYSFS
from .throttling import BRIEF, cooling, events

RATE_HZ = 20
LOOK_S = 1.0


def open_meter(sysfs_root: str | Path = SYSFS) -> BoardMeter | None:
    """The meter of this board; None where no rail can be read."""
    rails = Rails(sysfs_root)
    return BoardMeter(rails, Path(sysfs_root)) if rails.labels else None


class BoardMeter:
    """See `runtime.energy.Meter`."""

    def __init__(self, rails: Rails, sysfs_root: Path) -> None:
        self.source = rails.whole
        self._rails, self._sysfs_root = rails, sysfs_root
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._thermometer = Thermometer(sysfs_root)
        self._events = events(sysfs_root)
        self._looked_s = -LOOK_S
        self._looks = self._hot = 0
        self._hottest: Heat | None = None
        self._cooling: set[str] = set()
        self._clocks: dict[str, list[float]] = {}
        self._most_mhz: dict[str, float] = {}
        self._loads: list[float] = []

    def begin(self) -> None:
        """See `Meter`."""
        self._samples = []
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="power", daemon=True)
        self._thread.start()

    def end(self) -> Drawn:
        """See `Meter`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        times = [at_s for at_s, _ in self._samples]
        means = {label: self._mean_of(label) for label in self._rails.labels}
        return Drawn(times[-1] - times[0] if times else 0.0, self._rails.total(means), means)

    def look(self) -> None:
        """See `Meter`."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        self._looks += 1
        heat = self._thermometer.read()
        if heat is not None:
            self._hot += heat.room <= 0
            if self._hottest is None or (heat.room, -heat.celsius) < (self._hottest.room, -self._hottest.celsius):
                self._hottest = heat
        self._cooling.update(cooling(self._sysfs_root))
        if (load := gpu_load(self._sysfs_root)) is not None:
            self._loads.append(load)
        for clock in read_clocks(self._sysfs_root):
            self._clocks.setdefault(clock.name, []).append(clock.mhz)
            self._most_mhz[clock.name] = clock.most_mhz

    def slowed(self) -> dict[str, Any]:
        """See `Meter`."""
        now = events(self._sysfs_root)
        since = {cause: now[cause] - self._events.get(cause, 0) for cause in now}
        heat = self._hottest
        return {
            "throttled": bool(self._hot or self._cooling or any(count for cause, count in since.items() if cause != BRIEF)),
            "events": since,
            "cooling": sorted(self._cooling),
            "hot": round(self._hot / self._looks, 3) if self._looks else 0.0,
            "hottest": None if heat is None else {"zone": heat.zone, "celsius": round(heat.celsius, 1), "limit": heat.limit},
            "gpu_load": round(sum(self._loads) / len(self._loads), 3) if self._loads else None,
            "clocks_mhz": {name: {"mean": round(sum(mhz) / len(mhz), 1), "most": self._most_mhz[name]} for name, mhz in self._clocks.items()},
        }

    def _mean_of(self, label: str) -> float:
        """Over the samples in which the rail answered."""
        known = [(at_s, watts[label]) for at_s, watts in self._samples if label in watts]
        return _mean([at_s for at_s, _ in known], [watts for _, watts in known])

    def _watch(self) -> None:
        while True:
            last = self._stop.is_set()
            self._samples.append((time.perf_counter(), self._rails.read()))
            if last:
                return
            self._stop.wait(1 / RATE_HZ)


def _mean(times: list[float], values: list[float]) -> float:
    """Of a quantity between its samples, each stretch as long as it lasted."""
    if len(times) < 2:
        return values[0] if values else 0.0
    steps = list(zip(times, times[1:], values, values[1:], strict=False))
    return sum((b - a) * (x + y) / 2 for a, b, x, y in steps) / (times[-1] - times[0])
