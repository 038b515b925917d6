"""What is asked of the emulated board again and again."""

from __future__ import annotations

from machine import Machine
from report import Failure, Report, wait_until
from stream import Stream, is_estimate

SERVICE, FIRST_BOOT = "sage-edge.service", "sage-edge-first-boot.service"


def current(machine: Machine) -> str:
    """The version that `current` points at."""
    return machine.sh("basename $(readlink /opt/sage-edge/current)").strip()


def unit_property(machine: Machine, unit: str, name: str) -> str:
    """One of `unit_properties`."""
    return unit_properties(machine, unit, name)[name]


def unit_properties(machine: Machine, unit: str, *names: str) -> dict[str, str]:
    """What `systemctl show` says."""
    text = machine.sh(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}")
    return dict(line.partition("=")[::2] for line in text.splitlines())  # type: ignore[misc]


def said(machine: Machine, unit: str) -> str:
    """The journal of a unit since power on."""
    return machine.sh(f"journalctl --no-pager -o cat -b -u {unit}")


def flows(machine: Machine, stream: Stream, report: Report) -> None:
    """The running service is of the current version, and its estimates come."""
    wait_until(f"{SERVICE} to be active", lambda: unit_property(machine, SERVICE, "ActiveState") == "active", 600)
    version, pid = current(machine), unit_property(machine, SERVICE, "MainPID")
    runs = machine.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ | grep ^PYTHONPATH=; tr '\\0' ' ' < /proc/{pid}/cmdline")
    if version not in runs:
        raise Failure(f"current is {version}, and what runs is {runs!r}")
    stream.skip()
    lines = stream.wait("new estimates", is_estimate, 240, count=3)
    report.saw(f"version {version}, {sum(is_estimate(line) for line in lines)} new estimates")
