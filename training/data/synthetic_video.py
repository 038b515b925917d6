"""Write one .mp4: H.264 pictures with a time stamp each, AAC sound. Encoders run on one thread, so that a seed gives the same file again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import SinkError
from sage_edge.runtime.ticks import SAMPLE_RATE_HZ

TIME_BASE = Fraction(1, 90_000)
_BLOCK = 1024


def write_mp4(
    path: Path,
    frames: Iterable[tuple[int, NDArray[np.uint8]]],
    size: tuple[int, int],
    rate: Fraction,
    sound: NDArray[np.float32] | None,
    *,
    sound_rate_hz: int = SAMPLE_RATE_HZ,
    stereo: bool = False,
    sound_late_s: float = 0.0,
    quality: int = 23,
    b_frames: int = 0,
) -> None:
    """Write `frames`, pairs of (presentation time in 1/90000 s, uint8 BGR [h, w, 3], even size (w, h)), and `sound` [N].

    `sound` is float32 mono at 16 kHz whose sample 0 belongs to time 0; it is resampled to `sound_rate_hz`. What lies before
    `sound_late_s` is not written: the sound track then starts later than the picture, as recorders' do. Raises SinkError.
    """
    import av

    try:
        _write(path, frames, size, rate, sound, sound_rate_hz, stereo, sound_late_s, quality, b_frames)
    except av.FFmpegError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror or error}; free some disk space or choose another folder") from None


def _write(
    path: Path,
    frames: Iterable[tuple[int, NDArray[np.uint8]]],
    size: tuple[int, int],
    rate: Fraction,
    sound: NDArray[np.float32] | None,
    sound_rate_hz: int,
    stereo: bool,
    sound_late_s: float,
    quality: int,
    b_frames: int,
) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video: Any = container.add_stream("libx264", rate=rate)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.time_base = TIME_BASE
        video.codec_context.time_base = TIME_BASE
        video.codec_context.thread_count = 1
        video.options = {
            "preset": "ultrafast",
            "crf": str(quality),
            "threads": "1",
            "bf": str(b_frames),
            "g": "150",
            "x264-params": "sliced-threads=0",
        }
        blocks: Iterator[Any] | None = None
        if sound is not None:
            audio: Any = container.add_stream("aac", rate=sound_rate_hz)
            audio.layout = "stereo" if stereo else "mono"
            audio.bit_rate = 96_000 if stereo else 64_000
            audio.options = {"aac_coder": "fast"}
            blocks = _blocks(sound, sound_rate_hz, stereo, sound_late_s)
        ahead_s = -1.0
        for stamp, picture in frames:
            while blocks is not None and ahead_s * 90_000 < stamp:  # interleave
                block = next(blocks, None)
                if block is None:
                    blocks = None
                    break
                ahead_s = block.pts / sound_rate_hz
                container.mux(audio.encode(block))
            yuv: Any = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
            frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            frame.pts, frame.time_base = stamp, TIME_BASE
            container.mux(video.encode(frame))
        for block in blocks or ():
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(audio.encode(None))


def _blocks(sound: NDArray[np.float32], rate_hz: int, stereo: bool, late_s: float) -> Iterator[Any]:
    import av
    import soxr

    data = sound if rate_hz == SAMPLE_RATE_HZ else soxr.resample(sound, SAMPLE_RATE_HZ, rate_hz).astype(np.float32)
    start = round(late_s * rate_hz)
    for at in range(start, len(data), _BLOCK):
        piece = data[at : at + _BLOCK]
        block = av.AudioFrame.from_ndarray(np.stack([piece, piece]) if stereo else piece[None], format="fltp", layout="stereo" if stereo else "mono")
        block.sample_rate, block.pts, block.time_base = rate_hz, at, Fraction(1, rate_hz)
        yield block
