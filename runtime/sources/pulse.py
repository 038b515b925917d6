"""What the sound server's own tool says: which sources there are at which rate, and which one this process records.

PortAudio shows a PulseAudio or PipeWire server as one device, "pulse", that claims any rate. `pactl` (apt: pulseaudio-utils) knows better; without
it, or without a server, the answers are empty and the device "pulse" is all there is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class PulseSource:
    """One source of the server. `name` is what the server calls it, `description` what people do; a monitor records what a loudspeaker plays."""

    number: int
    name: str
    description: str
    rate_hz: int
    channels: int
    default: bool
    monitor: bool


def pulse_sources() -> list[PulseSource]:
    """All of them; none without `pactl` or a server that answers within a few seconds."""
    default = _fields(_pactl("info")).get("default_source_name")
    found = []
    for source in _entries(_pactl("list", "sources")):
        spec = re.fullmatch(r"\S+ (\d{1,3})ch (\d{1,7})Hz", str(source.get("sample_specification")))
        name, number = source.get("name"), source.get("index")
        if spec and isinstance(name, str) and name.isprintable() and isinstance(number, int):
            what, monitor = str(source.get("description") or name), bool(source.get("monitor_source"))
            found.append(PulseSource(number, name, what, int(spec[2]), int(spec[1]), name == default, monitor))
    return found


def recorded_number() -> int | None:
    """`PulseSource.number` of what this process records now; None when it records nothing, several, or nobody knows."""
    outputs, own = _entries(_pactl("list", "source-outputs")), str(os.getpid())
    numbers = [output.get("source") for output in outputs if _fields(output.get("properties")).get("application.process.id") == own]
    number = numbers[0] if numbers and all(each == numbers[0] for each in numbers) else None
    return number if isinstance(number, int) else None


def _fields(said: Any) -> dict[str, Any]:
    return said if isinstance(said, dict) else {}


def _entries(said: Any) -> list[dict[str, Any]]:
    return [entry for entry in said if isinstance(entry, dict)] if isinstance(said, list) else []


def _pactl(*command: str) -> Any:
    """The JSON that pactl prints; None when it cannot."""
    try:
        done = subprocess.run(
            ["pactl", "--format=json", *command], capture_output=True, timeout=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, RecursionError):
        return None
