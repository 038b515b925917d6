"""What a long run says on stderr, said by a thread: whoever does not read it, or goes away, neither stops nor ends the run."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading

WAITING = 64
"""Lines that wait for somebody to read those before; more are not said."""


class Voice:
    """`with Voice() as say: say("line")`. It keeps its own copy of stderr, which nobody else can close or point elsewhere."""

    def __init__(self) -> None:
        try:
            self._handle = os.dup(sys.stderr.fileno())
        except OSError:  # somebody's object stands in for it
            self._handle = os.dup(2)
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        self._thread.start()

    def __call__(self, text: str) -> None:
        """Say one line, soon; never waits, never fails."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(text)

    def __enter__(self) -> Voice:
        return self

    def __exit__(self, *_: object) -> None:
        """Say what waits, for a second at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=1.0)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            os.close(self._handle)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            data = memoryview(f"{text}\n".encode(errors="backslashreplace"))
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._handle, data) :]
