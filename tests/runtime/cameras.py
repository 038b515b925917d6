"""Real cameras for tests: an HTTP MJPEG server that can be stopped, stalled, frozen and resized, an RTSP server, and what waits for a camera."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.sources.camera import LiveCamera, _opener
from sage_edge.runtime.sources.uri import parse_camera
from sage_edge.runtime.sources.watch import Limits

BITS = 8
QUICK = Limits(stall_s=0.3, stall_periods=3, frozen_s=0.3, black_s=0.2, first_s=5.0, retry_s=0.05, retry_most_s=0.2)
"""A fraction of a camera's patience, for tests."""

RTSP_PYTHON = "/usr/bin/python3"
RTSP_APT = "sudo apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
GST_APT = "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base"


def numbered(index: int, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A picture with `index` modulo 256 in it, as eight black and white blocks that survive JPEG."""
    picture = np.full((height, width, 3), 90, np.uint8)
    side = width // BITS
    for bit in range(BITS):
        picture[:side, bit * side : (bit + 1) * side] = 255 if index >> bit & 1 else 0
    return picture


def number_of(frame: FrameEvent) -> int:
    """What `numbered` wrote into the frame."""
    luma = frame.pixels if frame.format == "nv12" else frame.pixels.mean(axis=2)
    side = frame.pixels.shape[1] // BITS
    return sum(int(luma[side // 2, bit * side + side // 2] > 128) << bit for bit in range(BITS))


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """`picture` as a camera sends it."""
    return bytes(cv2.imencode(".jpg", picture)[1].tobytes())


class MjpegServer:
    """Numbered pictures at `rate_hz` on a port of its own, which it keeps over `stop` and `start`; https with a `certificate`, its key beside it."""

    def __init__(self, rate_hz: float = 100.0, certificate: Path | None = None) -> None:
        self.rate_hz, self._certificate = rate_hz, certificate
        self.mode = "live"
        """"live", "silent" (the connection stays open), "frozen", "black"."""
        self.size = (160, 120)
        self.sent = 0
        self._server: ThreadingHTTPServer | None = None
        self._running = threading.Event()
        self._pictures: dict[tuple[int, tuple[int, int]], bytes] = {}
        self.port = 0
        self.start()

    @property
    def uri(self) -> str:
        return f"http{'' if self._certificate is None else 's'}://127.0.0.1:{self.port}/cam.mjpg"

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer._answer(self)

        ThreadingHTTPServer.allow_reuse_address = True
        self._running.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self._certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._certificate, self._certificate.with_suffix(".key"))
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """As if it were killed: connections end, the port is closed."""
        self._running.clear()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _picture(self) -> bytes:
        if self.mode == "frozen":
            key = (0, self.size)
        elif self.mode == "black":
            key = (-1, self.size)
        else:
            self.sent += 1
            key = (self.sent % 256, self.size)
        if key not in self._pictures:
            width, height = self.size
            self._pictures[key] = jpeg(np.zeros((height, width, 3), np.uint8) if key[0] < 0 else numbered(key[0], width, height))
        return self._pictures[key]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/page":
            return _whole(request, 200, "text/html", b"<html><body>a camera's page</body></html>")
        if request.path == "/one.jpg":
            return _whole(request, 200, "image/jpeg", jpeg(numbered(1)))
        if request.path.startswith("/secret") and "Authorization" not in request.headers:
            return _whole(request, 401, "text/plain", b"no")
        if not request.path.startswith(("/cam.mjpg", "/secret")):
            return _whole(request, 404, "text/plain", b"no")
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        try:
            while self._running.is_set():
                if self.mode != "silent":
                    picture = self._picture()
                    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                    request.wfile.write(head + picture + b"\r\n")
                time.sleep(1 / self.rate_hz)
        except OSError:
            pass


def _whole(request: BaseHTTPRequestHandler, code: int, kind: str, body: bytes) -> None:
    request.send_response(code)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    if code == 401:
        request.send_header("WWW-Authenticate", 'Basic realm="camera"')
    request.end_headers()
    request.wfile.write(body)


_RTSP = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory(); factory.set_shared(True)
factory.set_launch("( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=30/1 ! "
                   "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )")
server.get_mount_points().add_factory("/cam", factory)
assert server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


class RtspServer:
    """H.264 over RTSP from gst-rtsp-server, in a process of its own; `start` again takes the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    @staticmethod
    def missing() -> str | None:
        """Why there can be none here; None when there can."""
        probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None)"
        probe += "; assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay') and Gst.ElementFactory.find('videotestsrc')"
        if not os.path.exists(RTSP_PYTHON) or subprocess.run([RTSP_PYTHON, "-c", probe], capture_output=True, check=False).returncode:
            return f"no RTSP server: {RTSP_APT}"
        return None

    def start(self) -> None:
        self._process = subprocess.Popen([RTSP_PYTHON, "-c", _RTSP, str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextmanager
def opened(text: str, limits: Limits = QUICK) -> Iterator[LiveCamera]:
    """The camera `text`, started, less patient than in earnest."""
    uri = parse_camera(text)
    assert uri is not None
    clock = MonotonicClock()
    camera = LiveCamera(uri, clock, _opener(uri, clock), limits)
    try:
        camera.start()
        yield camera
    finally:
        camera.close()


def until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether `condition` came true; polls, with a deadline that only a fault reaches."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def take(camera: LiveCamera, count: int) -> list[FrameEvent]:
    """The next `count` frames that the camera hands out."""
    frames = []
    while len(frames) < count:
        assert camera.wait(20.0), f"no frame; state {camera.state}"
        [frame] = camera.take()
        frames.append(frame)
    return frames
