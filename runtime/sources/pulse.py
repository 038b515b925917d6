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
    listed, server = _pactl("list", "sources"), _pactl("info")
    default = server.get("default_source_name") if isinstance(server, dict) else None
    found = []
    for source in listed if isinstance(listed, list) else []:
        spec = re.fullmatch(r"\S+ (\d+)ch (\d+)Hz", str(source.get("sample_specification")))
        name, number = source.get("name"), source.get("index")
        if spec and isinstance(name, str) and isinstance(number, int):
            what, monitor = str(source.get("description") or name), bool(source.get("monitor_source"))
            found.append(PulseSource(number, name, what, int(spec[2]), int(spec[1]), name == default, monitor))
    return found


def recorded_number() -> int | None:
    """`PulseSource.number` of what this process records now; None when it records nothing, several, or nobody knows."""
    outputs, own = _pactl("list", "source-outputs"), str(os.getpid())
    outputs = outputs if isinstance(outputs, list) else []
    numbers = {output.get("source") for output in outputs if output.get("properties", {}).get("application.process.id") == own}
    number = numbers.pop() if len(numbers) == 1 else None
    return number if isinstance(number, int) else None


def _pactl(*command: str) -> Any:
    """The JSON that pactl prints; None when it cannot."""
    try:
        done = subprocess.run(
            ["pactl", "--format=json", *command], capture_output=True, timeout=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
