"""Where estimates go: `open_sink("jsonl:-")`, `open_sink("mqtt://broker/room")`. One hello, then one estimate per hop, each at once.

A sink follows a live stream, so its file grows as it runs and is not renamed into place at the end; but it only ever holds whole lines, whenever
the run stops and even when the disk fills up. Nothing is created, connected or listened on before `start`. A live run puts each sink behind
`queued.Queued`, which neither waits nor fails.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..errors import UsageError
from ..estimate import Estimate
from ..notice import Notice, Status
from ..secrets import without_secrets
from .address import FORMS, MQTT_PORTS, Address

SCHEMES = {"jsonl": "jsonl:- or jsonl:FILE[?append=1]", "csv": "csv:FILE[?append=1]", **FORMS}


class SinkClosed(Exception):
    """Whoever read this sink has gone (`| head`): the run is over, and that is no error."""


class Sink(Protocol):
    """What the live loop needs of a sink. `start` comes first, and again after a failure; then `write` for each estimate, `notice` for what
    changes, `status` once a second in a live run; `close` may come at any time, also twice. One that does nothing with a status has an attribute
    `takes_status`, False, so that no queue is woken for it.

    All raise SinkError for what cannot be written, SinkClosed when the reader has gone.
    """

    spec: str

    def start(self, hello: dict[str, Any]) -> None: ...

    def write(self, estimate: Estimate) -> None: ...

    def notice(self, notice: Notice) -> None: ...

    def status(self, status: Status) -> None: ...

    def close(self) -> None: ...


def open_sink(spec: str, now_ns: Callable[[], int] = time.monotonic_ns) -> Sink:
    """The sink that `spec` (SCHEME:TARGET) names; target "-" is stdout. `now_ns` is the clock of the stamps.

    Raises UsageError for an unknown scheme, an address without its form, one that others reach without a token, and a package that is missing;
    SinkError for a path or an address that cannot be had. No message holds a password or a token.
    """
    scheme, colon, target = spec.partition(":")
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {SCHEMES[near[0]]}?" if near else f"one of {', '.join(SCHEMES.values())}"
        raise UsageError(f"unknown sink {without_secrets(spec)!r}; {hint}")
    if not colon or not target or "\0" in target:
        raise UsageError(f"sink {spec!r} names no target; write {SCHEMES[scheme]}")
    if scheme == "jsonl":
        from .jsonl import JsonlSink

        return JsonlSink(target)
    if scheme == "csv":
        if target == "-":
            raise UsageError("csv goes to a file; write csv:FILE, or jsonl:- for stdout")
        from .csv import CsvSink

        return CsvSink(target)
    address = Address.parse(spec)
    if scheme in MQTT_PORTS:
        from .mqtt import MqttSink

        return MqttSink(address)
    if scheme == "ws":
        from .websocket import WebSocketSink

        return WebSocketSink(address)
    from .prometheus import PrometheusSink

    return PrometheusSink(address, now_ns)


def open_sinks(specs: Sequence[str], now_ns: Callable[[], int] = time.monotonic_ns) -> list[Sink]:
    """All of them, checked before any is started. Raises what `open_sink` does, and UsageError when two would go to the same place."""
    seen: set[str] = set()
    for spec in specs:
        place = _place(spec)
        if place in seen:
            raise UsageError(f"two outputs go to {place if '://' in place else spec.partition(':')[2]!r}; give each its own")
        seen.add(place)
    return [open_sink(spec, now_ns) for spec in specs]


def _place(spec: str) -> str:
    """What no two sinks may share: "-", a real path, a port that is listened on, a topic."""
    scheme, _, target = spec.partition(":")
    if scheme in FORMS and target:
        address = Address.parse(spec)
        if scheme in MQTT_PORTS:
            return str(address)
        return f"listen://{address.host}:{address.port}" if address.port else spec
    from .lines import parse_file

    return target if target == "-" or "\0" in target or scheme not in SCHEMES else os.path.realpath(parse_file(target)[0])
