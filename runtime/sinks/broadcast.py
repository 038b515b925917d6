"""Send lines to whoever connects: a WebSocket server in a thread of its own, which no reader can hold up.

    broadcast = Broadcast("127.0.0.1", 8765)       # checked; nothing listens yet
    broadcast.start()
    broadcast.publish(line, "estimate")            # from any thread; never waits
    broadcast.close()

Who connects gets what is kept first (the hello and the last status, unless `keep` says otherwise), then every message as it comes. Each reader
has a queue of its own: when it is full the oldest message goes; of "status" and "picture" only the newest ever waits. What a reader did not get is
counted.

Whoever reaches a loopback address may read, except pages of other sites in the same browser (Host and Origin are checked). Any other address needs
a token, as `Authorization: Bearer TOKEN` or `?token=TOKEN`. Nothing is encrypted: across a network, put TLS or an SSH tunnel in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.util
import ipaddress
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from ..errors import SinkError, UsageError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

Message = str | bytes
Http = Callable[[str], "tuple[str, bytes] | None"]
"""What a plain request for a path gets, without its query: (content type, body), None for what is not there."""

KEEP = {"hello": 1, "status": 1}
NEWEST_ONLY = ("status", "picture", "pulse")
DEPTH = 64
MAX_READERS = 32
MAX_CONNECTIONS = 2 * MAX_READERS
"""Those included that have not asked for anything yet; of these the oldest goes when there are more."""
PULSE_S = 1.0
OPEN_S = 10.0
"""How long one that connects has to say what it wants."""
CLOSE_S = 1.0
"""How long a reader has to answer when its connection is closed."""
SEND_BUFFER_BYTES = 65_536
"""The kernel's, per reader: with its own megabytes, a slow reader would be minutes behind before anything is dropped."""

HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
"""Of every plain answer: the address may hold the token, so it is neither kept nor passed on."""


