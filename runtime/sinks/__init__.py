"""Where estimates go: `open_sink("jsonl:-")`, `open_sink("csv:out.csv")`. One hello, then one estimate per hop, each written and flushed at once.

A sink follows a live stream, so its file grows as it runs and is not renamed into place at the end; but it only ever holds whole lines, whenever
the run stops and even when the disk fills up. Nothing is created before `start`.
"""

from __future__ import annotations

import difflib
import os
from typing import Any, Protocol

from ..errors import UsageError
from ..estimate import Estimate
from ..notice import Notice, Status

SCHEMES = {"jsonl": "jsonl:- or jsonl:FILE", "csv": "csv:FILE"}


class SinkClosed(Exception):
    """Whoever read this sink has gone (`| head`): the run is over, and that is no error."""


class Sink(Protocol):
    """What the live loop needs of a sink. `start` comes first, once; then `write` for each estimate, `notice` for what changes, `status` once a
    second in a live run; `close` may come at any time, also twice.

    All raise SinkError for what cannot be written, SinkClosed when the reader has gone.
    """

    spec: str

    def start(self, hello: dict[str, Any]) -> None: ...

    def write(self, estimate: Estimate) -> None: ...

    def notice(self, notice: Notice) -> None: ...

    def status(self, status: Status) -> None: ...

    def close(self) -> None: ...


def open_sink(spec: str) -> Sink:
    """The sink that `spec` (SCHEME:TARGET) names; target "-" is stdout. Raises UsageError for an unknown scheme, SinkError for an unusable path."""
    scheme, colon, target = spec.partition(":")
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {SCHEMES[near[0]]}?" if near else f"one of {', '.join(SCHEMES.values())}"
        raise UsageError(f"unknown sink {spec!r}; {hint}")
    if not colon or not target:
        raise UsageError(f"sink {spec!r} names no target; write {SCHEMES[scheme]}")
    if scheme == "jsonl":
        from .jsonl import JsonlSink

        return JsonlSink(target)
    if target == "-":
        raise UsageError("csv goes to a file; write csv:FILE, or jsonl:- for stdout")
    from .csv import CsvSink

    return CsvSink(target)


def open_sinks(specs: list[str]) -> list[Sink]:
    """All of them, checked before any is started. Raises UsageError when two would write to the same place."""
    seen: set[str] = set()
    for spec in specs:
        _, _, target = spec.partition(":")
        place = target if target == "-" else os.path.realpath(target)
        if place in seen:
            raise UsageError(f"two outputs go to {target!r}; give each its own")
        seen.add(place)
    return [open_sink(spec) for spec in specs]
