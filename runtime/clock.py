"""The time of a live loop: nanoseconds of CLOCK_MONOTONIC, which setting the machine's clock does not change; or a simulated clock.

Whatever reads the time or waits in a live run is given a `Clock`, so that an hour of stream can be run in a minute of tests.
"""

from __future__ import annotations

import time
from typing import Protocol

from .ticks import NS_PER_S


class Clock(Protocol):
    """Where the time comes from."""

    def now_ns(self) -> int:
        """Nanoseconds since some moment; never goes back."""

    def asleep_ns(self) -> int:
        """How long the machine was suspended so far; `now_ns` stands still then."""

    def sleep(self, seconds: float) -> None:
        """Come back `seconds` later."""


class MonotonicClock:
    """This machine's. For any thread."""

    now_ns = staticmethod(time.monotonic_ns)
    """CLOCK_MONOTONIC, which stands still while the machine is suspended."""

    def asleep_ns(self) -> int:
        """What CLOCK_BOOTTIME, which goes on meanwhile, is ahead by, to some microseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait; a negative time is no time."""
        if seconds > 0:
            time.sleep(seconds)


class SimulatedClock:
    """Time that passes when somebody sleeps, at once. For one thread."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._asleep_ns = 0

    def now_ns(self) -> int:
        """Where the sleeps have led."""
        return self._now_ns

    def asleep_ns(self) -> int:
        """The sum of the suspensions."""
        return self._asleep_ns

    def suspend(self, seconds: float) -> None:
        """As if the machine had been suspended: the time does not move on."""
        self._asleep_ns += round(seconds * NS_PER_S)

    def sleep(self, seconds: float) -> None:
        """Move the time on; a negative time is no time."""
        self._now_ns += max(0, round(seconds * NS_PER_S))

    def sleep_until(self, t_ns: int) -> None:
        """Move the time on to `t_ns`; nothing when that is past."""
        self._now_ns = max(self._now_ns, t_ns)
