"""The broadcast server: every reader gets what it can take, nobody holds up the rest, and strangers get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.runtime.errors import SinkError, UsageError
from sage_edge.runtime.sinks.broadcast import DEPTH, MAX_CONNECTIONS, Broadcast, parse_address

client = pytest.importorskip("websockets.sync.client", reason="pip install 'sage-edge[serve]'")
exceptions = pytest.importorskip("websockets.exceptions")
http11 = pytest.importorskip("websockets.http11")
datastructures = pytest.importorskip("websockets.datastructures")

PATIENCE_S = 20.0


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.005)


@pytest.fixture
def serve() -> Iterator[Callable[..., Broadcast]]:
    """Makes started servers on free ports, and closes them."""
    made: list[Broadcast] = []

    def start(**options: Any) -> Broadcast:
        made.append(Broadcast("127.0.0.1", 0, **options))
        made[-1].start()
        return made[-1]

    yield start
    for broadcast in made:
        broadcast.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("serve ")], "a server's thread is left"


def connect(broadcast: Broadcast, path: str = "/", **options: Any) -> Any:
    return client.connect(f"ws://127.0.0.1:{broadcast.port}{path}", **options)


def get(broadcast: Broadcast, path: str = "/", **headers: str) -> tuple[int, str, str]:
    """(status, content type, body)"""
    connection = http.client.HTTPConnection("127.0.0.1", broadcast.port, timeout=PATIENCE_S)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers["Content-Type"], body


def test_every_reader_gets_every_message_in_order(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with connect(broadcast) as one, connect(broadcast) as two:
        until(lambda: broadcast.counts().readers == 2, "two readers")
        sent = [f"line {i}" for i in range(DEPTH // 2)]
        for line in sent:
            broadcast.publish(line, "estimate")
        assert [one.recv(PATIENCE_S) for _ in sent] == sent
        assert [two.recv(PATIENCE_S) for _ in sent] == sent
    until(lambda: broadcast.counts().readers == 0, "readers are forgotten when they go")
    assert (broadcast.counts().sent, broadcast.counts().dropped) == (2 * len(sent), 0)


def test_who_comes_late_gets_the_hello_and_the_last_status_first(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    for message, kind in (("hello", "hello"), ("old", "status"), ("gone", "estimate"), ("new", "status"), ("gone", "notice")):
        broadcast.publish(message, kind)
    with connect(broadcast) as reader:
        assert [reader.recv(PATIENCE_S), reader.recv(PATIENCE_S)] == ["hello", "new"]
        broadcast.publish("next", "estimate")
        assert reader.recv(PATIENCE_S) == "next"


def test_a_server_keeps_what_it_is_told_to_keep(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve(keep={"hello": 1, "estimate": 3})
    for i in range(5):
        broadcast.publish(f"estimate {i}", "estimate")
    broadcast.publish("hello", "hello")
    broadcast.publish("status", "status")
    with connect(broadcast) as reader:
        assert [reader.recv(PATIENCE_S) for _ in range(4)] == ["hello", "estimate 2", "estimate 3", "estimate 4"]


def test_who_comes_in_the_middle_misses_nothing_and_gets_nothing_twice(serve: Callable[..., Broadcast], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.DEPTH", 1_000_000)
    broadcast, ended = serve(keep={"estimate": 40}), threading.Event()

    def write() -> None:
        count = 0
        while not ended.wait(0.0005):
            broadcast.publish(str(count), "estimate")
            count += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            with connect(broadcast, max_queue=None, close_timeout=0.1) as reader:
                seen = [int(reader.recv(PATIENCE_S)) for _ in range(80)]
            assert seen == list(range(seen[0], seen[0] + 80))
    finally:
        ended.set()
        writer.join()


def test_there_are_as_many_readers_as_there_may_be(serve: Callable[..., Broadcast], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.MAX_READERS", 2)
    broadcast = serve()
    with connect(broadcast):
        with connect(broadcast):
            until(lambda: broadcast.counts().readers == 2, "two readers")
            with pytest.raises(exceptions.InvalidStatus, match="503"):
                connect(broadcast)
        until(lambda: broadcast.counts().readers == 1, "one has gone")
        with connect(broadcast):
            until(lambda: broadcast.counts().readers == 2, "another came")


def test_who_asks_for_nothing_takes_no_more_than_a_share_and_holds_up_no_reader(
    serve: Callable[..., Broadcast], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.OPEN_S", 10 * PATIENCE_S)  # nobody is let go of for being slow
    broadcast = serve()
    with contextlib.ExitStack() as strangers, connect(broadcast) as early:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3 * MAX_CONNECTIONS):
            strangers.enter_context(socket.create_connection(("127.0.0.1", broadcast.port)))
        with connect(broadcast) as late:
            until(lambda: broadcast.counts().readers == 2, "both readers")
            until(lambda: len(os.listdir("/proc/self/fd")) - before < 5 * MAX_CONNECTIONS, "their ends are open, a share of ours is")
            broadcast.publish("here", "estimate")
            assert (early.recv(PATIENCE_S), late.recv(PATIENCE_S)) == ("here", "here")


def test_pictures_are_binary(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with connect(broadcast) as reader:
        until(lambda: broadcast.counts().readers, "a reader")
        broadcast.publish(b"\xff\xd8", "picture")
        assert reader.recv(PATIENCE_S) == b"\xff\xd8"


def stalled(broadcast: Broadcast) -> socket.socket:
    """A reader that connects and then reads nothing; its own buffer is small."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", broadcast.port))
    plain.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{broadcast.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return plain


def test_a_reader_that_stops_loses_the_oldest_and_holds_up_nobody(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    count, size = 400, 4000
    with stalled(broadcast), connect(broadcast) as quick:
        until(lambda: broadcast.counts().readers == 2, "two readers")
        for i in range(count):
            broadcast.publish(json.dumps([i, "x" * size]), "estimate")
            assert json.loads(quick.recv(PATIENCE_S))[0] == i, "the quick reader gets each at once"
        counts = broadcast.counts()
        assert counts.dropped > 0
        in_flight = 1_000_000  # sockets and transport of the slow one; without bounds it would be all that was sent
        assert count - counts.dropped <= DEPTH + in_flight // size
        until(lambda: broadcast.counts().sent + counts.dropped + DEPTH >= 2 * count - 1, "sent, dropped, waiting, or the one in its hands")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that would wait an hour for a handshake, and little for a goodbye."""
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.OPEN_S", 3600.0)
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.CLOSE_S", 0.05)


def close_at_once(broadcast: Broadcast) -> None:
    closer = threading.Thread(target=broadcast.close)
    closer.start()
    closer.join(PATIENCE_S)
    assert not closer.is_alive(), "close hangs"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", broadcast.port))


@pytest.mark.usefixtures("patient")
def test_closing_does_not_wait_for_a_reader_that_stopped(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with stalled(broadcast):
        until(lambda: broadcast.counts().readers == 1, "a reader")
        for _ in range(300):
            broadcast.publish("x" * 8000, "estimate")
        until(lambda: broadcast.counts().dropped, "the reader is behind")
        close_at_once(broadcast)


@pytest.mark.usefixtures("patient")
def test_closing_does_not_wait_for_one_that_connects_and_asks_for_nothing(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with socket.create_connection(("127.0.0.1", broadcast.port)):  # as browsers do, ahead of need
        assert get(broadcast)[0] == 426
        close_at_once(broadcast)


def test_of_status_and_pictures_only_the_newest_waits(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with stalled(broadcast):
        until(lambda: broadcast.counts().readers == 1, "a reader")
        for _ in range(100):
            broadcast.publish(b"x" * 20_000, "picture")
        until(lambda: broadcast.counts().sent + broadcast.counts().dropped >= 98, "all but one in flight and one that waits")
        assert broadcast.counts().dropped > 50


def test_publishing_before_the_start_and_after_the_end_does_nothing() -> None:
    broadcast = Broadcast("127.0.0.1", 0)
    broadcast.publish("early", "estimate")
    broadcast.close()
    broadcast.start()
    broadcast.close()
    broadcast.publish("late", "estimate")
    broadcast.close()
    assert broadcast.counts().sent == 0


def test_readers_are_told_when_the_server_ends(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve()
    with connect(broadcast) as reader:
        broadcast.close()
        with pytest.raises(exceptions.ConnectionClosedOK) as caught:
            reader.recv(PATIENCE_S)
        assert caught.value.rcvd.code == 1001


def test_a_pulse_comes_first_and_goes_on(serve: Callable[..., Broadcast], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.broadcast.PULSE_S", 0.01)
    beats = iter(range(1_000_000))
    broadcast = serve(pulse=lambda: f"pulse {next(beats)}")
    broadcast.publish("hello", "hello")
    with connect(broadcast) as reader:
        first, second, third = (reader.recv(PATIENCE_S) for _ in range(3))
        assert (first[:5], second, third[:5]) == ("pulse", "hello", "pulse")


def test_plain_requests_are_answered_by_http(serve: Callable[..., Broadcast]) -> None:
    broadcast = serve(http=lambda path: ("text/html", b"<p>page") if path == "/" else None)
    assert get(broadcast, "/?x=1") == (200, "text/html", "<p>page")
    assert get(broadcast, "/other")[0] == 404
    assert get(broadcast, "/../etc/passwd")[0] == 404
    with connect(broadcast) as reader:
        broadcast.publish("hello", "hello")
        assert reader.recv(PATIENCE_S) == "hello"


def test_without_http_a_plain_request_is_told_what_this_is(serve: Callable[..., Broadcast]) -> None:
    status, _, body = get(serve())
    assert (status, body) == (426, "this is a WebSocket; connect with ws://\n")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 401),
        ("/?token=", {}, 401),
        ("/?token=secre", {}, 401),
        ("/?token=secret1", {}, 401),
        ("/?token=secret", {}, 200),
        ("/?token=wrong&token=secret", {}, 200),
        ("/", {"Authorization": "Bearer secret"}, 200),
        ("/", {"Authorization": "bearer secret"}, 200),
        ("/", {"Authorization": "Basic secret"}, 401),
        ("/?token=%C3%A9", {}, 401),
    ],
)
def test_a_token_opens_and_nothing_else_does(serve: Callable[..., Broadcast], path: str, headers: dict[str, str], status: int) -> None:
    broadcast = serve(token="secret", http=lambda path: ("text/plain", b"in"))
    answer = get(broadcast, path, **headers)
    assert answer[0] == status
    assert "secret" not in answer[2]
    if status == 200:
        with connect(broadcast, path, additional_headers=headers):
            until(lambda: broadcast.counts().readers == 1, "a reader")
    else:
        with pytest.raises(exceptions.InvalidStatus, match="401"):
            connect(broadcast, path, additional_headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "10.0.0.1", "127.0.0.1@evil.example:80"]
)
def test_another_name_for_this_machine_is_refused(serve: Callable[..., Broadcast], host: str) -> None:
    assert get(serve(http=lambda path: ("text/plain", b"in")), Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8080", "127.5.5.5"])
def test_this_machines_own_names_are_let_in(serve: Callable[..., Broadcast], host: str) -> None:
    assert get(serve(http=lambda path: ("text/plain", b"in")), Host=host)[0] == 200


@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["Host", "Origin", "Authorization", "Upgrade", "Connection"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        ),
        max_size=6,
    ),
    token=st.none() | st.just("secret"),
)
def test_no_request_without_the_right_words_is_let_in(path: str, headers: list[tuple[str, str]], token: str | None) -> None:
    broadcast = Broadcast("127.0.0.1", 0, http=lambda path: ("text/plain", b"in"), token=token)
    request = http11.Request(f"/{path}", datastructures.Headers(headers))
    status, _, _ = broadcast._page(request)
    if status in (None, 200):
        local = [value for name, value in headers if name == "Host"]
        assert (
            token in f"{path}{headers}" if token else len(local) == 1 and ("localhost" in local[0].lower() or "127." in local[0] or "::1" in local[0])
        )
    else:
        assert status in (401, 403)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", ""])
def test_a_page_of_another_site_cannot_read(serve: Callable[..., Broadcast], origin: str) -> None:
    broadcast = serve()
    with pytest.raises(exceptions.InvalidStatus, match="403"):
        connect(broadcast, origin=origin)
    with connect(broadcast, origin=f"http://127.0.0.1:{broadcast.port}"):
        until(lambda: broadcast.counts().readers == 1, "the page of this server may")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_needs_a_token_and_says_so(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached from other machines and needs a token"):
        Broadcast(host, 8080)
    assert "by whoever has the token; the connection is not encrypted" in (Broadcast(host, 8080, token="secret").note or "")
    assert Broadcast("127.0.0.1", 8080).note is None
    assert Broadcast("localhost", 8080).note is None


@pytest.mark.parametrize("token", ["", "é", "a\nb"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        Broadcast("127.0.0.1", 0, token=token)


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    broadcast = Broadcast("::1", 0, http=lambda path: ("text/plain", b"in"))
    broadcast.start()
    try:
        assert broadcast.place == f"[::1]:{broadcast.port}"
        with client.connect(f"ws://{broadcast.place}/", origin=f"http://{broadcast.place}"):
            until(lambda: broadcast.counts().readers == 1, "a reader")
    finally:
        broadcast.close()


def test_a_message_while_another_thread_closes_is_dropped(serve: Callable[..., Broadcast], monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast = serve()
    loops = [broadcast._loop]
    with monkeypatch.context() as closing:
        closing.setattr(Broadcast, "_loop", property(lambda self: loops.pop() if loops else None), raising=False)
        broadcast.publish("line", "estimate")
    assert loops == []


def test_an_address_that_is_taken(serve: Callable[..., Broadcast]) -> None:
    port = serve().port
    with pytest.raises(SinkError, match=f"cannot serve at 127.0.0.1:{port}: Address already in use.*; choose another"):
        Broadcast("127.0.0.1", port).start()


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(SinkError, match=r"'no-such-host.invalid' is no address of this machine"):
        Broadcast("no-such-host.invalid", 0)
    with pytest.raises(SinkError, match=r"cannot serve at 192.0.2.1:\d+"):
        Broadcast("192.0.2.1", 8080, token="secret").start()


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'sage-edge\[serve\]'"):
        Broadcast("127.0.0.1", 0)


def test_a_package_that_is_too_old_is_refused_as_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    with pytest.raises(UsageError, match=r"websockets package, 13 or newer; pip install 'sage-edge\[serve\]'"):
        Broadcast("127.0.0.1", 0)


def test_a_server_that_does_not_come_up_is_said_and_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no room")

    broadcast = Broadcast("127.0.0.1", 0)
    with monkeypatch.context() as failing:
        failing.setattr(broadcast, "_serve", fail)
        with pytest.raises(SinkError, match=r"cannot serve at 127\.0\.0\.1:\d+: RuntimeError: no room; "):
            broadcast.start()
    with pytest.raises(ConnectionRefusedError):
        connect(broadcast)
    broadcast.start()
    with connect(broadcast):
        pass
    broadcast.close()


def test_a_server_that_ends_by_itself_is_said_and_nothing_listens(serve: Callable[..., Broadcast]) -> None:
    def end() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    broadcast = serve()
    assert broadcast._loop is not None
    assert broadcast._thread is not None
    broadcast._loop.call_soon_threadsafe(end)
    broadcast._thread.join(PATIENCE_S)
    with pytest.raises(SinkError, match=rf"127\.0\.0\.1:{broadcast.port} is served no more: CancelledError: .*; start the run again"):
        broadcast.publish("line", "estimate")
    with pytest.raises(ConnectionRefusedError):
        connect(broadcast)
    broadcast.close()
    broadcast.publish("line", "estimate")


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("localhost:0", ("localhost", 0)), ("[::1]:8080", ("::1", 8080))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "localhost", "localhost:", "localhost:http", "localhost:70000", "::1:8080", "localhost:-1", "localhost:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"write 127\.0\.0\.1:8080"):
        parse_address(text)


def test_strangers_print_nothing_and_change_nothing(serve: Callable[..., Broadcast], capfd: pytest.CaptureFixture[str]) -> None:
    broadcast = serve()
    for noise in (
        b"",
        b"\x16\x03\x01\x02",
        b"GET\r\n\r\n",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300,
    ):
        with socket.create_connection(("127.0.0.1", broadcast.port), timeout=PATIENCE_S) as plain:
            plain.sendall(noise)
            plain.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
    with connect(broadcast) as reader:
        reader.send("x" * 500)
        broadcast.publish("hello", "hello")
        assert reader.recv(PATIENCE_S) == "hello"
    assert capfd.readouterr() == ("", "")
