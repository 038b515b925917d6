"""Time stamps and sound of a media file, read the way the run time's `VideoFile` reads it, but without decoding its pictures.

Time zero is the first video frame. Frame times: int64 ns [F], from presentation time stamps. Sound: int16 [N], mono, 16 kHz, sample 0 at
time zero: a track that starts later is preceded by zeros, one that starts earlier loses what comes before, gaps in it become zeros. How a
player would turn the picture plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources import media, sound
from sage_edge.runtime.ticks import NS_PER_S, SAMPLE_RATE_HZ


def check_video(path: Path) -> None:
    """Decode the first frame of a file, alone. Raises SourceError where there is none."""
    with media.open_media(path) as container:
        stream = media.video_stream(container, path)
        if next(media.decoded(container, stream, lambda: None), None) is None:
            raise SourceError(f"{path} ends before its first frame ({path.stat().st_size} bytes, none can be decoded); copy or record it again")


def video_clock(path: Path, damaged: Callable[[], None] = lambda: None) -> tuple[Fraction, NDArray[np.int64]]:
    """(stamp of the first frame on the file's clock in seconds, times of all frames after it in ns, int64 [F], ascending).

    Decodes the first frame alone, so that a file without a picture is refused. `damaged()` is called for each packet that is marked as
    damaged, and where the file breaks off. Raises SourceError.
    """
    import av

    check_video(path)
    with media.open_media(path) as container:
        stream = media.video_stream(container, path)
        stamps: list[int | None] = []
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    damaged()
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts if packet.pts is not None else packet.dts)
        except av.FFmpegError:
            damaged()  # a file that breaks off: what came before counts
        base = Fraction(stream.time_base)
    known = sorted({stamp for stamp in stamps if stamp is not None})
    if not known:
        raise SourceError(f"{path}: its frames have no time stamps; put them into a container with ffmpeg -i FILE -c copy OUT.mp4")
    times = np.array([round((stamp - known[0]) * base * NS_PER_S) for stamp in known], dtype=np.int64)
    return known[0] * base, times


def audio_pieces(path: Path, zero_s: Fraction, damaged: Callable[[], None] = lambda: None) -> Iterator[NDArray[np.int16]]:
    """The sound of a file from `zero_s` on its clock on, mono 16 kHz int16 in pieces; nothing when it has none that can be decoded.

    Memory does not grow with the file. `damaged()` is called for each packet or frame that was left out or repaired.
    """
    count = 0
    with media.open_media(path) as container:
        stream = media.audio_stream(container)
        if stream is None or not media.can_decode(stream):
            return
        for event in sound.sound_events(media.decoded(container, stream, damaged), zero_s, damaged):
            start = round(event.t_ns * SAMPLE_RATE_HZ / NS_PER_S)
            while start > count:
                silence = min(start - count, SAMPLE_RATE_HZ)
                yield np.zeros(silence, np.int16)
                count += silence
            yield np.clip(np.rint(event.samples * 32768.0), -32768, 32767).astype(np.int16)[count - start :]
            count = max(count, start + len(event.samples))
