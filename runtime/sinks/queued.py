"""A sink behind a thread and a bounded queue: what it cannot take in time is given up, oldest first, counted and said; the run goes on.

sink = Queued(open_sink("mqtt://broker/room"), now_ns=clock.now_ns)
sink.start(hello); sink.write(estimate)              # as any sink, but these neither wait nor fail
for notice in sink.notices(): ...                    # sink_failed, sink_recovered
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import SageError, SinkError
from ..estimate import Estimate
from ..notice import Notice, Status
from . import Sink, SinkClosed

DEPTH = 64
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 10.0
FLUSH_S = 3.0


@dataclass(frozen=True)
class _Line:
    """One call that the sink is owed: `method` is "write", "notice" or "status"."""

    method: str
    value: Any


class Queued:
    """`sink`, which is only ever called from one thread of its own. At most `depth` lines wait; notices are the last to be given up.

    A call of `sink` that raises SinkError is made again after `first_retry_s`, doubling to `last_retry_s`, and its `start` goes before it, so that
    a sink that lost its connection can make a new one. `now_ns` is the clock of the notices. Methods may be called from any thread. `written` and
    `dropped` count lines; what `start` says is none.
    """

    def __init__(
        self,
        sink: Sink,
        depth: int = DEPTH,
        now_ns: Callable[[], int] = time.monotonic_ns,
        *,
        first_retry_s: float = FIRST_RETRY_S,
        last_retry_s: float = LAST_RETRY_S,
    ) -> None:
        self.spec = sink.spec
        self.state = "opening"
        """"opening", "live", "slow" (lines were given up and some still wait), "failed" (tried again), "closed", which is the last."""
        self.written = 0
        self._given_up = 0
        self._sink, self._depth, self._now_ns = sink, depth, now_ns
        self._takes_status: bool = getattr(sink, "takes_status", True)
        self._first_retry_s, self._last_retry_s = first_retry_s, last_retry_s
        self._hello: dict[str, Any] = {}
        self._lines: deque[_Line] = deque()
        self._notices: list[Notice] = []
        self._dropped_before = 0
        """`dropped` when the trouble began that the last sink_failed told of."""
        self._changed = threading.Condition()
        self._at_work = False
        self._closing = False
        self._gone: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"sink {self.spec}", daemon=True)

    @property
    def note(self) -> str | None:
        """What a person should be told about where this sink listens; None when nothing."""
        return getattr(self._sink, "note", None)

    @property
    def dropped(self) -> int:
        """Lines given up, those included that one slow reader of a sink with many did not get."""
        return self._given_up + int(getattr(self._sink, "dropped", 0))

    @property
    def queued(self) -> int:
        """Lines that wait, the one that is being written included."""
        return len(self._lines) + self._at_work

    def counts(self) -> dict[str, Any]:
        """state, written, dropped, queued: its entry in a status line."""
        with self._changed:
            return {"state": self.state, "written": self.written, "dropped": self.dropped, "queued": self.queued}

    def notices(self) -> list[Notice]:
        """What has changed since the last call."""
        if not self._notices:
            return []
        with self._changed:
            found, self._notices = self._notices, []
        return found

    def start(self, hello: dict[str, Any]) -> None:
        """Begin; `hello` is what the sink will start with, each time."""
        self._hello = hello
        self._thread.start()

    def write(self, estimate: Estimate) -> None:
        """Queue one estimate. Raises SinkClosed when the sink's reader has gone, as the next two do."""
        self._put(_Line("write", estimate))

    def notice(self, notice: Notice) -> None:
        """Queue one notice."""
        self._put(_Line("notice", notice))

    def status(self, status: Status) -> None:
        """Queue one status, where the sink takes any."""
        if self._takes_status or self._gone is not None:
            self._put(_Line("status", status))

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is queued; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.queued, timeout_s)

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Write what waits and close the sink, within `flush_s`; what is left then is given up. A sink in trouble gets one more try."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is None:
            self._sink.close()
        else:
            self._thread.join(flush_s)
        with self._changed:
            self._give_up_all()
            self.state = "closed"

    def _put(self, line: _Line) -> None:
        with self._changed:
            if self._gone is not None:
                raise SinkClosed(self._gone)
            if self._closing:
                return
            if len(self._lines) >= self._depth:
                if self.state in ("opening", "live"):
                    self.state, self._dropped_before = "slow", self.dropped
                    self._say("sink_failed", f"{self.spec} is slower than the stream: {len(self._lines)} lines wait; the oldest are given up")
                self._drop_oldest()
            self._lines.append(line)
            self._changed.notify_all()

    def _drop_oldest(self) -> None:
        for index, line in enumerate(self._lines):
            if line.method != "notice":
                del self._lines[index]
                break
        else:
            self._lines.popleft()
        self._given_up += 1

    def _run(self) -> None:
        retry_s, started, last = self._first_retry_s, False, False
        while True:
            line = None
            try:
                if not started:
                    self._sink.start(self._hello)
                    started = True
                line = self._next()
                if line is None:
                    break
                getattr(self._sink, line.method)(line.value)
                self._wrote()
                retry_s = self._first_retry_s
            except SinkClosed as gone:
                self._left(line, str(gone))
                break
            except Exception as error:  # whatever a sink runs into, the stream goes on
                started = False
                self._failed(line, error)
                if last or self.state == "closed":
                    break
                last = self._wait(retry_s)
                retry_s = min(2 * retry_s, self._last_retry_s)
        with contextlib.suppress(Exception):
            self._sink.close()

    def _next(self) -> _Line | None:
        """The oldest line, once there is one; None when there will be no more."""
        with self._changed:
            if not self._lines:
                self._works()
            self._changed.wait_for(lambda: self._lines or self._closing)
            if not self._lines:
                return None
            self._at_work = True
            return self._lines.popleft()

    def _wrote(self) -> None:
        with self._changed:
            if self.state == "closed":
                return  # too late: it was counted as given up
            self._at_work = False
            self.written += 1
            if self.state != "slow" or not self._lines:
                self._works()
            self._changed.notify_all()

    def _works(self) -> None:
        if self.state == "closed":
            return
        if self.state in ("failed", "slow"):
            self._say("sink_recovered", f"{self.spec} takes lines again; {self.dropped - self._dropped_before} were given up")
        self.state = "live"

    def _failed(self, line: _Line | None, error: Exception) -> None:
        with self._changed:
            if self.state == "closed":
                return
            if self.state != "failed":
                if self.state != "slow":
                    self._dropped_before = self.dropped
                self.state = "failed"
                told = str(error) if isinstance(error, SageError) else f"{self.spec}: {type(error).__name__}: {error}"
                self._say("sink_failed", f"{told}; it is tried again")
            if line is not None:
                self._at_work = False
                if not isinstance(error, SinkError | OSError):
                    self._given_up += 1  # it would fail again
                else:
                    self._lines.appendleft(line)
                    if len(self._lines) > self._depth:
                        self._drop_oldest()
            self._changed.notify_all()

    def _left(self, line: _Line | None, why: str) -> None:
        with self._changed:
            if self.state == "closed":
                return
            self._given_up += line is not None
            self._at_work = False
            self._gone, self.state = why, "closed"
            self._give_up_all()

    def _wait(self, seconds: float) -> bool:
        """Until it is time for the next try; True when that is the last one."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)

    def _give_up_all(self) -> None:
        self._given_up += self.queued
        self._lines.clear()
        self._at_work = False
        self._changed.notify_all()

    def _say(self, what: str, detail: str) -> None:
        self._notices.append(Notice(self._now_ns(), what, detail))
