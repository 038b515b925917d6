"""The page's server side: one document that needs nothing else, what a reader gets and in which order, and pictures only when shared."""

from __future__ import annotations

import http.client
import json
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_stream import HOP_NS, Stream, hello, notices, past, status

import sage_edge.runtime.serve as serve
from sage_edge.runtime.clock import SimulatedClock
from sage_edge.runtime.errors import SinkError, UsageError
from sage_edge.runtime.serve.page import SCRIPTS, Page, document
from sage_edge.runtime.sources import FrameEvent

client = pytest.importorskip("websockets.sync.client", reason="pip install 'sage-edge[serve]'")

STATIC = Path(serve.__file__).parent / "static"
PATIENCE_S = 20.0


@pytest.fixture
def pages() -> Iterator[Callable[..., Page]]:
    """Makes started pages on free ports, and closes them."""
    made: list[Page] = []

    def start(**options: Any) -> Page:
        made.append(Page("127.0.0.1", 0, **options))
        made[-1].start(hello())
        return made[-1]

    yield start
    for page in made:
        page.close()


def connect(page: Page) -> Any:
    return client.connect(page.url.replace("http", "ws"), max_size=None)


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.005)


def frame(t_ns: int, format: str = "rgb", width: int = 640, height: int = 480) -> FrameEvent:
    """Red in every format."""
    shape, colour = {
        "rgb": ((height, width, 3), (255, 0, 0)),
        "bgr": ((height, width, 3), (0, 0, 255)),
        "yuyv": ((height, width // 2, 4), (76, 85, 76, 255)),
        "nv12": ((height * 3 // 2, width // 2, 2), (76, 76)),
    }[format]
    pixels = np.empty(shape, np.uint8)
    pixels[...] = colour
    if format == "yuyv":
        pixels = pixels.reshape(height, width, 2)
    if format == "nv12":
        pixels = pixels.reshape(height * 3 // 2, width)
        pixels[height:] = np.tile([85, 255], width // 2)
    return FrameEvent(t_ns, pixels, format)


def test_the_page_is_small_and_asks_no_other_host_for_anything() -> None:
    text = document().decode()
    assert len(text) < 60_000
    used = {STATIC / "page.html", STATIC / "page.css", *(STATIC / f"{name}.js" for name in SCRIPTS)}
    assert used == set(STATIC.iterdir()), "every file is in the page"
    addresses = set(re.findall(r"[\w+.-]+://[^\s'\"`)]*", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:)", text)
    assert not re.findall(r"\son\w+=|style=", text), "the policy would refuse them"
    assert not {"SCRIPT", "STYLE", "CONTENT_SECURITY_POLICY"} & set(re.findall(r"\b[A-Z_]{5,}\b", text))


def test_a_reader_gets_what_was_before_and_then_what_comes(pages: Callable[..., Page]) -> None:
    clock = SimulatedClock(10**12)
    page, stream = pages(clock=clock), Stream()
    now_ns = past(page, stream, 3, now_ns=clock.now_ns())
    notices(page, now_ns)
    page.status(status(now_ns))
    with connect(page) as reader:
        before = [json.loads(reader.recv(PATIENCE_S)) for _ in range(13)]
        assert [line.get("type", "estimate") for line in before] == ["pulse", "hello", *["notice"] * 4, *["estimate"] * 6, "status"]
        assert before[0]["t_ns"] == clock.now_ns()
        assert before[1] == {**hello(), "share_video": False}
        assert [line["t_ns"] for line in before[6:12]] == [now_ns - (5 - i) * HOP_NS for i in range(6)]
        (estimate,) = stream.hop(now_ns + HOP_NS)
        page.write(estimate)
        assert json.loads(reader.recv(PATIENCE_S)) == estimate.to_dict()


def test_starting_again_says_hello_again(pages: Callable[..., Page]) -> None:
    page = pages()
    page.start(hello(hop=30))
    with connect(page) as reader:
        lines = [json.loads(reader.recv(PATIENCE_S)) for _ in range(2)]
    assert [line.get("hop") for line in lines] == [None, 30]


def test_nothing_listens_before_the_start() -> None:
    page = Page("127.0.0.1", 0)
    page.write(next(Stream().hop(0)))
    page.close()
    assert page.url == "http://127.0.0.1:0/"


def test_an_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(UsageError, match="--token TOKEN with --serve"):
        Page("0.0.0.0", 8080)
    assert "whoever has the token" in (Page("0.0.0.0", 8080, token="secret").note or "")
    assert "secret" not in Page("0.0.0.0", 8080, token="secret").url + Page("0.0.0.0", 8080, token="secret").spec


def test_an_address_that_is_taken(pages: Callable[..., Page]) -> None:
    port = int(pages().url.rstrip("/").rpartition(":")[2])
    with pytest.raises(SinkError, match="Address already in use"):
        Page("127.0.0.1", port).listen()


def test_a_page_is_there_before_the_run(pages: Callable[..., Page]) -> None:
    page = Page("127.0.0.1", 0)
    page.listen()
    page.listen()
    with connect(page) as reader:
        assert json.loads(reader.recv(PATIENCE_S))["type"] == "pulse"
        page.start(hello())
        while (line := json.loads(reader.recv(PATIENCE_S)))["type"] == "pulse":
            pass
        assert line == {**hello(), "share_video": False}
    page.close()


def test_the_document_is_given_to_who_may_have_it(pages: Callable[..., Page]) -> None:
    page = pages(token="secret")
    for path, expected in (("/", 401), ("/?token=secret", 200), ("/page.js?token=secret", 404)):
        connection = http.client.HTTPConnection(page.url.split("/")[2], timeout=PATIENCE_S)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == expected
        body = answer.read()
        assert (body == document()) == (expected == 200)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        connection.close()


def pictures(reader: Any, count: int) -> list[bytes]:
    """The next `count` binary messages."""
    found: list[bytes] = []
    while len(found) < count:
        message = reader.recv(PATIENCE_S)
        if isinstance(message, bytes):
            found.append(message)
    return found


@pytest.mark.parametrize("format", ["rgb", "bgr", "nv12", "yuyv"])
def test_a_shared_picture_is_the_frame_made_small(pages: Callable[..., Page], format: str) -> None:
    import cv2

    page = pages(share_video=True)
    with connect(page) as reader:
        reader.recv(PATIENCE_S)
        page.offer(frame(7, format))
        (message,) = pictures(reader, 1)
    assert struct.unpack("<qII", message[:16]) == (7, 640, 480)
    picture = cv2.imdecode(np.frombuffer(message[16:], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (360, 480, 3)
    assert np.abs(picture.astype(int) - (0, 0, 255)).max() < 12, "blue, green, red"


def test_no_picture_leaves_unless_it_is_shared(pages: Callable[..., Page]) -> None:
    page = pages()
    with connect(page) as reader:
        lines = [reader.recv(PATIENCE_S) for _ in range(2)]
        for i in range(50):
            page.offer(frame(i * 10**9))
        page.write(next(Stream().hop(0)))
        lines.append(reader.recv(PATIENCE_S))
    assert all(isinstance(line, str) for line in lines)
    assert "pixels" not in "".join(lines)


def test_pictures_are_few_and_none_is_made_for_nobody(pages: Callable[..., Page]) -> None:
    page = pages(share_video=True)
    sent = page._pictures
    assert sent is not None
    assert not sent.offer(frame(0)), "nobody reads"
    with connect(page) as reader:
        reader.recv(PATIENCE_S)
        taken = 0
        for i in range(30):
            if sent.offer(frame(i * 10**9 // 30, width=64, height=48)):
                taken += 1
                pictures(reader, 1)
                until(lambda: sent._frame is None, "the picture is done")
        assert taken == 5, "a second at 30 frames/s"
    until(lambda: page._broadcast.counts().readers == 0, "the reader has gone")
    assert not sent.offer(frame(10**10)), "nobody reads"


def test_a_picture_that_cannot_be_made_is_left_out_and_the_next_one_is_sent(pages: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> None:
    page = pages(share_video=True)
    sent = page._pictures
    assert sent is not None

    def fail(frame: FrameEvent) -> bytes:
        raise MemoryError

    told: list[object] = []
    monkeypatch.setattr("threading.excepthook", lambda args: told.append(args.exc_type))
    with connect(page) as reader:
        reader.recv(PATIENCE_S)
        with monkeypatch.context() as failing:
            failing.setattr("sage_edge.runtime.serve.pictures.encode", fail)
            for seconds in range(2):
                assert sent.offer(frame(seconds * 10**9))
                until(lambda: sent._frame is None, "the picture is done with")
        assert sent.offer(frame(2 * 10**9))
        (message,) = pictures(reader, 1)
    assert struct.unpack("<qII", message[:16]) == (2 * 10**9, 640, 480)
    assert told == [MemoryError], "the first in a row"
