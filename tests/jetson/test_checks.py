"""doctor on a board: each thing that may be missing is missed, and named with the command that brings it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_files import Tools, orin_nano, put

from sage_edge.cli import doctor
from sage_edge.jetson import checks
from sage_edge.jetson.checks import ELEMENTS, board_checks
from sage_edge.jetson.facts import board_facts
from sage_edge.runtime.checkup import Check

HAS_ALL = '[ "$1" = --exists ]'


@pytest.fixture
def whole(tools: Tools) -> Tools:
    """The tools of a board that lacks nothing."""
    tools.folder.joinpath("gst-launch-1.0").symlink_to("/bin/true")
    tools.add("gst-inspect-1.0", HAS_ALL)
    tools.add("nvpmodel", "echo 'NV Power Mode: 25W'; echo 1")
    tools.add("systemctl", "echo active")
    return tools


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return orin_nano(tmp_path / "root")


def by_name(root: Path) -> dict[str, Check]:
    found = board_checks(root)
    assert not any(check.needed for check in found), "run works without any of these"
    assert all(check.ok != bool(check.fix) for check in found), "what is missing has a fix, what is there has none"
    return {check.name: check for check in found}


def test_another_machine_is_not_asked(tmp_path: Path) -> None:
    assert board_checks(tmp_path) == []
    assert board_facts(tmp_path) is None


@pytest.mark.usefixtures("whole")
def test_a_whole_board(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", sys)  # as if JetPack's were this Python's
    found = by_name(root)
    assert [check.name for check in found.values() if not check.ok] == []
    assert found["board"].fact == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, L4T 36.4.4, JetPack 6.2.1"
    assert found["power mode"].fact == "25W, one of 15W, 25W, MAXN_SUPER"
    assert found["power rails"].fact == "VDD_IN 6.00 W, VDD_CPU_GPU_CV 2.00 W, VDD_SOC 1.00 W"
    assert found["device access"].fact.startswith("2 devices")


@pytest.mark.usefixtures("whole")
def test_facts_for_a_bug_report(root: Path) -> None:
    put(root / "sys/class/thermal/thermal_zone1", {"type": "cpu-thermal", "temp": 51250, "trip_point_0_type": "passive", "trip_point_0_temp": 99000})
    facts = board_facts(root)
    assert facts is not None
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["l4t"], facts["jetpack"], facts["sm"], facts["super_mode"]) == ("36.4.4", "6.2.1", 87, True)
    assert (facts["power_mode"], facts["watts"]["VDD_IN"]) == ("25W", 6.0)
    assert facts["zones"] == [{"zone": "cpu-thermal", "celsius": 51.25, "limit": 99.0}]


@pytest.mark.parametrize(
    ("missing", "packages"),
    [
        (("nvarguscamerasrc", "nvvidconv"), "nvidia-l4t-gstreamer"),
        (("videoconvert",), "gstreamer1.0-plugins-base"),
        (("nvvidconv", "videoconvert"), "nvidia-l4t-gstreamer gstreamer1.0-plugins-base"),
    ],
)
def test_each_element_that_gstreamer_lacks_is_named_with_its_package(root: Path, whole: Tools, missing: tuple[str, ...], packages: str) -> None:
    whole.add("gst-inspect-1.0", f'case "$2" in {"|".join(missing)}) exit 1;; esac')
    check = by_name(root)["CSI camera"]
    assert (check.fact, check.fix) == (f"GStreamer has no {', '.join(missing)}", f"sudo apt install {packages}")
    assert [call.split()[-1] for call in whole.calls if call.startswith("gst-inspect")] == list(ELEMENTS)


def test_the_real_gst_inspect_is_understood(root: Path, tools: Tools) -> None:
    """Where GStreamer is installed and no Jetson is: the two elements of NVIDIA's are missing, the others are there."""
    found = shutil.which("gst-inspect-1.0", path="/usr/bin")
    if found is None:
        pytest.skip("no gst-inspect-1.0: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base")
    assert by_name(root)["CSI camera"].fact == "GStreamer has no nvarguscamerasrc, nvvidconv"


