"""Thermal zones as Linux shows them, in a folder that looks like /sys."""

from __future__ import annotations

from pathlib import Path

from sage_edge.runtime.thermal import Heat, Thermometer


def zone(root: Path, number: int, kind: str, temp: str | None, **trips: int) -> Path:
    path = root / "class" / "thermal" / f"thermal_zone{number}"
    path.mkdir(parents=True)
    (path / "type").write_text(kind + "\n")
    if temp is not None:
        (path / "temp").write_text(temp + "\n")
    for index, (name, celsius) in enumerate(trips.items()):
        (path / f"trip_point_{index}_type").write_text(name + "\n")
        (path / f"trip_point_{index}_temp").write_text(f"{celsius * 1000}\n")
    return path


def test_the_zone_nearest_to_its_own_limit_counts(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "80000", active=50, passive=99, critical=105)
    zone(tmp_path, 1, "gpu-thermal", "70500", passive=75, hot=90)
    zone(tmp_path, 2, "case", "95000")
    assert Thermometer(tmp_path).read() == Heat("gpu-thermal", 70.5, 75.0)
    assert Heat("gpu-thermal", 70.5, 75.0).room == 4.5
    assert [heat.zone for heat in Thermometer(tmp_path).zones()] == ["cpu-thermal", "gpu-thermal", "case"]


def test_a_zone_that_is_only_switched_off_has_its_limit_before_that(tmp_path: Path) -> None:
    zone(tmp_path, 0, "soc", "60000", critical=100)
    heat = Thermometer(tmp_path).read()
    assert heat is not None
    assert (heat.limit, heat.room) == (90.0, 30.0)


def test_what_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    zone(tmp_path, 0, "off", None, passive=50)
    zone(tmp_path, 1, "odd", "warm", passive=50)
    zone(tmp_path, 2, "trips switched off", "40000", passive=-274, critical=0)
    assert Thermometer(tmp_path).read() == Heat("trips switched off", 40.0, None)
    assert Thermometer(tmp_path / "nowhere").read() is None


def test_temperatures_are_read_anew(tmp_path: Path) -> None:
    path = zone(tmp_path, 0, "cpu", "40000", passive=95)
    thermometer = Thermometer(tmp_path)
    for celsius in (41.0, 97.25):
        (path / "temp").write_text(f"{int(celsius * 1000)}\n")
        heat = thermometer.read()
        assert heat is not None
        assert heat.celsius == celsius
    (path / "temp").unlink()
    assert thermometer.read() is None


def test_this_machine_can_be_asked() -> None:
    heat = Thermometer().read()
    assert heat is None or -50 < heat.celsius < 200
