"""A short video with a drawn, moving face and a hummed voice: something to time the whole loop on when there is no camera and no file.

Nothing in it means anything; it is H.264 (MPEG-4 where PyAV lacks the encoder) and AAC, so that decoding costs what it costs.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SOUND_HZ = 48_000


def write_clip(path: Path, seconds: float = 10.0, size: tuple[int, int] = (640, 480), rate: int = 30) -> None:
    """Write `path` (.mp4), `seconds` long, `size` = (width, height) even, `rate` frames a second."""
    import av

    width, height = size
    with av.open(str(path), "w", format="mp4") as out:
        video: Any = out.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "23"}
        audio: Any = out.add_stream("aac", rate=_SOUND_HZ)
        audio.layout = "mono"
        rng = np.random.default_rng(0)
        face = _face(2 * height // 5)
        room = np.clip(rng.normal(110, 12, (height, width, 3)), 0, 255).astype(np.uint8)
        sound = _voice(seconds)
        sent, block = 0, 1024
        for index in range(round(seconds * rate)):
            while sent * rate < (index + 1) * _SOUND_HZ and sent < len(sound):
                piece: Any = av.AudioFrame.from_ndarray(sound[None, sent : sent + block], "fltp", "mono")
                piece.sample_rate, piece.pts, piece.time_base = _SOUND_HZ, sent, Fraction(1, _SOUND_HZ)
                out.mux(audio.encode(piece))
                sent += block
            frame: Any = av.VideoFrame.from_ndarray(_picture(room, face, index / rate, index % 7), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        out.mux(audio.encode())


def _picture(room: NDArray[np.uint8], face: tuple[NDArray[np.float32], NDArray[np.float32]], t_s: float, shift: int) -> NDArray[np.uint8]:
    """The face before a wall that flickers a little, as a sensor does."""
    picture = np.roll(room, shift, axis=1)
    colours, alpha = face
    side = len(colours)
    height, width = picture.shape[:2]
    x = int((width - side) * (0.5 + 0.3 * np.sin(0.9 * t_s)))
    y = int((height - side) * (0.5 + 0.3 * np.sin(0.6 * t_s)))
    part = picture[y : y + side, x : x + side]
    part[:] = (part * (1 - alpha) + colours * alpha).astype(np.uint8)
    return picture


def _face(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A face of the kind a frontal cascade looks for: sockets darker than cheeks, a bright nose. RGB [side, side, 3], alpha [side, side, 1]."""
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5) / np.float32(0.5)
    skin = np.array([215, 170, 140], np.float32)
    inside = (x / 0.64) ** 2 + (y / 0.86) ** 2
    image = skin * (1.0 - 0.3 * np.clip(inside, 0, 1))[..., None]

    def spot(cx: float, cy: float, rx: float, ry: float, colour: NDArray[np.float32], soft: float = 1.5) -> None:
        weight = np.clip((1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2) * soft, 0, 1)[..., None]
        image[:] = image * (1 - weight) + colour * weight

    for eye in (-0.27, 0.27):
        spot(eye, -0.16, 0.24, 0.17, skin * np.float32(0.5))
        spot(eye, -0.13, 0.11, 0.06, np.array([225, 225, 225], np.float32), 4)
        spot(eye, -0.13, 0.05, 0.055, np.array([30, 25, 25], np.float32), 4)
        spot(eye, -0.31, 0.17, 0.045, np.array([50, 40, 35], np.float32), 4)
        spot(1.1 * eye, 0.2, 0.17, 0.13, np.minimum(skin * np.float32(1.1), 255))
    spot(0, -0.03, 0.07, 0.25, np.minimum(skin * np.float32(1.15), 255))
    spot(0, 0.22, 0.13, 0.045, skin * np.float32(0.55))
    spot(0, 0.45, 0.24, 0.07, np.array([140, 60, 65], np.float32), 4)
    hair = (inside < 1.15) & (y < -0.5 + 0.1 * x * x)
    image[hair] = np.array([45, 35, 30], np.float32)
    return image, np.clip((1.05 - inside) * 12, 0, 1)[..., None]


def _voice(seconds: float) -> NDArray[np.float32]:
    """Harmonics of a pitch that wanders around 140 Hz, louder and softer, and a little noise; float32 [n] at 48 kHz."""
    t = np.arange(int(seconds * _SOUND_HZ)) / _SOUND_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(1.7 * t)) / _SOUND_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(1).standard_normal(len(t))
    return (0.06 * tone * (1 + np.sin(4.1 * t)) + 0.003 * noise).astype(np.float32)
