"""Whether sage-edge.service is well: it became ready, its estimates advance, and nobody had to start it again.

    service = Service()
    if (why := service.start_again() or service.watch(30.0)): print(why)

All by `systemctl show`: its status line begins with the number of estimates (`runtime/notify.py`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from sage_edge.runtime.errors import BoardError
from sage_edge.runtime.notify import estimates_of

from .tools import run_tool

UNIT = "sage-edge.service"
STALLED_S = 20.0
"""Estimates that do not advance for this long have stopped."""
_PROPERTIES = ("ActiveState", "SubState", "Result", "ExecMainStatus", "InvocationID", "StatusText")
_POLL_S = 0.5
_END_S = 30.0
"""TimeoutStopSec of the unit, and some."""
_LINE = 300


@dataclass(frozen=True)
class State:
    """What systemd says of the unit. `run` is its InvocationID, a new one with every start."""

    active: str
    sub: str
    result: str
    exit_status: str
    run: str
    status: str

    @property
    def estimates(self) -> int | None:
        """How many this run gave so far; None where its status does not say."""
        return estimates_of(self.status)

    @property
    def ended(self) -> str:
        """How it ended, in words; "" where its exit code says no more than that it failed."""
        words = {
            "watchdog": "it gave no estimate for a minute",
            "oom-kill": "it took more memory than it may",
            "timeout": "it did not become ready in time",
        }
        return "" if self.result == "exit-code" else words.get(self.result, self.result)


class Service:
    """The unit, by `systemctl`."""

    def __init__(self, unit: str = UNIT, say: Callable[[str], None] = lambda _: None) -> None:
        self._unit, self._say = unit, say

    def state(self) -> State:
        """As it is now. Raises BoardError where systemd does not answer."""
        text = self._systemctl("show", "--property", ",".join(_PROPERTIES), self._unit)
        found = dict(line.partition("=")[::2] for line in text.splitlines())
        return State(*(found.get(name, "") for name in _PROPERTIES))

    def start_again(self) -> str | None:
        """Load the units again, end the run there is and start one; None when it became ready, else why not."""
        self.start_soon(wait=True)
        state = self.state()
        return None if state.active == "active" else f"the service did not become ready: {self._end_of(state)}"

    def start_soon(self, wait: bool = False) -> None:
        """Load the units again and have the service started anew, also when it had failed too often."""
        self._systemctl("daemon-reload")
        self._systemctl("reset-failed", self._unit, may_fail=True)
        self._systemctl(*([] if wait else ["--no-block"]), "restart", self._unit, may_fail=wait)

    def watch(self, seconds: float) -> str | None:
        """Watch the run there is for `seconds`; None when its estimates advanced all along and still do, else why it is not well."""
        first = self.state()
        newest, began_s = first.estimates, time.monotonic()
        advanced_s = began_s
        while True:
            time.sleep(_POLL_S)
            state, now_s = self.state(), time.monotonic()
            if state.run != first.run or state.active != "active":
                return f"the service ended by itself after {now_s - began_s:.0f} s: {self._end_of(first)}"
            if state.estimates != newest:
                newest, advanced_s = state.estimates, now_s
                if now_s - began_s >= seconds:
                    self._say(f"healthy: {state.status}")
                    return None
            elif now_s - advanced_s > STALLED_S:
                return f"no new estimate for {STALLED_S:.0f} s, {newest or 0} before; {state.status or 'its status says nothing'}"

    def _end_of(self, run: State) -> str:
        """How a run ended, once it has: systemd's word for it, or the last line that the run wrote for people."""
        end_s = time.monotonic() + _END_S
        while (state := self.state()).active == "deactivating" and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        if state.ended:
            return state.ended
        said = run_tool("journalctl", "--output=cat", "--lines=50", f"_SYSTEMD_INVOCATION_ID={run.run}")
        lines = [] if said is None or said.code != 0 else [line.strip() for line in said.text.splitlines()]
        last = next((line for line in reversed(lines) if line and not line.startswith(("{", "-- "))), "")
        return f"exit code {state.exit_status}" + (f" ({last[:_LINE]})" if last else "")

    def _systemctl(self, *words: str, may_fail: bool = False) -> str:
        try:
            done = subprocess.run(["systemctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BoardError(f"systemctl cannot be run ({error.strerror}); this is for a board with systemd") from None
        if done.returncode != 0 and not may_fail:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise BoardError(f"systemctl {' '.join(words)} failed: {said}; run it by hand as root")
        return done.stdout
