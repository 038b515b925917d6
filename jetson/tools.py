"""The board's own command line tools: run to their end, with nothing to read, so that none of them waits for an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Said:
    """How a tool ended. `text` is its stdout and stderr together; `code` is None when it had to be ended."""

    code: int | None
    text: str

    @property
    def last(self) -> str:
        """Its last line, which in NVIDIA's tools is the reason; or how it ended."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}" if self.code is not None else f"no end within {TIMEOUT_S:.0f} s"


def find_tool(name: str) -> str | None:
    """Where it is: on PATH, or in /usr/sbin, which a user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def run_tool(name: str, *args: str) -> Said | None:
    """Run it; None where it is not installed or may not be run."""
    path = find_tool(name)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Said(None, "")
    except OSError:
        return None
    return Said(done.returncode, done.stdout)
