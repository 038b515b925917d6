"""Open one stream of a media file with PyAV, and decode it past damage. Every refusal is a SourceError of one line.

A file is opened once per stream: each reads at its own pace, so memory stays bounded however badly the file is interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

_NOT_MEDIA = ("tty", "image2", "lrc", "srt", "ass", "webvtt")
"""FFmpeg demuxers that take text or single pictures for a video."""

_FAILURES = 100
"""So many unreadable packets in a row are the end of the file."""

_MAGIC = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (0, b"\x1aE\xdf\xa3"), (0, b"RIFF"), (0, b"OggS"), (0, b"FLV"))


def open_media(path: Path) -> InputContainer:
    """Open `path` for reading, local files only. Raises SourceError when it does not exist, is empty, cut off or no media file."""
    import av

    if not path.exists():
        raise SourceError(f"{path} does not exist; check the path")
    if not path.is_file():
        raise SourceError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; give a video file such as .mp4 or .mkv")
    size = path.stat().st_size
    if size == 0:
        raise SourceError(f"{path} has zero bytes; copy or record it again")
    try:
        # An absolute path, so that no colon in it reads as a protocol. Playlists get at no host either: FFmpeg keeps files to files.
        # A title in another encoding than UTF-8 is nobody's business here.
        container = av.open(str(path.resolve()), metadata_errors="replace")
    except PermissionError:
        raise SourceError(f"{path} cannot be read: permission denied; chmod it or run as its owner") from None
    except av.FFmpegError as error:
        if _looks_like_media(path):
            raise SourceError(f"{path} ends before its first frame ({size} bytes, {_reason(error)}); copy or record it again") from None
        raise SourceError(f"{path} is not a video ({size} bytes, {_reason(error)}); give a video file such as .mp4 or .mkv") from None
    name = container.format.name
    if name in _NOT_MEDIA or name.endswith("_pipe"):
        container.close()
        raise SourceError(f"{path} is not a video (it reads as {name!r}); give a video file such as .mp4 or .mkv")
    return container


def video_stream(container: InputContainer, path: Path) -> Any:
    """The first video stream that is not a cover picture, its decoder ready. Raises SourceError when there is none or no decoder for it."""
    import av

    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        kinds = ", ".join(sorted({str(s.type) for s in container.streams})) or "nothing"
        raise SourceError(f"{path} has no video stream (it holds {kinds}); give a file with pictures")
    stream = pictures[0]
    if not can_decode(stream):
        raise SourceError(f"{path}: its video codec cannot be decoded here; convert it with ffmpeg -i FILE -c:v libx264 OUT.mp4")
    _only(container, stream)
    return stream


def audio_stream(container: InputContainer) -> Any | None:
    """The first audio stream or None; look at `can_decode` before using it."""
    streams = container.streams.audio
    if not streams:
        return None
    _only(container, streams[0])
    return streams[0]


def can_decode(stream: Stream) -> bool:
    """Whether this build of FFmpeg has a decoder for `stream`."""
    # PyAV leaves the context out where FFmpeg found no decoder.
    return stream.codec_context is not None


def decoded(container: Any, stream: Any, damaged: Callable[[], None]) -> Iterator[Any]:
    """Frames of `stream` in the order of display; `damaged()` is called for each packet or frame that had to be left out."""
    import av

    failures = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return
        except av.FFmpegError:
            damaged()
            failures += 1
            if failures > _FAILURES:
                return
            packets = container.demux(stream)
            continue
        failures = 0
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.FFmpegError:
            damaged()
            continue
        for frame in frames:
            if frame.is_corrupt:
                damaged()
            else:
                yield frame


def _only(container: Any, stream: Any) -> None:
    import av

    for other in container.streams:
        if other is not stream and hasattr(other, "discard"):  # PyAV 18; older ones read the other streams and throw them away
            other.discard = av.stream.Discard.all


def _looks_like_media(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(16)
    return any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower().rstrip(".")
