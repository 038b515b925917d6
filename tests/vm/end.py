"""What a machine has left behind once it is off: its estimates and its journal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from report import Failure, Report
from stream import is_estimate

RUNS = 3
"""How often the service was meant to start at least: after first boot, with the good update, after the bad one."""
POWER_CUTS = 1
"""Each may tear a line: the one that was being written."""


def check_end(estimates: Path, journal: Path, report: Report) -> None:
    """The lines of `estimates` are whole, and the service was stopped, not killed, by the journal in the folder `journal`. Raises Failure."""
    text = estimates.read_text(encoding="utf-8", errors="replace")
    lines, torn = [], 0
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            torn += 1
    hellos, count = sum(line.get("type") == "hello" for line in lines), sum(map(is_estimate, lines))
    report.saw(f"{estimates.name}: {len(lines)} lines, {count} estimates of {hellos} runs, {torn} torn line(s), {len(text) / 1e3:.0f} kB")
    if not text.endswith("\n") or hellos < RUNS or torn > POWER_CUTS:
        raise Failure(f"{estimates} ends within a line, has {torn} torn ones ({POWER_CUTS} at most), or tells of {hellos} runs ({RUNS} at least)")
    read = ["journalctl", "--no-pager", "-D", str(journal)]
    (journal.parent / "journal.txt").write_bytes(subprocess.run([*read, "-o", "short-precise"], capture_output=True, check=True).stdout)
    last = subprocess.run([*read, "-o", "cat", "-u", "sage-edge.service", "-n", "8"], capture_output=True, text=True, check=True).stdout
    report.saw(last)
    if "sage-edge.service: Deactivated successfully." not in last:
        raise Failure("the service was not stopped in good order")
