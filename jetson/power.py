"""What a Jetson draws, by its own power monitors: `Rails().read()` -> {"VDD_IN": 6.8, "VDD_CPU_GPU_CV": 2.1, "VDD_SOC": 1.5}, in watts.

The chips are found by their name under /sys/class/hwmon, their channels by label, never by number: INA3221 (Orin, Thor; inN_input mV times
currN_input mA) and INA238 (Thor's input; power1_input in microwatts). Channels labelled NC and those without a current, such as the sum of shunt
voltages, are no rails. They see the module, on Thor the carrier board's input, not what a wall plug would. Not run on a board: there,
`sage-edge doctor` prints them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .sysfs import SYSFS, number, text

WHOLE = ("VIN", "VDD_IN", "POM_5V_IN")
"""Labels of rails that all the others hang on: of Thor (jetson_stats pull request 900), of Orin Nano and NX, of older modules. AGX Orin has none."""
_UNLABELLED = {"ina238": "VIN"}
"""Chip -> what it measures where the device tree gives it no label (the same pull request)."""
_CHANNEL = re.compile(r"in([0-9]+)_label")


@dataclass(frozen=True)
class _Channel:
    label: str
    chip: Path
    index: str

    def watts(self) -> float | None:
        microwatts = number(self.chip / f"power{self.index}_input")
        if microwatts is not None:
            return microwatts / 1e6
        millivolts, milliamperes = number(self.chip / f"in{self.index}_input"), number(self.chip / f"curr{self.index}_input")
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


class Rails:
    """Finds the rails once; `read` then costs two small files a rail. `labels` are those that could be read, `whole` what `total` stands for."""

    def __init__(self, sysfs_root: str | Path = SYSFS) -> None:
        chips = sorted((Path(sysfs_root) / "class/hwmon").glob("hwmon*"))
        found = [channel for chip in chips for channel in _channels(chip)]
        self._channels = [channel for channel in found if channel.watts() is not None]
        self.labels = [channel.label for channel in self._channels]
        self._input = next((label for label in WHOLE if label in self.labels), None)
        self.whole = self._input or " + ".join(self.labels)

    def read(self) -> dict[str, float]:
        """Watts of each rail, now; a rail that does not answer is left out."""
        return {channel.label: watts for channel in self._channels if (watts := channel.watts()) is not None}

    def total(self, watts: dict[str, float]) -> float:
        """Watts of the whole in what `read` gave: the input's, or the sum where no rail is the input."""
        return sum(watts.values()) if self._input is None else watts.get(self._input, 0.0)


def _channels(chip: Path) -> list[_Channel]:
    name = text(chip / "name") or ""
    if not name.startswith("ina"):
        return []
    indices = sorted(found[1] for path in chip.glob("in*_label") if (found := _CHANNEL.fullmatch(path.name)))
    if indices:
        labelled = [(text(chip / f"in{index}_label") or "NC", index) for index in indices]
        return [_Channel(label, chip, index) for label, index in labelled if label.upper() != "NC"]
    label = text(chip / "label") or _UNLABELLED.get(name)
    return [] if label is None else [_Channel(label, chip, "1")]
