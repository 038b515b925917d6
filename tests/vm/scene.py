"""What the machine sees and hears: somebody drawn who sways, and a voice that speaks, both in a loop.

The face goes to vivid's output as raw pictures, which its capture device then shows; the voice goes to a loopback card as raw samples, 16 kHz mono.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from moving_face import Person, Room, path_of

from sage_edge.training.data.synthetic_latent import affect, control_times
from sage_edge.training.data.synthetic_voice import draw_voice, render, speak

SIZE = (720, 576)
"""vivid's S-Video: PAL, 25 interlaced frames a second."""
FRAMES, SECONDS = 50, 8.0


def write_scene(folder: Path) -> None:
    """face.yuyv and voice.raw, of one loop each."""
    folder.mkdir(parents=True, exist_ok=True)
    _face(folder / "face.yuyv")
    _voice(folder / "voice.raw")


def _face(path: Path) -> None:
    person, room = Person(0), Room(SIZE)
    with path.open("wb") as out:
        for index in range(FRAMES):
            there_and_back = min(index, FRAMES - index)
            out.write(_yuyv(room.shot(index, [(person, path_of(there_and_back, SIZE, half=130))])).tobytes())


def _yuyv(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] -> [H, W, 2], BT.601."""
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    packed = np.empty((*rgb.shape[:2], 2), np.float32)
    packed[..., 0] = 16 + ycc[..., 0] * 219 / 255
    packed[:, 0::2, 1] = 128 + (ycc[:, 0::2, 2] - 128) * 224 / 255
    packed[:, 1::2, 1] = 128 + (ycc[:, 0::2, 1] - 128) * 224 / 255
    return np.round(packed).astype(np.uint8)


def _voice(path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = len(control_times(SECONDS))
    speech = speak(draw_voice(rng), affect(rng, SECONDS), affect(rng, SECONDS), np.ones(steps, np.bool_), rng)
    voice = render(speech, rng)
    path.write_bytes(np.round(voice / np.abs(voice).max() * 0.5 * 32767).astype("<i2").tobytes())
