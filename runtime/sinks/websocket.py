"""Estimates to whoever connects: every message is one line of JSON, the hello and the last status first (keys: `runtime/estimate.py`)."""

from __future__ import annotations

import json
from typing import Any

from ..estimate import Estimate
from ..notice import Notice, Status
from .address import Address, check_free
from .broadcast import Broadcast


class WebSocketSink:
    """Serves at `address`; a reader that is slow loses its oldest messages and holds nobody up. See `sinks.Sink`."""

    def __init__(self, address: Address) -> None:
        self.spec = str(address)
        self._broadcast = Broadcast(address.host, address.port, token=address.token)
        self.note = self._broadcast.note
        self._serving = False
        check_free(address)

    @property
    def port(self) -> int:
        """Where it listens: the port of the address, or what was free where that is 0."""
        return self._broadcast.port

    @property
    def dropped(self) -> int:
        """Messages that single readers did not get."""
        return self._broadcast.counts().dropped

    def start(self, hello: dict[str, Any]) -> None:
        """Listen. Raises SinkError for an address that cannot be had."""
        if not self._serving:
            self._broadcast.start()
            self._serving = True
        self._broadcast.publish(json.dumps(hello, separators=(",", ":"), allow_nan=False), "hello")

    def write(self, estimate: Estimate) -> None:
        """Send one estimate."""
        self._broadcast.publish(estimate.to_json(), "estimate")

    def notice(self, notice: Notice) -> None:
        """Send one notice."""
        self._broadcast.publish(notice.to_json(), "notice")

    def status(self, status: Status) -> None:
        """Send one status; a reader that is slow gets the newest only."""
        self._broadcast.publish(json.dumps(status, separators=(",", ":"), allow_nan=False), "status")

    def close(self) -> None:
        """Tell the readers and stop listening."""
        self._broadcast.close()
