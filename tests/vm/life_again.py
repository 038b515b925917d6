"""The second life of the emulated board: after a power cut in the middle of an update, and to a clean power-off."""

from __future__ import annotations

from asking import FIRST_BOOT, SERVICE, current, flows, said, unit_property
from board import ESTIMATES
from machine import Machine
from report import Failure, Report, wait_until
from stream import Stream


def live_again(machine: Machine, version: str, report: Report) -> None:
    """`version` is the one that has to run."""
    with report.step("power on again: the update that was cut off is given up"):
        stream = Stream(machine, ESTIMATES)
        machine.sh("true", seconds=300)
        wait_until(f"{SERVICE} to be active", lambda: unit_property(machine, SERVICE, "ActiveState") == "active", 600)
        report.saw(said(machine, "sage-edge-rollback.service"))
        report.saw(machine.sh("sage-edge-update status"))
        if current(machine) != version or not machine.try_sh("test -e /var/lib/sage-edge/trial.json")[0]:
            raise Failure(f"version {current(machine)} runs, which should be {version}, and nothing may be on trial")
        if unit_property(machine, FIRST_BOOT, "ConditionResult") != "no":
            raise Failure("first boot ran again")
        flows(machine, stream, report)
    with report.step("power off"):
        report.did("systemctl poweroff")
        machine.sh("systemd-run -q --on-active=1 systemctl poweroff")
        machine.wait_off(180)
        report.saw("QEMU ended by itself")
