"""What systemd is told about a live run (sd_notify(3)): ready with the first estimate, alive as long as estimates come, a line of status a second.

    notifier = Notifier.of_environment()      # None where $NOTIFY_SOCKET asks for nothing
    sinks = [NotifySink(notifier), *sinks]    # before the queues: what is told is what the loop itself does

The watchdog is fed by estimates alone, so a loop that turns without giving any is ended, and started again, by systemd. Nothing here waits or
raises: a message that systemd does not take is not sent, but for READY, which comes with the next estimate then.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from .estimate import Estimate
from .notice import Notice, Status

FEEDINGS = 4
"""How often the watchdog is fed in its time, at least, while estimates come."""
LONGEST_S = 1.0


class Notifier:
    """Datagrams to `address`, a path or an abstract name that begins with "@". `watchdog_s` is None where nobody watches."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier | None:
        """From $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID; None where the first is not set or is no Unix socket."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")) or len(address) < 2:
            return None
        microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def send(self, *assignments: str) -> bool:
        """Send "NAME=value" lines as one message; whether it was taken."""
        message = "\n".join(line.replace("\n", " ") for line in assignments)
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except (OSError, ValueError):  # ValueError: an address that no socket has
            return False
        return True

    def close(self) -> None:
        """Nothing is sent after it."""
        self._socket.close()


class NotifySink:
    """A sink that writes nothing: it tells `notifier` that there was something to write. See `sinks.Sink`."""

    spec = "systemd"

    def __init__(self, notifier: Notifier, now_s: Callable[[], float] = time.monotonic) -> None:
        self._notifier, self._now_s = notifier, now_s
        watchdog_s = notifier.watchdog_s
        self._every_s = None if watchdog_s is None else min(LONGEST_S, watchdog_s / FEEDINGS)
        self._estimates, self._late_ms = 0, 0.0
        self._ready, self._fed_s = False, 0.0
        notifier.send("STATUS=loading engines")

    def start(self, hello: dict[str, Any]) -> None:
        """Engines are loaded, the loop begins."""
        self._notifier.send("STATUS=waiting for the first estimate")

    def write(self, estimate: Estimate) -> None:
        """Ready with the first estimate; from then on alive."""
        self._estimates += 1
        if estimate.live is not None:
            self._late_ms = estimate.live.late_ms
        now_s = self._now_s()
        if not self._ready:
            self._ready, self._fed_s = self._notifier.send("READY=1", f"STATUS={self._estimates} estimates"), now_s
        elif self._every_s is not None and now_s - self._fed_s >= self._every_s and self._notifier.send("WATCHDOG=1"):
            self._fed_s = now_s

    def notice(self, notice: Notice) -> None:
        """Nothing: a run says its notices itself."""

    def status(self, status: Status) -> None:
        """The line that `systemctl status` shows."""
        self._notifier.send(f"STATUS={status_line(self._estimates, self._late_ms, status)}")

    def counts(self) -> dict[str, Any]:
        """What the status of a run says of its outputs."""
        return {"state": "live", "written": self._estimates, "dropped": 0, "queued": 0}

    def close(self) -> None:
        """The run is over; the other outputs may take a moment to end."""
        with contextlib.suppress(OSError):
            self._notifier.send("STOPPING=1", f"STATUS=stopping after {self._estimates} estimates")
            self._notifier.close()


def status_line(estimates: int, late_ms: float, status: Status) -> str:
    """A run in one line: "84 estimates, 41 ms late, camera live 30.0/s, microphone live, 187 MB". It begins with what `estimates_of` reads."""
    parts = [f"{estimates} estimates", f"{late_ms:.0f} ms late"]
    for name in ("camera", "microphone"):
        if (device := status[name]) is not None:
            rate = f" {device['rate_hz']:.1f}/s" if "rate_hz" in device else ""
            parts.append(f"{name} {device['state']}{rate}")
    lost = [f"{count} {name} lost" for name, count in status["drops"].items() if count]
    rss_mb = status["process"]["rss_mb"]
    return ", ".join([*parts, *lost, *([] if rss_mb is None else [f"{rss_mb:.0f} MB"])])


def estimates_of(line: str) -> int | None:
    """How many estimates the service gave, by its status line; None where the line tells no such number."""
    found = re.match(r"([0-9]+) estimates\b", line)
    return None if found is None else int(found[1])
