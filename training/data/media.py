"""Time stamps and sound of a media file, read the way the run time's `VideoFile` reads it, but without decoding its pictures.

Time zero is the first video frame. Frame times: int64 ns [F], from presentation time stamps. Sound: int16 [N], mono, 16 kHz, sample 0 at
time zero: a track that starts later is preceded by zeros, one that starts earlier loses what comes before, gaps in it become zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources import media, sound
from sage_edge.runtime.ticks import NS_PER_S, SAMPLE_RATE_HZ


def video_clock(path: Path, damaged: Callable[[], None] = lambda: None) -> tuple[Fraction, NDArray[np.int64]]:
    """(stamp of the first frame on the file's clock in seconds, times of all frames after it in ns, int64 [F], ascending).

    Decodes the first frame alone, so that a file without a picture is refused. `damaged()` is called for each packet that is marked as
    damaged, and where the file breaks off. Raises SourceError.
    """
    import av

    with media.open_media(path) as container:
        stream = media.video_stream(container, path)
        if next(media.decoded(container, stream, lambda: None), None) is None:
            raise SourceError(f"{path} ends before its first frame ({path.stat().st_size} bytes, none can be decoded); copy or record it again")
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


def read_audio(path: Path, zero_s: Fraction, damaged: Callable[[], None] = lambda: None) -> NDArray[np.int16]:
    """The sound of a file from `zero_s` on its clock on, mono 16 kHz int16 [N]; N = 0 when it has none that can be decoded.

    `damaged()` is called for each packet or frame that was left out or repaired.
    """
    pieces: list[NDArray[np.int16]] = []
    count = 0
    with media.open_media(path) as container:
        stream = media.audio_stream(container)
        if stream is None or not media.can_decode(stream):
            return np.zeros(0, np.int16)
        for event in sound.sound_events(media.decoded(container, stream, damaged), zero_s, damaged):
            start = round(event.t_ns * SAMPLE_RATE_HZ / NS_PER_S)
            if start > count:
                pieces.append(np.zeros(start - count, np.int16))
            pieces.append(np.clip(np.rint(event.samples * 32768.0), -32768, 32767).astype(np.int16)[max(count - start, 0) :])
            count = max(count, start + len(event.samples))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
