"""The estimates of the machine's service, read from the file that it writes while it writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from machine import Machine
from report import Failure, wait_until

Line = dict[str, Any]


def is_estimate(line: Line) -> bool:
    """Other lines have a type: hello, status, notice."""
    return "type" not in line


class Stream:
    """Whole lines of the JSONL file `path`, each once."""

    def __init__(self, machine: Machine, path: str) -> None:
        self._machine, self._path = machine, path
        self._at = 0

    def skip(self) -> None:
        """Leave out what is there."""
        self.new()

    def new(self) -> list[Line]:
        """The lines since the last call; from the start when the file was emptied."""
        size = int(self._machine.sh(f"stat -c %s {self._path} 2> /dev/null || echo 0"))
        if size < self._at:
            self._at = 0
        text = self._machine.sh(f"tail -c +{self._at + 1} {self._path} 2> /dev/null | head -c {size - self._at}")
        whole = text[: text.rfind("\n") + 1]
        self._at += len(whole.encode())
        return [line for line in map(_parsed, whole.splitlines()) if line is not None]

    def wait(self, what: str, fits: Callable[[Line], object], seconds: float, count: int = 1) -> list[Line]:
        """Everything up to the poll in which the `count`-th line that fits has come. Raises Failure after `seconds`."""
        seen: list[Line] = []

        def enough() -> bool:
            seen.extend(self.new())
            return sum(bool(fits(line)) for line in seen) >= count

        try:
            wait_until(what, enough, seconds, every_s=1.0)
        except Failure as failure:
            last = next((line for line in reversed(seen) if is_estimate(line)), None)
            raise Failure(f"{failure}; {len(seen)} lines came, the last estimate was {json.dumps(last)}") from None
        return seen


def _parsed(text: str) -> Line | None:
    """None for a line that a power cut has torn; `end.py` counts them."""
    try:
        line: Line = json.loads(text)
    except ValueError:
        return None
    return line
