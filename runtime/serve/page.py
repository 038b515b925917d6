"""A page that shows a run: `Page("127.0.0.1", 8080)` is a sink; open `page.url` in a browser.

The page is one document, made of the files in `static/`; it asks no other host for anything and stores nothing. Its WebSocket gives it the lines
that every sink gets (`estimate.py`, `notice.py`), after those of the last minute, and a pulse {"type":"pulse","t_ns":...} once a second, by which it
tells a silent run from a lost server, and old numbers from new ones.

No picture leaves the process unless `share_video` is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from ..clock import Clock, MonotonicClock
from ..estimate import Estimate
from ..notice import Notice, Status
from ..sinks.broadcast import Broadcast
from ..sources import FrameEvent
from .pictures import Pictures

SCRIPTS = ("drawing", "state", "connection", "words", "plane", "timelines", "picture", "panels", "main")
"""In this order: a later one may use what an earlier one has."""
KEEP = {"hello": 1, "notice": 50, "estimate": 480, "status": 1}
"""Estimates: a minute of four faces, twice a second."""


class Page:
    """Serves the page at `host`:`port`. A sink (see `sinks.Sink`) whose calls never wait, and `start` may come again. Nothing listens before
    `listen` or `start`.

    Raises UsageError for an address that others reach without a token, and where the `websockets` package is missing; SinkError for a host
    that does not resolve.
    """

    def __init__(self, host: str, port: int, token: str | None = None, share_video: bool = False, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._broadcast = Broadcast(host, port, http=_document, token=token, keep=KEEP, pulse=self._pulse)
        self.share_video = share_video
        self.note = self._broadcast.note
        """What a person should be told about the address, None for loopback."""
        self._pictures = Pictures(self._broadcast) if share_video else None
        self._listens = False

    @property
    def spec(self) -> str:
        """Its name among the sinks."""
        return f"page:{self._broadcast.place}"

    @property
    def url(self) -> str:
        """Where to open it, without the token."""
        return f"http://{self._broadcast.place}/"

    @property
    def dropped(self) -> int:
        """Messages that slow readers did not get."""
        return self._broadcast.counts().dropped

    def listen(self) -> None:
        """Be there, and say that nothing has come yet; again does nothing. Raises SinkError for an address that cannot be had."""
        if not self._listens:
            self._broadcast.start()
            self._listens = True

    def start(self, hello: dict[str, Any]) -> None:
        """Show a run that begins; `listen`, if that was not done."""
        self.listen()
        self._broadcast.publish(_line({**hello, "share_video": self.share_video}), "hello")

    def write(self, estimate: Estimate) -> None:
        """Show one estimate."""
        self._broadcast.publish(estimate.to_json(), "estimate")

    def notice(self, notice: Notice) -> None:
        """Show what has changed."""
        self._broadcast.publish(notice.to_json(), "notice")

    def status(self, status: Status) -> None:
        """Show what is measured beside the estimates."""
        self._broadcast.publish(_line(status), "status")

    def offer(self, frame: FrameEvent) -> None:
        """The newest frame, to be shown with `share_video`; without, nothing is done with it. Never waits."""
        if self._pictures is not None:
            self._pictures.offer(frame)

    def close(self) -> None:
        """Stop listening; again does nothing."""
        if self._pictures is not None:
            self._pictures.close()
        self._broadcast.close()

    def _pulse(self) -> str:
        return _line({"type": "pulse", "t_ns": self._clock.now_ns()})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _document(path: str) -> tuple[str, bytes] | None:
    return ("text/html; charset=utf-8", document()) if path == "/" else None


@cache
def document() -> bytes:
    """The whole page. Its policy lets nothing run or load but the one style and the one script in it."""
    folder = files(__package__) / "static"
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = "".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (folder / "page.html").read_text(encoding="utf-8")
    for place, text in (("CONTENT_SECURITY_POLICY", policy), ("STYLE", style), ("SCRIPT", script)):
        page = page.replace(place, text, 1)
    return page.encode()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