@dataclass(frozen=True)
class BroadcastCounts:
    """Readers that are connected; messages that were given to a connection, and that were dropped because a reader was slow, since the start."""

    readers: int
    sent: int
    dropped: int


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of "127.0.0.1:8080", "localhost:8080" or "[::1]:8080". Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535 or (":" in host and not host.startswith("[")):
        raise UsageError(f"{text!r} is no HOST:PORT; write 127.0.0.1:8080, or [::1]:8080 for IPv6")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Broadcast:
    """A server at `host`:`port`; port 0 takes a free one, which `port` then says.

    `http` answers plain requests, `keep` says how many messages of each kind a new reader gets, in this order of kinds. `pulse`, called in the
    server's thread, gives a line for every reader when it comes and every `PULSE_S`, so that a silent run can be told from a lost connection.

    Raises UsageError for an address that others reach without a token, and where the `websockets` package is missing; SinkError for a host
    that does not resolve.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        http: Http | None = None,
        token: str | None = None,
        keep: Mapping[str, int] = KEEP,
        pulse: Callable[[], Message] | None = None,
    ) -> None:
        if not _can_serve():
            raise UsageError("serving needs the websockets package, 13 or newer; pip install 'sage-edge[serve]'")
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise UsageError("the token must be one or more printable ASCII characters; openssl rand -hex 16 makes one")
        self._family, addresses = _resolve(host, port)
        self._address = addresses[0]
        self.loopback = all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
        if not self.loopback and token is None:
            raise UsageError(
                f"{host}:{port} can be reached from other machines and needs a token: --token TOKEN with --serve, ?token=TOKEN in a sink; "
                "or take 127.0.0.1"
            )
        self.host, self.port = host, port
        self._http, self._token, self._pulse = http, token, pulse
        self._kept: dict[str, deque[Message]] = {kind: deque(maxlen=count) for kind, count in keep.items()}
        self._readers: dict[ServerConnection, _Reader] = {}
        self._sent = self._dropped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def place(self) -> str:
        """HOST:PORT, as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def note(self) -> str | None:
        """What a person should be told about this address; None for loopback."""
        if self.loopback:
            return None
        return f"{self.place} can be reached from other machines, by whoever has the token; the connection is not encrypted"

    def start(self) -> None:
        """Listen, and wait until who connects is answered. Raises SinkError for an address that cannot be had, and for a server that does not come
        up."""
        try:
            listener = socket.create_server((self._address, self.port), family=self._family)
        except OSError as error:
            raise SinkError(f"cannot serve at {self.place}: {error.strerror or error}; choose another address or port") from None
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.port = listener.getsockname()[1]
        self._loop, self._closing, self._error, up = asyncio.new_event_loop(), asyncio.Event(), None, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listener, self._closing, up), name=f"serve {self.place}", daemon=True)
        self._thread.start()
        up.wait()
        if self._error is not None:
            self.close()
            raise SinkError(f"cannot serve at {self.place}: {_named(self._error)}; pip install 'sage-edge[serve]' brings what serving needs")

    def publish(self, message: Message, kind: str) -> None:
        """Send `message` (text, or bytes for a picture) to all readers. Never waits; does nothing before `start` and after `close`. Raises SinkError
        once the server has ended by itself."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._deliver, message, kind)
            except RuntimeError:  # closed meanwhile, or ended
                if self._error is not None:
                    raise SinkError(f"{self.place} is served no more: {_named(self._error)}; start the run again") from None

    def counts(self) -> BroadcastCounts:
        """The counts now; from any thread."""
        return BroadcastCounts(len(self._readers), self._sent, self._dropped)

    def close(self) -> None:
        """Tell the readers and stop listening, within about `CLOSE_S`; again does nothing."""
        loop, closing, thread = self._loop, self._closing, self._thread
        self._loop = self._closing = self._thread = None
        if loop is not None and closing is not None and thread is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(closing.set)
            thread.join()

    # ---- in the server's thread

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, closing: asyncio.Event, up: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(listener, closing, up))
        except BaseException as error:
            self._error = error
        finally:
            listener.close()  # else who connects would wait for ever
            loop.close()
            up.set()

    async def _serve(self, listener: socket.socket, closing: asyncio.Event, up: threading.Event) -> None:
        from websockets.asyncio.server import ServerConnection, serve
        from websockets.protocol import State

        seen: dict[ServerConnection, None] = {}  # in the order in which they came

        class Noted(ServerConnection):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                seen[self] = None
                if len(seen) > MAX_CONNECTIONS:  # a stranger without a token must not use up the files that this process may open
                    oldest = next((other for other in seen if other.protocol.state is State.CONNECTING), self)
                    del seen[oldest]
                    oldest.transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                seen.pop(self, None)
                super().connection_lost(exc)

        quiet = logging.getLogger("sage_edge.broadcast")
        if not quiet.handlers:
            # What strangers send to the port is no news; without a handler, logging would print it to stderr.
            quiet.addHandler(logging.NullHandler())
        server = await serve(
            self._welcome,
            sock=listener,
            process_request=self._answer,
            create_connection=Noted,
            compression=None,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            max_size=1024,
            server_header=None,
            logger=quiet,
        )
        up.set()
        pulse = asyncio.create_task(self._beat())
        try:
            await closing.wait()
        finally:
            pulse.cancel()
            for connection in list(seen):
                if connection.protocol.state is State.CONNECTING:  # browsers connect ahead of need, and then ask for nothing
                    connection.transport.abort()
            server.close()
            ended = asyncio.create_task(server.wait_closed())
            await asyncio.wait([ended], timeout=CLOSE_S)
            for connection in list(seen):  # one that has stopped reading has no room even for a goodbye
                connection.transport.abort()
            await ended

    async def _beat(self) -> None:
        while self._pulse is not None:
            await asyncio.sleep(PULSE_S)
            self._deliver(self._pulse(), "pulse")

    def _deliver(self, message: Message, kind: str) -> None:
        if kind in self._kept:
            self._kept[kind].append(message)
        for reader in self._readers.values():
            self._dropped += reader.put(message, kind)

    async def _welcome(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        first = [] if self._pulse is None else [self._pulse()]
        first += [message for kept in self._kept.values() for message in kept]
        reader = _Reader()
        self._readers[connection] = reader
        sender = asyncio.create_task(self._send(connection, reader, first))
        try:
            async for _ in connection:  # readers have nothing to say
                pass
        except ConnectionClosed:
            pass
        finally:
            del self._readers[connection]
            sender.cancel()

    async def _send(self, connection: ServerConnection, reader: _Reader, first: list[Message]) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            for message in first:
                await connection.send(message)
                self._sent += 1
            while True:
                await connection.send(await reader.get())
                self._sent += 1

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets a WebSocket through; everything else gets its answer here."""
        status, kind, body = self._page(request)
        if status is None:
            return None
        response = connection.respond(status, "")
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        response.headers.update({**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))})
        response.body = body
        return response

    def _page(self, request: Request) -> tuple[HTTPStatus | None, str, bytes]:
        """(status, content type, body) for a request; status None where a WebSocket may be opened."""
        if getattr(request, "method", "GET") != "GET":
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET")
        if (refused := self._refusal(request)) is not None:
            return _text(*refused)
        if "websocket" in request.headers.get("Upgrade", "").lower():
            if len(self._readers) >= MAX_READERS:
                return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_READERS} readers are connected; close one")
            return None, "", b""
        if self._http is None:
            return _text(HTTPStatus.UPGRADE_REQUIRED, "this is a WebSocket; connect with ws://")
        found = self._http(request.path.partition("?")[0])
        return _text(HTTPStatus.NOT_FOUND, "there is nothing here") if found is None else (HTTPStatus.OK, *found)

    def _refusal(self, request: Request) -> tuple[HTTPStatus, str] | None:
        headers = request.headers
        if self._token is not None:
            given = headers.get_all("Authorization")
            offered = [value[7:] for value in given if value[:7].lower() == "bearer "] + parse_qs(request.path.partition("?")[2]).get("token", [])
            if any(hmac.compare_digest(value.encode(), self._token.encode()) for value in offered):
                return None
            return HTTPStatus.UNAUTHORIZED, "a token is needed: add ?token=TOKEN to the address, or the header Authorization: Bearer TOKEN"
        # Without a token, only this machine's own programs and pages may read: another site's page must not, also not by a name
        # that it lets point to 127.0.0.1 (DNS rebinding).
        hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
        if len(hosts) != 1 or not _is_local_name(hosts[0]):
            return HTTPStatus.FORBIDDEN, "ask by the address this is served at (127.0.0.1 or localhost), or serve with a token"
        if any(origin.lower().partition("://")[2] != hosts[0].lower() for origin in origins):
            return HTTPStatus.FORBIDDEN, "pages of other sites may not read this; serve with a token"
        return None


