"""A recorded video as a source: frames and sound by presentation time stamps, in stamp order, in bounded memory.

Time zero is the first frame. Sound keeps its offset to it; samples before time zero are left out. `for event in VideoFile("talk.mp4"): ...`
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import SourceError
from ..ticks import NS_PER_S
from . import AudioEvent, Event, FrameEvent, SourceDrops
from .media import audio_stream, can_decode, decoded, open_media, video_stream
from .pictures import Pictures
from .sound import sound_events

_DECODER_THREADS = 2


class VideoFile:
    """`with VideoFile(path) as video: for event in video: ...`; can be iterated once.

    Opening decodes the first frame, so that a file that cannot be used is refused before any other work: SourceError for one that does not
    exist, is empty, cut off before its first frame, not a video, without a video stream or of an unknown codec. A file without sound is
    fine. Damage further on is counted in `drops` and passed over.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.drops = SourceDrops()
        self.notes: list[str] = []
        self._containers: list[Any] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        container = self._media()
        stream = video_stream(container, self.path)
        stream.codec_context.thread_type = "FRAME"
        stream.codec_context.thread_count = _DECODER_THREADS
        self._frames = decoded(container, stream, self._damaged_frame)
        self._first = next(self._frames, None)
        if self._first is None:
            size = self.path.stat().st_size
            raise SourceError(f"{self.path} ends before its first frame ({size} bytes, none can be decoded); copy or record it again")
        if self._first.pts is None:
            raise SourceError(f"{self.path}: its frames have no time stamps; put them into a container with ffmpeg -i FILE -c copy OUT.mp4")
        self.origin_s = Fraction(self._first.pts * self._first.time_base)
        """Stamp of the first frame on the file's own clock, seconds."""
        upright = round(self._first.rotation / 90) % 2 == 0
        self.width, self.height = (self._first.width, self._first.height) if upright else (self._first.height, self._first.width)
        self.rate_hz = float(stream.average_rate) if stream.average_rate else None
        """Average frames per second as the file says, for people; nothing is timed by it."""
        self.duration_s = float(stream.duration * stream.time_base) if stream.duration else None
        """Length of the pictures as the header says; None where it does not."""
        self._sound: Any = None
        self.has_sound = False
        """Whether there is a sound track that can be decoded."""
        if container.streams.audio:
            self._open_sound()

    def _open_sound(self) -> None:
        container = self._media()
        stream = audio_stream(container)
        if stream is not None and can_decode(stream):
            stream.codec_context.thread_count = 1
            self.has_sound = True
            self._sound = sound_events(decoded(container, stream, self._damaged_sound), self.origin_s, self._damaged_sound)
        else:
            self.notes.append(f"{self.path}: its sound cannot be decoded here and is left out")

    def __iter__(self) -> Iterator[Event]:
        pictures = self.pictures()
        if self._sound is None:
            return pictures
        return heapq.merge(self._sound, pictures, key=_stamp)

    def pictures(self) -> Iterator[FrameEvent]:
        """The frames alone, once, instead of iterating the whole."""
        frame, self._first = self._first, None
        pictures = Pictures()
        last_ns = -1
        while frame is not None:
            t_ns = None if frame.pts is None else round((frame.pts * frame.time_base - self.origin_s) * NS_PER_S)
            if t_ns is None or t_ns <= last_ns:
                self._damaged_frame()
            else:
                last_ns = t_ns
                pixels, layout = pictures.convert(frame)
                yield FrameEvent(t_ns, pixels, layout)
            frame = next(self._frames, None)
        if self.duration_s is not None and last_ns / NS_PER_S < self.duration_s - 1.0:
            self.notes.append(f"{self.path} ends at {last_ns / NS_PER_S:.1f} s of the {self.duration_s:.1f} s that its header promises")

    def _media(self) -> Any:
        container = open_media(self.path)
        self._containers.append(container)
        return container

    def _damaged_frame(self) -> None:
        self.drops.frames += 1

    def _damaged_sound(self) -> None:
        self.drops.audio += 1

    def close(self) -> None:
        """Release the file and its decoders; may be called twice."""
        while self._containers:
            self._containers.pop().close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _stamp(event: FrameEvent | AudioEvent) -> int:
    return event.t_ns
