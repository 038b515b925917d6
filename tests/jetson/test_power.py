"""Power goes by the labels of rails, on every module that labels them differently."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_files import orin_nano_rails, put, rail

from sage_edge.jetson.power import Rails


def test_one_rail_is_the_whole_where_there_is_an_input(tmp_path: Path) -> None:
    rails = Rails(orin_nano_rails(tmp_path))
    assert rails.read() == {"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.0}
    assert (rails.whole, rails.total(rails.read())) == ("VDD_IN", 6.0)


def test_two_chips_without_an_input_are_added_up(tmp_path: Path) -> None:
    """AGX Orin: unused channels are labelled NC or have no label; labels and values are those of L4T 36's device tree."""
    put(tmp_path, {**rail("hwmon3", 1, "VDD_GPU_SOC", 20000, 150), **rail("hwmon3", 2, "VDD_CPU_CV", 20000, 40)})
    put(tmp_path, {**rail("hwmon3", 3, "VIN_SYS_5V0", 5000, 900), **rail("hwmon4", 1, "NC", 0, 0), **rail("hwmon4", 3, "NC", 0, 0)})
    put(tmp_path, rail("hwmon4", 2, "VDDQ_VDD2_1V8AO", 5000, 100))
    rails = Rails(tmp_path)
    assert rails.labels == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    assert rails.whole == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO"
    assert rails.total(rails.read()) == pytest.approx(3.0 + 0.8 + 4.5 + 0.5)


@pytest.mark.parametrize("label", ["VIN", None])
def test_thor_has_a_chip_of_its_own_for_the_input(tmp_path: Path, label: str | None) -> None:
    put(tmp_path, {**rail("hwmon2", 1, "VDD_GPU", 9000, 500), **rail("hwmon2", 2, "VDD_CPU_SOC_MSS", 9000, 700)})
    put(tmp_path, {"class/hwmon/hwmon5/name": "ina238", "class/hwmon/hwmon5/power1_input": 23500000, "class/hwmon/hwmon5/in1_input": 19000})
    if label is not None:
        put(tmp_path, {"class/hwmon/hwmon5/label": label})
    rails = Rails(tmp_path)
    assert (rails.whole, rails.total(rails.read())) == ("VIN", 23.5)
    assert rails.labels == ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN"]


def test_no_monitor_no_rails(tmp_path: Path) -> None:
    assert Rails(tmp_path / "nowhere").labels == []
    put(tmp_path, {"class/hwmon/hwmon0/name": "coretemp", "class/hwmon/hwmon0/in1_label": "Vcore", "class/hwmon/hwmon0/curr1_input": 5})
    put(tmp_path, {"class/hwmon/hwmon1/name": "ina3221", "class/hwmon/hwmon1/in1_label": "VDD_IN", "class/hwmon/hwmon1/in1_input": 5000})
    assert Rails(tmp_path).labels == [], "a voltage alone is no power"


def test_a_rail_that_stops_answering_is_left_out(tmp_path: Path) -> None:
    rails = Rails(orin_nano_rails(tmp_path))
    (tmp_path / "class/hwmon/hwmon1/curr3_input").unlink()
    assert rails.read() == {"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0}
