"""Progress on stderr: one line that redraws itself on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

T = TypeVar("T")


class Progress:
    """`with Progress("train", total) as p: p.step(note="loss 0.41")`; `total` may be None when it is unknown; `shown=False` only counts."""

    def __init__(self, label: str, total: int | None = None, unit: str = "", stream: TextIO | None = None, shown: bool = True) -> None:
        self.label, self.total, self.unit, self.shown, self.done = label, total, unit, shown, 0
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._every_s = 0.1 if self._live else 10.0
        self._start_s = self._shown_s = time.monotonic()
        self._note = ""

    def __enter__(self) -> Progress:
        return self

    def step(self, n: int = 1, note: str | None = None) -> None:
        """Count `n` more; `note` is shown behind the count."""
        self.done += n
        if note is not None:
            self._note = note
        now_s = time.monotonic()
        if now_s - self._shown_s >= self._every_s and self.done != self.total:  # the end is shown at exit
            self._shown_s = now_s
            self._show(now_s)

    def _show(self, now_s: float, last: bool = False) -> None:
        if not self.shown:
            return
        elapsed_s = now_s - self._start_s
        text = f"{self.label} {self.done}" + (f"/{self.total}" if self.total is not None else "") + (f" {self.unit}" if self.unit else "")
        text += f" {elapsed_s:.0f} s"
        if self.total and 0 < self.done < self.total:
            text += f", {elapsed_s / self.done * (self.total - self.done):.0f} s left"
        text += f"  {self._note}" if self._note else ""
        if self._live:
            self._stream.write(f"\r\x1b[2K{text}" + ("\n" if last else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        self._show(time.monotonic(), last=True)


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """Iterate over `items`, showing progress; `total` is taken from `len(items)` where it has one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.step()