class _Reader:
    """What waits for one reader. Used in the server's thread alone."""

    def __init__(self) -> None:
        self._pending: deque[tuple[str, Message]] = deque()
        self._some = asyncio.Event()

    def put(self, message: Message, kind: str) -> int:
        """How many older messages went for it."""
        dropped = 0
        if kind in NEWEST_ONLY:
            before = len(self._pending)
            self._pending = deque(entry for entry in self._pending if entry[0] != kind)
            dropped = 0 if kind == "pulse" else before - len(self._pending)
        if len(self._pending) >= DEPTH:
            self._pending.popleft()
            dropped += 1
        self._pending.append((kind, message))
        self._some.set()
        return dropped

    async def get(self) -> Message:
        while not self._pending:
            self._some.clear()
            await self._some.wait()
        return self._pending.popleft()[1]


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, list[str]]:
    """The family to listen in, and this host's addresses in it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SinkError(f"{host!r} is no address of this machine; take 127.0.0.1, or 0.0.0.0 for all of them") from None
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    family = found[0][0]
    return family, [str(info[4][0]) for info in found if info[0] == family]


def _can_serve() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("websockets", "websockets.asyncio.server"))
    except ImportError:
        return False


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _is_local_name(host: str) -> bool:
    """Whether a Host header names this machine by itself: "localhost:8080", "127.0.0.1:8080", "[::1]"."""
    try:
        name: str | None = urlsplit(f"//{host}").hostname
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


def _text(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, bytes]:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode()
