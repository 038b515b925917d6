"""Specs of network sinks: strict, one line when wrong, and no secret in any text."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime.errors import SageError, SinkError, UsageError
from sage_edge.runtime.sinks import open_sink, open_sinks
from sage_edge.runtime.sinks.address import Address


@pytest.mark.parametrize(
    ("spec", "expected", "shown"),
    [
        ("ws://127.0.0.1:8765", Address("ws", "127.0.0.1", 8765), "ws://127.0.0.1:8765"),
        ("ws://[::1]:8765/", Address("ws", "::1", 8765), "ws://[::1]:8765"),
        ("ws://0.0.0.0:8765?token=a%2Fb+c", Address("ws", "0.0.0.0", 8765, token="a/b+c"), "ws://0.0.0.0:8765"),
        ("prometheus://localhost:9100", Address("prometheus", "localhost", 9100), "prometheus://localhost:9100"),
        ("mqtt://broker/room/1/", Address("mqtt", "broker", 1883, "room/1"), "mqtt://broker:1883/room/1"),
        ("mqtts://broker/room", Address("mqtts", "broker", 8883, "room"), "mqtts://broker:8883/room"),
        ("mqtt://broker/room?qos=1", Address("mqtt", "broker", 1883, "room", qos=1), "mqtt://broker:1883/room"),
        (
            "mqtt://me:p%40ss:word@broker:1884/a%20b",
            Address("mqtt", "broker", 1884, "a b", "me", "p@ss:word"),
            "mqtt://broker:1884/a b",
        ),
    ],
)
def test_forms(spec: str, expected: Address, shown: str) -> None:
    address = Address.parse(spec)
    assert (address, str(address)) == (expected, shown)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ws:", "names no target; write ws://HOST:PORT"),
        ("ws:8080", "is no address; write ws://HOST:PORT"),
        ("ws:///x", "is no address"),
        ("ws://:8080", "is no address"),
        ("ws://127.0.0.1", "names no port; write ws://HOST:PORT[?token=T]"),
        ("ws://127.0.0.1:99999", "the port from 1 to 65535"),
        ("ws://127.0.0.1:http", "the port from 1 to 65535"),
        ("ws://[::1:80", "is no address"),
        ("ws://127.0.0.1:80/path", "has more than a host and a port"),
        ("ws://me@127.0.0.1:80", "has more than a host and a port"),
        ("ws://127.0.0.1:80?tokn=x", "unknown key 'tokn'; did you mean token?"),
        ("ws://127.0.0.1:80?depth=x", "unknown key 'depth'; write ws://"),
        ("ws://127.0.0.1:80?token=", "needs one token"),
        ("ws://127.0.0.1:80?token=a&token=b", "needs one token"),
        ("prometheus://127.0.0.1", "names no port; write prometheus://"),
        ("mqtt://broker", "names no topic"),
        ("mqtt://broker/", "names no topic"),
        ("mqtt://broker/a/+/b", "without + and #"),
        ("mqtt://broker/a#b", "is no address"),
        ("mqtt://broker/$SYS/a", "names no topic"),
        ("mqtt://broker/a%0Ab", "names no topic"),
        ("mqtt://broker/a\nb", "is no address"),
        ("ws://127.0.0.1:80\n80", "is no address"),
        ("mqtt://broker/a?qos=2", "takes nothing behind its topic but ?qos=0 or 1"),
        ("mqtt://broker/a?qs=1", "takes nothing behind its topic"),
        ("mqtt://broker/a?qos=", "takes nothing behind its topic"),
        ("mqt://broker/a", "did you mean mqtt://"),
        ("wss://127.0.0.1:80", "did you mean ws://"),
        ("promethius://127.0.0.1:80", "did you mean prometheus://"),
        ("ws://0.0.0.0:8765", "needs a token"),
        ("prometheus://0.0.0.0:8765", "needs a token"),
    ],
)
def test_wrong_use(spec: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "spec",
    [
        f"mqtt://me:{SECRET}@/x",
        f"mqtt://me:{SECRET}@broker",
        f"mqtt://me:{SECRET}@broker:x/y",
        f"mqtt://{SECRET}@broker/a?b",
        f"mqtt://me:a@{SECRET}@broker",
        f"mqttt://me:{SECRET}@broker/x",
        f"ws://h?token={SECRET}",
        f"ws://h:1/x?token={SECRET}",
        f"ws://me:{SECRET}@h:1",
        f"wx://h:1?token={SECRET}",
        f"jsonl://h:1?token={SECRET}",
        f"ws://[h:1?token={SECRET}",
        f"ws://h:1?token={SECRET}&x",
        f"ws://h:1?token=a#{SECRET}",
        f"ws://h:1?token=a {SECRET}\n",
        f"mqtt://me:a\n{SECRET}@broker/x",
        f"mqtt://me:a/{SECRET}@broker/x#",
        f"mqtt://m/e:{SECRET}@broker/x",
        f"mqtts://me/{SECRET}@",
    ],
)
def test_no_error_tells_a_secret(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sinks([spec])
    assert SECRET not in str(caught.value)


def test_no_address_shows_its_secrets() -> None:
    for spec in (f"mqtt://me:{SECRET}@broker/x", f"ws://h:1?token={SECRET}"):
        address = Address.parse(spec)
        assert SECRET not in f"{address} {address!r}"
    assert SECRET not in open_sink(f"mqtt://me:{SECRET}@broker/x").spec


@given(st.sampled_from(["ws", "mqtt", "mqtts", "prometheus"]), st.text(max_size=40))
def test_any_text_is_an_address_or_one_line(scheme: str, rest: str) -> None:
    with contextlib.suppress(UsageError):
        address = Address.parse(f"{scheme}:{rest}")
        assert address.host
        assert len(str(address).splitlines()) == 1
        assert 0 <= address.port <= 65_535


def test_one_port_or_topic_for_two_sinks() -> None:
    with pytest.raises(UsageError, match="two outputs go to"):
        open_sinks(["ws://127.0.0.1:8765", "prometheus://127.0.0.1:8765"])
    with pytest.raises(UsageError, match="two outputs go to"):
        open_sinks(["mqtt://a:b@broker/x", "mqtt://broker:1883/x/?qos=1"])
    sinks = open_sinks(["ws://127.0.0.1:0", "prometheus://127.0.0.1:0", "mqtt://broker/x", "mqtt://broker/y"])
    assert [sink.spec for sink in sinks] == ["ws://127.0.0.1:0", "prometheus://127.0.0.1:0", "mqtt://broker:1883/x", "mqtt://broker:1883/y"]


@pytest.mark.parametrize("scheme", ["ws", "prometheus"])
def test_an_address_that_cannot_be_had_is_refused_before_the_run(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(SinkError, match="Address already in use; choose another"):
            open_sink(f"{scheme}://127.0.0.1:{port}")
    open_sink(f"{scheme}://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", port)):
        pass  # checking left nothing behind
    with pytest.raises(SageError) as caught:
        open_sink(f"{scheme}://no-such-host.invalid:8765?token=abc")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("ws://127.0.0.1:0", "websockets", "serve"),
        ("mqtt://broker/x", "paho", "mqtt"),
        ("prometheus://127.0.0.1:0", "prometheus_client", "prometheus"),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, spec: str, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as caught:
        open_sink(spec)
    assert f"pip install 'sage-edge[{extra}]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_that_is_not_in_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_EDGE_TOKEN", "of the environment")
    monkeypatch.setenv("SAGE_EDGE_MQTT_PASSWORD", "hidden")
    assert Address.parse("ws://0.0.0.0:8765").token == "of the environment"
    assert Address.parse("ws://0.0.0.0:8765?token=given").token == "given"
    assert Address.parse("mqtt://me@broker/x").password == "hidden"
    assert Address.parse("mqtt://me:given@broker/x").password == "given"
    assert Address.parse("mqtt://broker/x").password is None, "nobody to whom it could belong"