def test_without_gstreamers_tools(root: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools.folder))
    assert by_name(root)["CSI camera"].fix == "sudo apt install gstreamer1.0-tools"
    assert "nvargus-daemon" not in by_name(root), "a container has no systemctl, the daemon is its host's"


def test_the_real_systemctl_is_understood(root: Path, tools: Tools) -> None:
    """Where systemd runs and no Jetson is, the daemon is unknown; where it does not run, nothing is said of it."""
    check = by_name(root).get("nvargus-daemon")
    assert Path("/run/systemd/system").is_dir() == (check is not None)
    assert check is None or check.fact == "inactive"


def test_a_daemon_that_does_not_run(root: Path, whole: Tools) -> None:
    whole.add("systemctl", "echo inactive; exit 3")
    check = by_name(root)["nvargus-daemon"]
    assert (check.fact, check.fix[:42]) == ("inactive", "sudo systemctl enable --now nvargus-daemon")
    assert whole.calls[-1] == "systemctl is-active nvargus-daemon"


STACK = ("nvidia-l4t-camera", "nvidia-l4t-multimedia", "nvidia-l4t-multimedia-utils", "nvidia-l4t-gstreamer")


def dpkg(versions: dict[str, str]) -> str:
    return "\n\n".join(f"Package: {name}\nStatus: install ok installed\nMaintainer: NVIDIA\nVersion: {version}" for name, version in versions.items())


@pytest.mark.parametrize("l4t", ["36.4.7", "36.5.0"])
@pytest.mark.usefixtures("whole")
def test_a_camera_stack_that_is_known_to_crash(tmp_path: Path, l4t: str) -> None:
    root = orin_nano(tmp_path / l4t, l4t)
    bad = dict.fromkeys(STACK, f"{l4t}-20250918154033")
    put(root, {"var/lib/dpkg/status": dpkg({"bash": "5.1", **bad})})
    check = by_name(root)["camera stack"]
    assert not check.ok
    assert "36.4.4 as a set" in check.fix
    put(root, {"var/lib/dpkg/status": dpkg({**bad, "nvidia-l4t-camera": "36.4.4-20250616085344"})})
    assert f"({', '.join(STACK[1:])} of {l4t})" in by_name(root)["camera stack"].fact, "all four, or it does not count"
    put(root, {"var/lib/dpkg/status": dpkg(dict.fromkeys(STACK, "36.4.4-20250616085344"))})
    assert by_name(root)["camera stack"].ok


@pytest.mark.usefixtures("whole")
def test_a_sound_camera_stack_is_not_spoken_of(root: Path) -> None:
    assert "camera stack" not in by_name(root)


@pytest.mark.usefixtures("whole")
def test_a_power_mode_that_is_not_the_one_in_the_settings(root: Path) -> None:
    put(root, {"etc/sage-edge/sage-edge.conf": '#SAGE_EDGE_POWER_MODE=15W\nSAGE_EDGE_POWER_MODE="MAXN_SUPER"'})
    check = by_name(root)["power mode"]
    assert "asks for MAXN_SUPER" in check.fact
    assert check.fix.startswith("sudo nvpmodel -m 2")
    put(root, {"etc/sage-edge/sage-edge.conf": "#SAGE_EDGE_POWER_MODE=15W\nSAGE_EDGE_POWER_MODE=25W"})
    assert by_name(root)["power mode"].ok


@pytest.mark.usefixtures("whole")
def test_a_power_mode_is_found_by_any_spelling_that_first_boot_takes_and_one_that_the_board_lacks_is_said(root: Path) -> None:
    put(root, {"etc/sage-edge/sage-edge.conf": "SAGE_EDGE_POWER_MODE=maxn-super"})
    assert by_name(root)["power mode"].fix.startswith("sudo nvpmodel -m 2")
    put(root, {"etc/sage-edge/sage-edge.conf": "SAGE_EDGE_POWER_MODE=25w"})
    assert by_name(root)["power mode"].ok
    put(root, {"etc/sage-edge/sage-edge.conf": "SAGE_EDGE_POWER_MODE=50W"})
    check = by_name(root)["power mode"]
    assert not check.ok
    assert "asks for 50W, which this board does not have" in check.fact


