"""One JSON object per line: the hello, then an estimate for every hop (its keys: `runtime/estimate.py`)."""

from __future__ import annotations

import json
from typing import Any

from ..estimate import Estimate
from ..notice import Notice, Status
from .lines import FileLines, StdoutLines


class JsonlSink:
    """`target` is FILE, FILE?append=1, or "-" for stdout. See `sinks.Sink`."""

    takes_status = False

    def __init__(self, target: str) -> None:
        self.spec = f"jsonl:{target}"
        self._lines: FileLines | StdoutLines = StdoutLines() if target == "-" else FileLines(target)
        self._started = False

    def start(self, hello: dict[str, Any]) -> None:
        """Write the hello line, once."""
        if not self._started:
            self._lines.write(json.dumps(hello, separators=(",", ":"), allow_nan=False))
            self._started = True

    def write(self, estimate: Estimate) -> None:
        """Write one estimate."""
        self._lines.write(estimate.to_json())

    def notice(self, notice: Notice) -> None:
        """Write one notice: its `type` tells it from an estimate, which has none."""
        self._lines.write(notice.to_json())

    def status(self, status: Status) -> None:
        """Nothing: a file of estimates does not grow by what is measured beside them."""

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
