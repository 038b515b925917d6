"""Time stamps and sound of a media file, by presentation time stamps (PyAV), never by index / fps.

Time zero is the first video frame. Frame times: int64 ns [F]. Sound: int16 [N], mono, 16 kHz, sample 0 at time zero: a sound track that
starts later is preceded by zeros, one that starts earlier loses what comes before, and gaps in it become zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import DataError
from sage_edge.runtime.ticks import NS_PER_S, SAMPLE_RATE_HZ

_SLACK_S = 0.02  # containers with millisecond stamps jitter by less; more is a real gap or overlap


def _open(path: Path) -> Any:
    import av

    if not path.is_file():
        raise DataError(f"{path}: no such file; give a video file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise DataError(f"{path}: cannot be read as a video ({error.strerror or error}); it is truncated or not a video") from None


def _video_stream(container: Any, path: Path) -> Any:
    import av

    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise DataError(f"{path}: has no video stream; give the video, not its sound track")


def video_clock(path: Path) -> tuple[Fraction, NDArray[np.int64]]:
    """(presentation time of the first frame in seconds, times of all frames after it in ns, int64 [F], ascending).

    Reads packets without decoding them, but decodes the first frame so that a file without a picture is refused. Raises DataError.
    """
    import av

    path = Path(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        try:
            first = next(container.decode(stream), None)
        except av.error.FFmpegError:
            first = None
        if first is None:
            raise DataError(f"{path}: no video frame can be decoded; the file is truncated or damaged")
    with _open(path) as container:
        stream = _video_stream(container, path)
        stamps = []
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts if packet.pts is not None else packet.dts)
        except av.error.FFmpegError:
            pass  # a file that breaks off: what came before it counts
        if any(stamp is None for stamp in stamps) or not stamps:
            raise DataError(f"{path}: its frames carry no time stamps; remux it, e.g. ffmpeg -i {path.name} -c copy out.mp4")
        stamps.sort()
        base = Fraction(stream.time_base)
    step = base * NS_PER_S
    ticks = [stamp - stamps[0] for stamp in stamps]
    times = np.array([(2 * n * step.numerator + step.denominator) // (2 * step.denominator) for n in ticks], dtype=np.int64)
    return stamps[0] * base, times


def read_audio(path: Path, zero_s: Fraction) -> NDArray[np.int16]:
    """The sound of a file from presentation time `zero_s` on, mono 16 kHz int16 [N]; N = 0 when it has none."""
    import soxr

    pieces: list[NDArray[np.int16]] = []
    resampler: soxr.ResampleStream | None = None
    with _open(Path(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.int16)
        rate = 0
        for rate, block in _mono_blocks(container, zero_s):
            if resampler is None:
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
            pieces.append(_to_int16(resampler.resample_chunk(block)))
        if resampler is not None:
            pieces.append(_to_int16(resampler.resample_chunk(np.zeros(0, np.float32), last=True)))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _mono_blocks(container: Any, zero_s: Fraction) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(sample rate, contiguous float32 samples), the first one at `zero_s`: late starts and gaps filled, early starts and overlaps cut."""
    import av

    stream = container.streams.audio[0]
    rate, position = int(stream.rate), 0
    to_float = av.AudioResampler(format="fltp")
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue  # a damaged packet: the next one's stamp leaves a gap here, which becomes zeros
        for frame in frames:
            for piece in to_float.resample(frame):
                block = piece.to_ndarray().mean(axis=0, dtype=np.float32)
                at = position if frame.pts is None else round((frame.pts * frame.time_base - zero_s) * rate)
                if position and abs(at - position) <= _SLACK_S * rate:
                    at = position
                if at > position:
                    yield rate, np.zeros(at - position, np.float32)
                elif at < position:
                    block = block[position - at :]
                    at = position
                if len(block):
                    yield rate, block
                    position = at + len(block)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return  # the file breaks off here


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
