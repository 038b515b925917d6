"""Network targets of sinks: `Address.parse("mqtt://user:pass@broker/room/1")`.

A secret is never part of `str(address)`, nor of an error's text. One that is not in the address comes from the environment, which other users of
the machine cannot read: $SAGE_EDGE_TOKEN of what serves, $SAGE_EDGE_MQTT_PASSWORD of a user without a password.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ..errors import SinkError, UsageError
from ..secrets import without_secrets

FORMS = {
    "ws": "ws://HOST:PORT[?token=T]",
    "prometheus": "prometheus://HOST:PORT[?token=T]",
    "mqtt": "mqtt://[USER:PASS@]HOST[:PORT]/TOPIC[?qos=1]",
    "mqtts": "mqtts://[USER:PASS@]HOST[:PORT]/TOPIC[?qos=1]",
}
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_TOPIC_BYTES = 65_000
"""MQTT allows 65535 in UTF-8, the last part included."""


@dataclass(frozen=True)
class Address:
    """One parsed target. `topic` and `qos` are MQTT's, "" and 0 for what serves; `str` gives it back without its secrets."""

    scheme: str
    host: str
    port: int
    topic: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    qos: int = 0

    @classmethod
    def parse(cls, spec: str) -> Address:
        """The target that `spec` names, its scheme one of FORMS. Raises UsageError for anything that is not its scheme's form."""
        scheme = spec.partition(":")[0]
        form, shown = FORMS[scheme], without_secrets(spec)
        try:
            parts = urlsplit(spec)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError(f"sink {shown!r} is no address; write {form}, the port from 1 to 65535") from None
        if not spec.startswith(f"{scheme}://") or not host or " " in host or "#" in spec or not spec.isprintable():
            raise UsageError(f"sink {shown!r} is no address; write {form}")
        if scheme in MQTT_PORTS:
            if parts.query not in ("", "qos=0", "qos=1"):
                raise UsageError(f"sink {shown!r} takes nothing behind its topic but ?qos=0 or 1; write {form}")
            if "@" in parts.path:
                raise UsageError(f"sink {shown!r}: / in a user or password is %2F, ? is %3F, and @ in a topic %40; write {form}")
            user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
            if user is not None and password is None:
                password = os.environ.get("SAGE_EDGE_MQTT_PASSWORD") or None
            return cls(
                scheme,
                host,
                MQTT_PORTS[scheme] if port is None else port,
                _topic(shown, unquote(parts.path)),
                user,
                password,
                qos=int(parts.query == "qos=1"),
            )
        if port is None:
            raise UsageError(f"sink {shown!r} names no port; write {form}")
        if parts.path not in ("", "/") or parts.username is not None:
            raise UsageError(f"sink {shown!r} has more than a host and a port; write {form}")
        return cls(scheme, host, port, token=_token(shown, parts.query, form))

    def __str__(self) -> str:
        return f"{self.scheme}://{_joined(self.host, self.port)}{'/' if self.topic else ''}{self.topic}"


def token_of_environment() -> str | None:
    """$SAGE_EDGE_TOKEN, None where it is empty or not set."""
    return os.environ.get("SAGE_EDGE_TOKEN") or None


def check_free(address: Address) -> None:
    """Raises SinkError when nothing can listen there now: taken, another machine's, a port that needs rights. Nothing listens after."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, _, _, place = min(found, key=lambda info: info[0] != socket.AF_INET)
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as error:
        raise SinkError(f"cannot serve at {address}: {error.strerror or error}; choose another host or port") from None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _topic(shown: str, path: str) -> str:
    topic = path.strip("/")
    if (
        not topic
        or "//" in topic
        or re.search(r"[+#]", topic)
        or not topic.isprintable()
        or topic.startswith("$")
        or len(topic.encode()) > _TOPIC_BYTES
    ):
        raise UsageError(f"sink {shown!r} names no topic that can be published; write mqtt://HOST/TOPIC, without + and #")
    return topic


def _token(shown: str, query: str, form: str) -> str | None:
    if not query:
        return token_of_environment()
    key, _, value = query.partition("=")
    if key != "token":
        near = difflib.get_close_matches(key, ["token"], n=1)
        raise UsageError(f"sink {shown!r} has an unknown key {key!r}; {'did you mean token?' if near else f'write {form}'}")
    if not value or "&" in value:
        raise UsageError(f"sink {shown!r} needs one token behind token=; write {form}")
    return unquote(value)
