"""One value of one file of /sys, or nothing."""

from __future__ import annotations

import re
from pathlib import Path

SYSFS = Path("/sys")


def text(path: Path) -> str | None:
    """What the file holds, without NULs and space around it; None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0 \n\t")
    except OSError:  # not there, switched off, or its driver says no
        return None


def number(path: Path) -> int | None:
    """The whole number that the file begins with, whatever unit follows; None where there is none."""
    found = re.match(r"-?[0-9]+", text(path) or "")
    return None if found is None else int(found[0])
