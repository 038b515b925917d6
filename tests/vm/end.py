"""What a machine has left behind once it is off: its estimates and its journal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from report import Failure, Report
from stream import is_estimate

RUNS = 3
"""How often the service was meant to start at least: by first boot, by the good update, after the bad one."""


def check_end(estimates: Path, journal: Path, report: Report) -> None:
    """Every line of `estimates` is whole, and the service was stopped, not killed, by the journal in the folder `journal`. Raises Failure."""
    text = estimates.read_text(encoding="utf-8")
    try:
        lines = [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise Failure(f"{estimates} has a line that is not whole ({error})") from None
    hellos, count = sum(line.get("type") == "hello" for line in lines), sum(map(is_estimate, lines))
    report.saw(f"{estimates.name}: {len(lines)} lines, {count} estimates of {hellos} runs, {len(text) / 1e3:.0f} kB")
    if not text.endswith("\n") or hellos < RUNS:
        raise Failure(f"{estimates} ends in the middle of a line, or tells of {hellos} runs and {RUNS} are the least")
    command = ["journalctl", "--no-pager", "-o", "cat", "-D", str(journal), "-u", "sage-edge.service", "-n", "8"]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report.saw(last)
    if "sage-edge.service: Deactivated successfully." not in last:
        raise Failure("the service was not stopped in good order")