@pytest.mark.usefixtures("whole")
def test_nothing_to_read(root: Path) -> None:
    shutil.rmtree(root / "sys")
    shutil.rmtree(root / "dev")
    (root / "etc/nvpmodel.conf").unlink()
    found = by_name(root)
    assert [name for name, check in found.items() if not check.ok] == ["power mode", "power rails", "device access", "TensorRT for Python"]
    assert found["power mode"].fix == "sudo apt install nvidia-l4t-nvpmodel"


@pytest.mark.usefixtures("whole")
def test_each_cause_of_throttling_has_its_own_advice(root: Path) -> None:
    at = "sys/class/hwmon/hwmon3"
    put(root, {f"{at}/name": "soctherm_oc", f"{at}/oc1_event_cnt": 0, f"{at}/oc2_event_cnt": 0, f"{at}/oc3_event_cnt": 37})
    assert by_name(root)["throttling"].ok, "NVIDIA's boards have those in good health"
    put(root, {f"{at}/oc1_event_cnt": 2})
    check = by_name(root)["throttling"]
    assert check.fact == "2 x undervoltage since it booted, 37 x instantaneous overcurrent since it booted"
    assert check.fix == "take a stronger power supply and a shorter cable"
    put(root, {f"{at}/oc1_event_cnt": 0, "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0", "sys/class/thermal/cooling_device1/cur_state": 2})
    assert by_name(root)["throttling"].fix == "cool the board better"


@pytest.mark.usefixtures("whole")
def test_why_this_python_has_no_tensorrt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> None:
        assert name == "tensorrt"

    monkeypatch.setattr(checks.importlib.util, "find_spec", without)
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    assert "--system-site-packages" in by_name(root)["TensorRT for Python"].fix
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    check = by_name(root)["TensorRT for Python"]
    assert (check.fact, check.fix) == ("JetPack's is for Python 3.10, this is 3.12", "run sage-edge with /usr/bin/python3")
    shutil.rmtree(root / "usr")
    assert by_name(root)["TensorRT for Python"].fix == "sudo apt install python3-libnvinfer"


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A board's root that any user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="sage-edge-board-"))
    folder.chmod(0o755)
    yield orin_nano(folder / "root")
    shutil.rmtree(folder)


@pytest.mark.usefixtures("whole")
def test_a_user_outside_of_the_groups_is_told_which(open_root: Path) -> None:
    node = open_root / "dev/nvmap"
    node.chmod(0o000)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        check = checks._access(open_root, None)  # type: ignore[arg-type]
    finally:
        if was_root:
            os.seteuid(0)
    assert not check.ok
    assert "may not open" in check.fact
    assert "nvmap" in check.fact
    assert check.fix == "sudo usermod -aG video,audio,render $USER, and log in again"


@pytest.mark.usefixtures("whole")
def test_an_unknown_revision_warns_and_nothing_stops(tmp_path: Path) -> None:
    found = by_name(orin_nano(tmp_path / "new", "36.9.9"))
    assert not found["board"].ok
    assert "36.9.9" in found["board"].fix
    assert found["power mode"].ok


@pytest.mark.usefixtures("whole")
def test_doctor_shows_them_on_a_board(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOT", root)
    monkeypatch.setattr("sage_edge.runtime.checkup.checks", list)
    monkeypatch.setattr("sage_edge.runtime.checkup.backends", lambda: ([], []))
    from sage_edge.cli.main import main

    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["board"]["l4t"] == "36.4.4"
    assert "CSI camera" in {check["name"] for check in said["checks"]}
    assert main(["doctor"]) == 0
    assert "ok   power mode" in capsys.readouterr().out
