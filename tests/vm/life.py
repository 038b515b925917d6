"""The life of the emulated board, from power on to a power cut, step by step. A step that fails ends the run: the next ones build on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import image
from asking import FIRST_BOOT, SERVICE, current, flows, said, unit_properties, unit_property
from board import ESTIMATES
from machine import Machine
from made import Releases
from report import Failure, Report, wait_until
from stream import Line, Stream, is_estimate

UPDATE = "/opt/sage-edge/current/bin/sage-edge-update"
VERSIONS = "/opt/sage-edge/versions"
STICK = "/mnt"
FLOWING_S = 3
"""How long estimates must flow after an update before it stays."""
LOUD_DBFS = -60
MOST_ADDED_MB = 5
"""By an update to the same files: folders and the description."""


def live(machine: Machine, releases: Releases, report: Report) -> str:
    """Every step until the power may be cut, in the middle of an update; the version that has to run after that."""
    stream = Stream(machine, ESTIMATES)
    with report.step("power on: systemd, a Jetson's names, camera, sound card, no network"):
        _power_on(machine, report)
    with report.step("first boot runs to its stamp"):
        _first_boot(machine, report)
    with report.step("the service is ready, as a user of its own"):
        _ready(machine, report)
    with report.step("estimates flow, with a face and sound"):
        _estimates(machine, stream, report)
    with report.step("camera unplugged, and plugged in again"):
        _unplug(machine, stream, report)
    with report.step("a good update stays"):
        _good_update(machine, stream, releases, report)
    with report.step("an update that crashes is rolled back by itself"):
        _bad_update(machine, stream, releases, report)
    with report.step("the power goes in the middle of an update"):
        return _cut_off(machine, report)


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
        if unit_property(machine, FIRST_BOOT, "ActiveState") == "failed":
            raise Failure(f"{FIRST_BOOT} failed: {said(machine, FIRST_BOOT).strip()[-400:]}")
        return not machine.try_sh("test -e /var/lib/sage-edge/provisioned")[0]

    try:
        wait_until("the stamp of first boot", over, 900)
    finally:
        report.saw(said(machine, FIRST_BOOT))
    report.saw(f"stamp: {machine.sh('cat /var/lib/sage-edge/provisioned').strip()}")


def _ready(machine: Machine, report: Report) -> None:
    def up() -> bool:
        facts = unit_properties(machine, SERVICE, "ActiveState", "NRestarts")
        if facts["NRestarts"] != "0":
            raise Failure(f"the service did not start: {said(machine, SERVICE).strip()[-400:]}")
        return facts["ActiveState"] == "active"

    wait_until(f"{SERVICE} to be active", up, 600)
    facts = unit_properties(machine, SERVICE, "ActiveState", "Type", "MainPID", "NRestarts", "StatusText", "WatchdogUSec", "MemoryCurrent")
    report.saw("\n".join(f"{key}={value}" for key, value in facts.items()))
    report.saw(machine.sh(f"stat -c 'user %U' /proc/{facts['MainPID']}; grep -E 'Vm(RSS|HWM)' /proc/{facts['MainPID']}/status"))
    if facts["Type"] != "notify" or facts["NRestarts"] != "0":
        raise Failure(f"the service is of type {facts['Type']} and was restarted {facts['NRestarts']} times")


def _estimates(machine: Machine, stream: Stream, report: Report) -> None:
    report.did("systemctl start e2e-face.service: somebody sits down before the camera")
    machine.sh("systemctl start e2e-face.service")
    lines = stream.wait("estimates with a face and sound", _whole, 300, count=3)
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
        f"{sum(is_estimate(line) for line in lines)} estimates meanwhile; {SERVICE} restarted {unit_property(machine, SERVICE, 'NRestarts')} times"
    )
    if unit_property(machine, SERVICE, "NRestarts") != "0":
        raise Failure("the service did not stay up")
    report.did("systemctl stop e2e-face.service: they leave, what follows needs nobody")
    machine.sh("systemctl stop e2e-face.service")


def _good_update(machine: Machine, stream: Stream, releases: Releases, report: Report) -> None:
    machine.sh(f"mount -o ro /dev/vdb {STICK}")
    before = current(machine)
    code = _update(machine, releases.good, report)
    if code or current(machine) == before or not current(machine).endswith(".good"):
        raise Failure(f"the update ended with exit code {code} and the version is {current(machine)}")
    added_mb = int(machine.sh(f"cd {VERSIONS} && du -sm {before} {current(machine)} | tail -n 1").split()[0])
    report.saw(f"{added_mb} MB more on the disk, everything else are links")
    if added_mb > MOST_ADDED_MB:
        raise Failure(f"an update that changes nothing wrote {added_mb} MB")
    flows(machine, stream, report)


def _bad_update(machine: Machine, stream: Stream, releases: Releases, report: Report) -> None:
    before = current(machine)
    code = _update(machine, releases.crashing, report)
    if not code or current(machine) != before:
        raise Failure(f"the update ended with exit code {code} and the version is {current(machine)}, it was {before}")
    flows(machine, stream, report)


def _update(machine: Machine, release: Path, report: Report) -> int:
    command = f"{UPDATE} apply {STICK}/{release.name} --seconds {FLOWING_S}"
    report.did(command)
    code, output = machine.try_sh(command, seconds=1500)
    report.saw(output)
    report.saw(f"exit code {code}; {machine.sh(f'{UPDATE} status --json').strip()}")
    return code


def _cut_off(machine: Machine, report: Report) -> str:
    """The version that runs while another one, `previous`, is on trial."""
    before = current(machine)
    report.did(f"{UPDATE} rollback, which tries the version before {before} like any other")
    machine.sh(f"systemd-run -q --unit=e2e-update {UPDATE} rollback")

    def on_trial() -> bool:
        if unit_property(machine, "e2e-update.service", "ActiveState") == "failed":
            raise Failure(f"the update failed: {said(machine, 'e2e-update.service').strip()[-400:]}")
        return current(machine) != before

    try:
        wait_until("the other version to be on trial", on_trial, 1500)
    finally:
        report.saw(said(machine, "e2e-update.service"))
    report.saw(f"on trial: {machine.sh('cat /var/lib/sage-edge/trial.json')}")
    report.did("cut the power")
    return before


def _whole(line: Line) -> Any:
    """Whether an estimate rests on a face and on sound. A window full of sound is more than a busy host's emulated sound card gives."""
    return is_estimate(line) and line["face"] is not None and line["audio"]["rms_dbfs"] > LOUD_DBFS
