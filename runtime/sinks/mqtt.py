"""Estimates to an MQTT broker, version 3.1.1. Below the topic of `mqtt[s]://[USER:PASS@]HOST[:PORT]/TOPIC[?qos=1]`:

| topic | payload | retained |
| --- | --- | --- |
| TOPIC/estimate | one estimate as in JSONL | |
| TOPIC/notice | one notice | |
| TOPIC/hello | the hello, again after each reconnection | yes |
| TOPIC/status | the newest status | yes |
| TOPIC/state | "online", or "offline" once the run has ended or was lost (last will) | yes |

QoS 0, the default, promises nothing: what was on its way when a connection broke is lost without a word. With ?qos=1 a line counts as written once
the broker has confirmed it, and is sent again after a break, maybe twice; each waits for the one before, so the way to the broker and back must be
shorter than a line lasts. Only mqtts:// is encrypted; the broker's certificate must be one that this machine trusts.
"""

from __future__ import annotations

import importlib.util
import json
import ssl
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import SinkError, UsageError
from ..estimate import Estimate
from ..notice import Notice, Status
from .address import Address

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CONNECT_S = 5.0
SEND_S = 5.0
LOOK_S = 0.2
KEEPALIVE_S = 15


class MqttSink:
    """Publishes to the broker and topic of `address`. See `sinks.Sink`; `start` connects, again after a loss. One thread at a time.

    Raises UsageError where paho-mqtt is missing, SinkError from `start` and the rest when there is no broker, it refuses, or it takes nothing.
    """

    def __init__(self, address: Address) -> None:
        if importlib.util.find_spec("paho") is None:
            raise UsageError(f"{address.scheme}:// needs the paho-mqtt package; pip install 'sage-edge[mqtt]'")
        self.spec = str(address)
        self._address = address
        self._client: Client | None = None

    def start(self, hello: dict[str, Any]) -> None:
        """Connect where there is no connection, and publish the hello."""
        if self._client is None or not self._client.is_connected():
            self._leave()
            self._client = self._connected()
        self._publish("hello", _json(hello), retain=True)
        self._publish("state", "online", retain=True)

    def write(self, estimate: Estimate) -> None:
        """Publish one estimate."""
        self._publish("estimate", estimate.to_json())

    def notice(self, notice: Notice) -> None:
        """Publish one notice."""
        self._publish("notice", notice.to_json())

    def status(self, status: Status) -> None:
        """Publish one status, which the broker keeps."""
        self._publish("status", _json(status), retain=True)

    def close(self) -> None:
        """Say that the run is over, and disconnect."""
        if self._client is not None and self._client.is_connected():
            self._publish("state", "offline", retain=True)
        self._leave()

    def _connected(self) -> Client:
        from paho.mqtt.enums import CallbackAPIVersion

        address, answered, answers = self._address, threading.Event(), list[Any]()

        def on_connect(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            answers.append(reason)
            answered.set()

        client = _client_class()(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_S
        client.on_connect = on_connect
        client.on_disconnect = lambda *_: answered.set()
        client.will_set(f"{address.topic}/state", "offline", address.qos, retain=True)
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.scheme == "mqtts":
            client.tls_set()
        try:
            client.connect(address.host, address.port, KEEPALIVE_S)
        except ssl.SSLError as error:
            raise SinkError(f"{self.spec}: {error.strerror or error}; the certificate must be trusted here, SSL_CERT_FILE=FILE names more") from None
        except (OSError, UnicodeError) as error:
            raise SinkError(f"{self.spec}: {getattr(error, 'strerror', None) or error}; is the broker running?") from None
        client.loop_start()
        answered.wait(CONNECT_S)
        if answers and not answers[0].is_failure:
            return client
        client.disconnect()
        client.loop_stop()
        if answers:
            raise SinkError(f"{self.spec}: the broker refused: {answers[0]}; user and password go before the host, USER:PASS@HOST")
        raise SinkError(f"{self.spec}: no answer in {CONNECT_S:.0f} s; is this an MQTT broker's port?")

    def _publish(self, part: str, text: str, retain: bool = False) -> None:
        if self._client is None:
            raise SinkError(f"{self.spec} is not connected")
        # Waiting until it is with the kernel, or the broker, keeps at most one message in paho's own queue, which has no bound.
        end_s = time.monotonic() + SEND_S
        try:
            sent = self._client.publish(f"{self._address.topic}/{part}", text, self._address.qos, retain)
            while not sent.is_published() and self._client.is_connected() and (left_s := end_s - time.monotonic()) > 0:
                sent.wait_for_publish(min(LOOK_S, left_s))
            published = sent.is_published()
        except (RuntimeError, ValueError):
            raise SinkError(f"{self.spec}: the connection to the broker is lost") from None
        if not published and not self._client.is_connected():
            raise SinkError(f"{self.spec}: the connection to the broker is lost")
        if not published:
            raise SinkError(f"{self.spec}: the broker took nothing in {SEND_S:.0f} s")

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()


@cache
def _client_class() -> type[Client]:
    from paho.mqtt.client import Client

    class Honest(Client):
        """Is not connected, either, once what the broker sent has closed the connection or ended the thread: paho forgets to say so."""

        over = False

        def loop_forever(self, *args: Any, **options: Any) -> Any:
            try:
                return super().loop_forever(*args, **options)
            finally:
                self.over = True

        def is_connected(self) -> bool:
            return not self.over and self.socket() is not None and super().is_connected()

    return Honest


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
