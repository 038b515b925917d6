"""The life of the emulated board, from power on to power off, step by step. A step that needs one before it ends the run when that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import image
from board import ESTIMATES
from machine import Machine
from made import Releases
from report import Failure, Report, wait_until
from stream import Line, Stream, is_estimate

SERVICE, FIRST_BOOT = "sage-edge.service", "sage-edge-first-boot.service"
UPDATE = "/opt/sage-edge/current/bin/sage-edge-update"
STICK = "/mnt"
FLOWING_S = 10
"""How long estimates must flow after an update before it stays."""


def live(machine: Machine, releases: Releases, report: Report, artefacts: Path) -> None:
    """Every step. The journal goes to `artefacts`, whatever comes."""
    stream = Stream(machine, ESTIMATES)
    with report.step("power on: systemd, a Jetson's names, camera, sound card, no network"):
        _power_on(machine, report)
    try:
        with report.step("first boot runs to its stamp"):
            _first_boot(machine, report)
        with report.step("the service is ready, as a user of its own"):
            _ready(machine, report)
        with report.step("estimates flow, with face and sound"):
            _estimates(machine, stream, report)
        with report.step("camera unplugged, and plugged in again"):
            _unplug(machine, stream, report)
        with report.step("a good update stays"):
            _good_update(machine, stream, releases, report)
        with report.step("an update that crashes is rolled back by itself"):
            _bad_update(machine, stream, releases, report)
    finally:
        (artefacts / "journal.txt").write_text(machine.sh("journalctl --no-pager -o short-monotonic -b", seconds=300))
    with report.step("power off"):
        _power_off(machine, report)


def _power_on(machine: Machine, report: Report) -> None:
    report.did(machine.command)
    machine.sh("true", seconds=300)
    model = machine.sh("tr -d '\\0' < /proc/device-tree/model")
    report.saw(f"{machine.sh('uname -srm').strip()}, {model}, up for {machine.sh('cut -d. -f1 /proc/uptime').strip()} s")
    if model != image.MODEL:
        raise Failure(f"the device tree says {model!r}")
    links = machine.sh("ls /sys/class/net").split()
    report.saw(f"network interfaces: {' '.join(links)}")
    if links != ["lo"]:
        raise Failure("there is a network")
    wait_until("camera and sound card", lambda: not machine.try_sh("test -e /dev/video0 -a -e /proc/asound/Loopback")[0], 120)
    report.saw(machine.sh("cat /sys/class/video4linux/video0/name; head -1 /proc/asound/cards"))


def _first_boot(machine: Machine, report: Report) -> None:
    def over() -> bool:
        if _property(machine, FIRST_BOOT, "ActiveState") == "failed":
            raise Failure(f"{FIRST_BOOT} failed: {_said(machine, FIRST_BOOT).strip()[-400:]}")
        return not machine.try_sh("test -e /var/lib/sage-edge/provisioned")[0]

    try:
        wait_until("the stamp of first boot", over, 900)
    finally:
        report.saw(_said(machine, FIRST_BOOT))
    report.saw(f"stamp: {machine.sh('cat /var/lib/sage-edge/provisioned').strip()}")


def _ready(machine: Machine, report: Report) -> None:
    wait_until(f"{SERVICE} to be active", lambda: _property(machine, SERVICE, "ActiveState") == "active", 600)
    facts = _properties(machine, SERVICE, "ActiveState", "Type", "MainPID", "NRestarts", "StatusText", "WatchdogUSec", "MemoryCurrent")
    report.saw("\n".join(f"{key}={value}" for key, value in facts.items()))
    report.saw(machine.sh(f"stat -c 'user %U' /proc/{facts['MainPID']}; grep VmRSS /proc/{facts['MainPID']}/status"))
    if facts["Type"] != "notify" or facts["NRestarts"] != "0":
        raise Failure(f"the service is of type {facts['Type']} and was restarted {facts['NRestarts']} times")


def _estimates(machine: Machine, stream: Stream, report: Report) -> None:
    report.did("systemctl start e2e-face.service: somebody sits down before the camera")
    machine.sh("systemctl start e2e-face.service")
    lines = stream.wait("estimates with a face and a window full of sound", _whole, 300, count=3)
    hello = next((line for line in lines if line.get("type") == "hello"), None)
    if hello is None:
        raise Failure(f"{ESTIMATES} has no hello")
    estimates = [line for line in lines if is_estimate(line)]
    times = [line["t_ns"] for line in estimates]
    if times != sorted(set(times)):
        raise Failure("the times of estimates do not ascend")
    report.saw(f"{len(estimates)} estimates, {hello['backend']} {hello['precision']}, hop {hello['hop']} ticks, the last one:")
    report.saw(json.dumps({key: value for key, value in estimates[-1].items() if key != "trail"}))


def _unplug(machine: Machine, stream: Stream, report: Report) -> None:
    stream.skip()
    report.did("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    machine.sh("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    lines = stream.wait("the notice that it is gone", lambda line: line.get("what") == "camera_gone", 120)
    lines += stream.wait(
        "estimates without it", lambda line: is_estimate(line) and line["face"] is None and line["live"]["camera"] == "gone", 240, count=2
    )
    if not machine.try_sh("test -e /dev/video0")[0]:
        raise Failure("/dev/video0 is still there")
    report.did("echo vivid.0 > /sys/bus/platform/drivers/vivid/bind")
    machine.sh("echo vivid.0 > /sys/bus/platform/drivers/vivid/bind")
    lines += stream.wait("the camera's face again", lambda line: _whole(line) and line["live"]["camera"] == "live", 240, count=2)
    for line in lines:
        if line.get("type") == "notice":
            report.saw(f"{line['what']}: {line['detail']}")
    report.saw(
        f"{sum(is_estimate(line) for line in lines)} estimates meanwhile; {SERVICE} restarted {_property(machine, SERVICE, 'NRestarts')} times"
    )
    if _property(machine, SERVICE, "NRestarts") != "0":
        raise Failure("the service did not stay up")


def _good_update(machine: Machine, stream: Stream, releases: Releases, report: Report) -> None:
    machine.sh(f"mount -o ro /dev/vdb {STICK}")
    before = _current(machine)
    code = _update(machine, releases.good, report)
    if code or _current(machine) == before or not _current(machine).endswith(".good"):
        raise Failure(f"the update ended with exit code {code} and the version is {_current(machine)}")
    _flows_again(machine, stream, report)


def _bad_update(machine: Machine, stream: Stream, releases: Releases, report: Report) -> None:
    before = _current(machine)
    code = _update(machine, releases.crashing, report)
    if not code or _current(machine) != before:
        raise Failure(f"the update ended with exit code {code} and the version is {_current(machine)}, it was {before}")
    _flows_again(machine, stream, report)


def _update(machine: Machine, release: Path, report: Report) -> int:
    command = f"{UPDATE} apply {STICK}/{release.name} --seconds {FLOWING_S}"
    report.did(command)
    code, output = machine.try_sh(command, seconds=1500)
    report.saw(output)
    report.saw(f"exit code {code}; {machine.sh(f'{UPDATE} status --json').strip()}")
    return code


def _flows_again(machine: Machine, stream: Stream, report: Report) -> None:
    """The running service is of the current version, and its estimates come."""
    wait_until(f"{SERVICE} to be active", lambda: _property(machine, SERVICE, "ActiveState") == "active", 600)
    current, pid = _current(machine), _property(machine, SERVICE, "MainPID")
    runs = machine.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ | grep ^PYTHONPATH=; tr '\\0' ' ' < /proc/{pid}/cmdline")
    if current not in runs:
        raise Failure(f"current is {current}, and what runs is {runs!r}")
    stream.skip()
    lines = stream.wait("new estimates", is_estimate, 240, count=3)
    report.saw(f"version {current}, {sum(is_estimate(line) for line in lines)} new estimates")


def _power_off(machine: Machine, report: Report) -> None:
    report.did("systemctl poweroff")
    machine.sh("systemd-run -q --on-active=1 systemctl poweroff", check=False)
    machine.wait_off(180)
    report.saw("QEMU ended by itself")


def _whole(line: Line) -> Any:
    return is_estimate(line) and line["face"] is not None and line["audio"]["warm"] and line["audio"]["rms_dbfs"] > -60


def _current(machine: Machine) -> str:
    return machine.sh("basename $(readlink /opt/sage-edge/current)").strip()


def _property(machine: Machine, unit: str, name: str) -> str:
    return _properties(machine, unit, name)[name]


def _properties(machine: Machine, unit: str, *names: str) -> dict[str, str]:
    text = machine.sh(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}")
    return dict(line.partition("=")[::2] for line in text.splitlines())  # type: ignore[misc]


def _said(machine: Machine, unit: str) -> str:
    return machine.sh(f"journalctl --no-pager -o cat -b -u {unit}")
