"""The meter gives mean watts of what it was asked to measure, and names what slowed the board down; profile turns them into joules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from board_files import orin_nano_rails, put

from sage_edge.cli.main import main
from sage_edge.jetson import meter as meters
from sage_edge.jetson.meter import BoardMeter, open_meter
from sage_edge.runtime import energy
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.clip import write_clip
from sage_edge.runtime.profile import profile
from sage_edge.runtime.profile_live import profile_live

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from tiny_bundle import make_bundle


def opened(root: Path) -> BoardMeter:
    meter = open_meter(root)
    assert meter is not None
    return meter


def test_no_rails_no_meter(tmp_path: Path) -> None:
    assert open_meter(tmp_path) is None
    assert open_meter("/proc") is None


def test_watts_are_the_mean_over_what_was_measured(tmp_path: Path) -> None:
    root = orin_nano_rails(tmp_path)
    meter = opened(root)
    meter.begin()
    put(root, {"class/hwmon/hwmon1/curr2_input": 800})  # 4 W instead of 2, for a part of the time
    while len(meter._samples) < 4:
        assert meter._thread is not None
        meter._thread.join(0.01)
    put(root, {"class/hwmon/hwmon1/curr2_input": 400})
    drawn = meter.end()
    assert drawn.watts == pytest.approx(6.0)
    assert drawn.seconds > 0
    assert 2.0 < drawn.rails["VDD_CPU_GPU_CV"] <= 4.0
    meter.begin()
    assert meter.end().rails == pytest.approx({"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.0}), "nothing of the time before is in it"


def test_a_rail_that_does_not_answer_for_a_while_is_no_rail_without_power(tmp_path: Path) -> None:
    root = orin_nano_rails(tmp_path)
    meter = opened(root)
    meter.begin()
    for name in ("in1_input", "in1_silent"):
        silent = root / "class/hwmon/hwmon1" / name
        silent.rename(silent.with_name({"in1_input": "in1_silent", "in1_silent": "in1_input"}[name]))
        count = len(meter._samples)
        while len(meter._samples) < count + 3:
            assert meter._thread is not None
            meter._thread.join(0.01)
    drawn = meter.end()
    assert drawn.watts == pytest.approx(6.0)
    assert drawn.rails == pytest.approx({"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.0})


def test_means_weigh_by_time() -> None:
    assert meters._mean([0.0, 1.0, 4.0], [2.0, 4.0, 4.0]) == pytest.approx((3.0 + 12.0) / 4.0)
    assert meters._mean([5.0], [2.0]) == 2.0
    assert meters._mean([], []) == 0.0


def cooled(root: Path, number: int, kind: str, state: int) -> None:
    at = f"class/thermal/cooling_device{number}"
    put(root, {f"{at}/type": kind, f"{at}/cur_state": state, f"{at}/max_state": 5})


@pytest.mark.parametrize(
    ("events", "device", "celsius", "throttled"),
    [
        ((0, 0, 0), ("pwm-fan", 3), 60, False),
        ((0, 0, 40), ("cpufreq-cpu0", 0), 60, False),
        ((1, 0, 0), ("cpufreq-cpu0", 0), 60, True),
        ((0, 2, 0), ("cpufreq-cpu0", 0), 60, True),
        ((0, 0, 0), ("cpufreq-cpu0", 1), 60, True),
        ((0, 0, 0), ("cpufreq-cpu0", 0), 99, True),
    ],
)
def test_what_slows_the_board_down_is_told_from_what_does_not(
    tmp_path: Path, events: tuple[int, int, int], device: tuple[str, int], celsius: int, throttled: bool
) -> None:
    root = orin_nano_rails(tmp_path)
    cooled(root, 0, *device)
    put(root, {"class/hwmon/hwmon3/name": "soctherm_oc", **{f"class/hwmon/hwmon3/oc{i}_event_cnt": 15 for i in (1, 2, 3)}})
    put(root, {"class/thermal/thermal_zone0/type": "tj-thermal", "class/thermal/thermal_zone0/temp": celsius * 1000})
    put(root, {"class/thermal/thermal_zone0/trip_point_0_type": "passive", "class/thermal/thermal_zone0/trip_point_0_temp": 99000})
    meter = opened(root)
    put(root, {f"class/hwmon/hwmon3/oc{i + 1}_event_cnt": 15 + count for i, count in enumerate(events)})
    meter.look()
    seen = meter.slowed()
    assert seen["throttled"] is throttled
    assert tuple(seen["events"].values()) == events, "what was counted before is not in it"
    assert seen["hottest"] == {"zone": "tj-thermal", "celsius": celsius, "limit": 99.0}
    assert seen["cooling"] == ([device[0]] if device[0] != "pwm-fan" and device[1] else [])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundles") / "by-hand.sage"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 1.0, (160, 120))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("profile", "profile_live"):
        monkeypatch.setattr(f"sage_edge.runtime.{module}.WARM_UP_S", 0.2)
    for name, seconds in {"IDLE_S": 0.05, "SETTLE_S": 0.1, "STRETCH_S": 0.25}.items():
        monkeypatch.setattr(energy, name, seconds)


@pytest.mark.usefixtures("quick")
def test_joules_are_watts_over_estimates_at_the_speed_of_a_live_run(tmp_path: Path, bundle: Bundle, clip: Path) -> None:
    result = profile(bundle.path, ["fp32", "int8"], seconds=0.5, video=clip, hop=3, progress=False, meter=opened(orin_nano_rails(tmp_path)))
    power = result.to_dict()["power"]
    assert (power["source"], power["idle_watts"]) == ("VDD_IN", 6.0)
    assert list(power["precisions"]) == ["fp32", "int8-cpu"]
    for used in power["precisions"].values():
        assert used["estimates"] == energy.ROUNDS * 3, "a quarter of a second is three hops of a tenth, a begun one is played to its end"
        assert used["seconds"] >= used["estimates"] * 0.1 - 0.01, "events are handed on when they are due, not before"
        assert used["watts"] == 6.0
        assert used["rails"] == {"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.0}
        assert used["joules_per_estimate"] == pytest.approx(6.0 * used["seconds"] / used["estimates"], rel=0.02)
        assert used["joules_above_idle"] == 0.0
    assert power["throttled"] is False


@pytest.mark.usefixtures("quick")
def test_the_command_shows_it_where_there_is_a_meter(
    tmp_path: Path, bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["profile", str(bundle.path), "--video", str(clip), "--seconds", "0.5", "--precision", "fp32", "--hop", "3"]
    root = orin_nano_rails(tmp_path)
    cooled(root, 0, "cpufreq-cpu0", 2)
    gpu = "class/devfreq/17000000.gpu"
    put(root, {f"{gpu}/device/load": 350, f"{gpu}/cur_freq": 612000000, f"{gpu}/min_freq": 306000000, f"{gpu}/max_freq": 1020000000})
    monkeypatch.setattr(meters, "open_meter", lambda: opened(root))
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "power of VDD_IN: 6.00 W at rest; at the speed of a live run" in text
    assert "fp32          6.00 W (VDD_IN 6.00, VDD_CPU_GPU_CV 2.00, VDD_SOC 1.00); " in text
    clocks = "mean clocks: 17000000.gpu 612 of 1020 MHz; GPU busy 35%"
    assert f"slowed down: cooling by cpufreq-cpu0; hottest: no thermal zone; {clocks}" in text
    monkeypatch.setattr(meters, "open_meter", lambda: None)
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["power"] is None


@pytest.mark.usefixtures("quick")
def test_over_live_devices_what_is_drawn_after_the_warm_up_is_measured(tmp_path: Path, bundle: Bundle, clip: Path) -> None:
    root = orin_nano_rails(tmp_path)
    result = profile_live(bundle.path, ["fp32"], camera=str(clip), seconds=0.5, hop=3, progress=False, meter=opened(root)).to_dict()
    used = result["power"]["precisions"]["fp32"]
    assert used["watts"] == 6.0
    assert used["estimates"] == result["precisions"]["fp32"]["estimates"] > 0
    assert 0.4 < used["seconds"] <= result["seconds"] + 0.5
