"""Small real media files for the tests, made by PyAV: frames and sound given as arrays, any codec, rate, layout and offset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Picture = Callable[[int, float], NDArray[np.uint8]]
"""(index, seconds) -> RGB uint8 [H, W, 3]."""


def ramp(index: int, _seconds: float, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A picture whose brightness tells its index, modulo 200."""
    return np.full((height, width, 3), 20 + index % 200, np.uint8)


def write_video(
    path: Path,
    *,
    stamps_s: Sequence[float | Fraction] | None = None,
    picture: Picture = ramp,
    size: tuple[int, int] = (160, 120),
    sound: NDArray[np.float32] | None = None,
    sound_rate: int = 44_100,
    sound_layout: str = "mono",
    sound_start_s: float = 0.0,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    colorspace: int | None = None,
    color_range: int | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    time_base: Fraction = Fraction(1, 90_000),
    sound_drop: Callable[[int], bool] = lambda _index: False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a file. `stamps_s` None leaves the pictures out; `sound` is float32 [n] or [channels, n]."""
    width, height = size
    with av.open(
        str(path), "w", options={"movie_timescale": "90000", **(options or {})} if path.suffix in (".mp4", ".mov") else (options or {})
    ) as out:
        out.metadata.update(metadata or {})
        video = audio = None
        if stamps_s is not None:
            video = out.add_stream(video_codec, rate=30)
            video.width, video.height, video.pix_fmt = width, height, pix_fmt
            if video_codec == "libx264":
                video.options = {"preset": "ultrafast", "qp": "10", **(codec_options or {})}
            video.codec_context.time_base = time_base
            if colorspace is not None:
                video.codec_context.colorspace = colorspace
            if color_range is not None:
                video.codec_context.color_range = color_range
            if rotation:
                video.set_display_rotation(rotation)
        if sound is not None:
            audio = out.add_stream(audio_codec, rate=sound_rate)
            audio.layout = sound_layout
        packets = []
        if video is not None and stamps_s is not None:
            for index, seconds in enumerate(stamps_s):
                frame = av.VideoFrame.from_ndarray(picture(index, float(seconds)), "rgb24")
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)
                frame.pts = round(seconds / time_base)
                frame.time_base = time_base
                packets += video.encode(frame)
            packets += video.encode()
        if audio is not None and sound is not None:
            packets += _encode_sound(audio, np.atleast_2d(sound), sound_rate, sound_layout, sound_start_s, sound_drop)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def _encode_sound(audio, sound, rate, layout, start_s, drop) -> list:
    packets = []
    channels = audio.layout.nb_channels
    data = np.broadcast_to(sound, (channels, sound.shape[1])).astype(np.float32)
    length = audio.codec_context.frame_size or 1024
    fmt = audio.codec_context.format.name
    for index, at in enumerate(range(0, data.shape[1], length)):
        if drop(index):
            continue
        piece = np.ascontiguousarray(data[:, at : at + length])
        if fmt == "s16":
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.round(piece * 32767).astype(np.int16).T.reshape(1, -1)), "s16", layout)
        else:
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
        frame.sample_rate = rate
        frame.pts = at + round(start_s * rate)
        frame.time_base = Fraction(1, rate)
        packets += audio.encode(frame)
    packets += audio.encode()
    return packets


def flash_and_click(at_s: float, seconds: float, sound_rate: int) -> tuple[Picture, NDArray[np.float32]]:
    """White pictures from `at_s` on, and a click (2 ms of a square) that starts there."""
    sound = np.zeros(round(seconds * sound_rate), np.float32)
    start = round(at_s * sound_rate)
    sound[start : start + sound_rate // 500] = 0.8

    def picture(_index: int, now_s: float) -> NDArray[np.uint8]:
        return np.full((120, 160, 3), 235 if now_s >= at_s - 1e-9 else 16, np.uint8)

    return picture, sound


def even_stamps(rate: Fraction | int, count: int, start_s: Fraction | float = 0) -> list[Fraction]:
    """`count` stamps at `rate` frames a second, exact."""
    return [Fraction(start_s) + Fraction(i) / Fraction(rate) for i in range(count)]


def loop_video(source: Path, path: Path, seconds: float) -> Path:
    """Repeat the packets of `source` until `path` is `seconds` long; nothing is decoded. Where the ends meet, some hundredths may be missing."""
    with av.open(str(source)) as media:
        streams = [media.streams.video[0], *media.streams.audio[:1]]
        packets = [
            (packet.stream.index, packet.pts, packet.dts, packet.duration, packet.is_keyframe, packet.time_base, bytes(packet))
            for packet in media.demux(*streams)
            if packet.dts is not None
        ]
        end_s = max((pts + duration) * base for _, pts, _, duration, _, base, _ in packets)
        period_s = Fraction(end_s - min(dts * base for _, _, dts, _, _, base, _ in packets))
        with av.open(str(path), "w") as out:
            copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
            turn = 0
            while turn * period_s < seconds:
                for index, pts, dts, duration, key, base, data in packets:
                    packet = av.Packet(data)
                    shift = round(turn * period_s / base)
                    packet.pts, packet.dts, packet.duration, packet.time_base = pts + shift, dts + shift, duration, base
                    packet.is_keyframe, packet.stream = key, copies[index]
                    out.mux(packet)
                turn += 1
    return path
