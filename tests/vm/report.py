"""The one log of a run: what was done, what was seen, PASS or FAIL of each step, seconds since the start before every line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class Failure(Exception):
    """Something is not as it must be; the message says what was seen."""


class Report:
    """Writes each line to `path` and to stdout at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._start_s = time.monotonic()
        self._results: list[tuple[str, bool, float]] = []

    def line(self, text: str) -> None:
        """One line, with the time before it."""
        stamped = f"{time.monotonic() - self._start_s:6.1f} s  {text}"
        print(stamped, flush=True)
        print(stamped, file=self._file, flush=True)

    def did(self, text: str) -> None:
        """What was done to the machine."""
        self.line(f"   did   {text}")

    def saw(self, text: str) -> None:
        """What was seen of it, a line for each line of `text`."""
        for part in text.strip().splitlines() or ["nothing"]:
            self.line(f"   saw   {part}")

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step. A `Failure` in it is written down and goes on to the caller, as does anything else."""
        self.line(f"== {name}")
        begin_s = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._end(name, False, begin_s, f"{error}" if isinstance(error, Failure) else f"{type(error).__name__}: {error}")
            raise
        self._end(name, True, begin_s, "")

    def close(self) -> bool:
        """The table of all steps; whether there were some and all passed."""
        passed = bool(self._results) and all(ok for _, ok, _ in self._results)
        self.line("== summary")
        for name, ok, seconds in self._results:
            self.line(f"{'PASS' if ok else 'FAIL'}  {seconds:6.1f} s  {name}")
        self.line(f"{'PASS' if passed else 'FAIL'}: {len(self._results)} steps")
        self._file.close()
        return passed

    def _end(self, name: str, ok: bool, begin_s: float, why: str) -> None:
        seconds = time.monotonic() - begin_s
        self._results.append((name, ok, seconds))
        self.line(f"{'PASS' if ok else 'FAIL'}  {name}, {seconds:.1f} s{': ' + why if why else ''}")


def wait_until(what: str, seen: Callable[[], object], seconds: float, every_s: float = 1.0) -> object:
    """The first true answer of `seen`. Raises Failure when there is none after `seconds`."""
    end_s = time.monotonic() + seconds
    while not (answer := seen()):
        if time.monotonic() > end_s:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(every_s)
    return answer
