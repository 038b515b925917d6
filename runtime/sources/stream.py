"""Network cameras through PyAV: HTTP MJPEG (or whatever else FFmpeg finds behind http), RTSP over TCP where the server has it.

Opening and every read are bounded in time; frames are stamped when their last byte has come. A server may redirect to another host. Cameras sign
their own certificates: those of https are only checked when $SAGE_EDGE_CAMERA_CA names a file of the ones to trust.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import SourceError
from . import FrameEvent
from .pictures import Pictures
from .reader import Unreachable

if TYPE_CHECKING:
    from ..clock import Clock
    from .uri import CameraUri

_OPEN_S, _READ_S = 8.0, 5.0
_PERIOD_NS, _PERIOD_SHARE = 33_000_000, 0.005
"""The mean time between two packets at first, and how much of it one interval makes."""
_BEHIND, _SKIP_MOST = 15, 200
"""A packet that is there within a quarter of a period has waited for us. After so many in a row decoding is too slow: those that wait are thrown
away, up to the newest, but never more than the latter number without a picture."""
_WHOLE = ("mjpeg",)
"""Codecs in which every packet is a picture of its own, so that one can be left out."""
_OPTIONS = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "rtsp_flags": "prefer_tcp",
    "protocol_whitelist": "http,https,httpproxy,tls,tcp,rtsp,rtp,udp",
    "user_agent": "sage-edge",
}


class StreamReader:
    """One connection to `uri.target`."""

    def __init__(self, uri: CameraUri, clock: Clock) -> None:
        self.damaged = self.skipped = 0
        self._at_once = 0
        self._period_ns = float(_PERIOD_NS)
        self._packet_ns: int | None = None
        self._clock, self._shown = clock, uri.text
        self._container = _open(uri)
        try:
            stream = self._stream()
            stream.codec_context.thread_count = 1
            self._packets = self._container.demux(stream)
        except BaseException:
            self.close()
            raise
        self._whole = stream.codec_context.name in _WHOLE
        self._pictures = Pictures()
        self._ready: list[FrameEvent] = []
        # FFmpeg makes up 25 frames/s for MJPEG over HTTP
        rate_hz = None if self._container.format.name == "mpjpeg" or not stream.average_rate else float(stream.average_rate)
        context = stream.codec_context
        self.granted: dict[str, Any] = {
            "width": context.width or None,
            "height": context.height or None,
            "rate_hz": rate_hz,
            "fourcc": str(context.name).upper(),
        }

    def read(self) -> FrameEvent | None:
        """See `Reader`."""
        import av

        while not self._ready:
            before_ns = self._clock.now_ns()
            try:
                packet = next(self._packets)
            except (StopIteration, av.error.EOFError):
                raise Unreachable(f"{self._shown} has ended: the server closed it") from None
            except av.FFmpegError as error:
                broken = "the connection broke" if error.errno == errno.EIO else _reason(error)
                raise Unreachable(f"{self._shown}: {broken}") from None
            t_ns = self._clock.now_ns()
            if self._behind(before_ns, t_ns):
                self.skipped += 1
                continue
            try:
                frames = packet.decode()
            except av.error.EOFError:
                raise Unreachable(f"{self._shown} has ended: the server closed it") from None
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.damaged += 1
                else:
                    self._ready.append(FrameEvent(t_ns, *self._pictures.convert(frame)))
        return self._ready.pop(0)

    def interrupt(self) -> None:
        """See `Reader`: a read ends by itself after its time-out."""

    def close(self) -> None:
        """See `Reader`."""
        self._container.close()

    def _behind(self, before_ns: int, t_ns: int) -> bool:
        """Whether the packet that was asked for at `before_ns` and came at `t_ns` is to be left out for newer ones."""
        if self._packet_ns is not None:
            self._period_ns += _PERIOD_SHARE * (t_ns - self._packet_ns - self._period_ns)
        self._packet_ns = t_ns
        self._at_once = self._at_once + 1 if t_ns - before_ns < self._period_ns / 4 else 0
        if self._at_once > _BEHIND + _SKIP_MOST:
            self._at_once = 0
        return self._whole and self._at_once > _BEHIND

    def _stream(self) -> Any:
        videos = self._container.streams.video
        name = self._container.format.name
        if name.endswith("_pipe") or name == "image2":
            raise SourceError(f"{self._shown} is a single picture, not a stream; give the address of the camera's MJPEG stream")
        if not videos or videos[0].codec_context is None:
            raise SourceError(f"{self._shown} has no pictures that can be decoded here (it reads as {name!r}); set the camera to MJPEG or H.264")
        return videos[0]


def _open(uri: CameraUri) -> Any:
    import av

    errors, trusted = av.error, _trusted(uri)
    trust = {} if trusted is None else {"tls_verify": "1", "ca_file": trusted}
    try:
        return av.open(uri.target, timeout=(_OPEN_S, _READ_S), options={**_OPTIONS, **trust}, metadata_errors="replace")
    except (errors.HTTPUnauthorizedError, errors.HTTPForbiddenError) as error:
        raise SourceError(f"{uri.text}: {_reason(error)}; write {urlsplit(uri.target).scheme}://USER:PASSWORD@HOST/...") from None
    except errors.HTTPClientError as error:
        raise SourceError(f"{uri.text}: {_reason(error)}; check the path") from None
    except errors.InvalidDataError:
        raise SourceError(f"{uri.text} answers, but not with a video; give the address of the stream itself, not of a page") from None
    except av.FFmpegError as error:
        _look_up(uri)
        unsure = "" if trusted is None else f", or its certificate is none of {trusted}"
        raise Unreachable(f"{uri.text}: {_reason(error)}{unsure}") from None


def _trusted(uri: CameraUri) -> str | None:
    """The file of certificates that a https camera must be signed by; None where nobody asked for it."""
    path = os.environ.get("SAGE_EDGE_CAMERA_CA") or None
    if path is None or not uri.target.lower().startswith("https:"):
        return None
    if not os.access(path, os.R_OK):
        raise SourceError(f"{uri.text}: $SAGE_EDGE_CAMERA_CA is {path!r}, which cannot be read; name a file of certificates (PEM)")
    return path


def _look_up(uri: CameraUri) -> None:
    """SourceError for a host that has no address; FFmpeg calls that an input/output error."""
    host = urlsplit(uri.target).hostname or ""
    with contextlib.suppress(OSError):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                raise SourceError(f"{uri.text}: there is no host {host!r}; check the name, or write its address") from None
        except UnicodeError:
            raise SourceError(f"{uri.text}: {host!r} is no name of a host; check it") from None


def _reason(error: Exception) -> str:
    import av

    if isinstance(error, av.error.ExitError):
        return "nothing came in time"
    return str(getattr(error, "strerror", None) or error).lower().rstrip(".")
