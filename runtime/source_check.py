"""Whether a camera or a microphone gives what `run` would take of it: opened, listened to for a second, closed again; nothing of it is kept.

print(try_camera("camera:0", MonotonicClock()).fact)        # 30 frames in 1.0 s, 640 x 480, MJPG, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .checkup import Check
from .engines.arrays import one_line
from .errors import SourceError
from .sources.camera import open_camera
from .sources.microphone import open_microphone
from .ticks import NS_PER_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from .clock import Clock
    from .sources import Camera, FrameEvent, Microphone

FIRST_S = 10.0
"""How long the first frame or sound is waited for: nvargus takes seconds."""
LOOK_S = 1.0
_NAP_S = 0.05
_DARK = 8.0
"""Mean brightness of 255 below which nobody is seen."""


def try_camera(text: str, clock: Clock) -> Check:
    """Frames, rate, size and brightness of the camera `text`. Raises UsageError for a URI with a typo."""
    camera = open_camera(text, clock)
    return _tried("--camera", camera, lambda: _watch(camera, clock))


def try_microphone(text: str, clock: Clock) -> Check:
    """Rate and level of the microphone `text`. Raises UsageError for a name that is none."""
    microphone = open_microphone(text, clock)
    return _tried("--mic", microphone, lambda: _listen(microphone, clock))


def _tried(option: str, device: Camera | Microphone, look: Callable[[], tuple[str, str]]) -> Check:
    try:
        device.start()
        fact, fix = look()
    except SourceError as error:  # its message ends with a fix of its own
        return Check(option, False, one_line(error), "", True)
    finally:
        device.close()
    return Check(option, not fix, f"{device.uri}: {fact}", fix, True)


def _watch(camera: Camera, clock: Clock) -> tuple[str, str]:
    if not camera.wait(FIRST_S):
        raise SourceError(f"{camera.uri} gives no frame in {FIRST_S:.0f} s{_why(camera)}")
    frame = camera.take()[-1]
    begin_ns, before = clock.now_ns(), camera.counts.frames
    while not camera.ended and clock.now_ns() - begin_ns < LOOK_S * NS_PER_S:
        if camera.wait(_NAP_S):
            frame = camera.take()[-1]
    frames, seconds = camera.counts.frames - before, (clock.now_ns() - begin_ns) / NS_PER_S
    if not frames and not camera.ended:
        raise SourceError(f"{camera.uri} gives one frame and no more{_why(camera)}")
    luma = brightness(frame)
    height, width = size(frame)
    fourcc = (camera.granted or {}).get("fourcc")
    facts = [f"{frames} frames in {seconds:.1f} s", f"{width} x {height}", *([str(fourcc)] if fourcc else []), f"asked for {_asked(camera.asked)}"]
    facts += [f"{camera.counts.damaged} damaged"] if camera.counts.damaged else []
    facts.append(f"brightness {luma:.0f} of 255")
    return ", ".join(facts), "" if luma >= _DARK else "take the cap off its lens, or light the room"


def _listen(microphone: Microphone, clock: Clock) -> tuple[str, str]:
    pieces: list[Any] = []
    end_ns = clock.now_ns() + round(FIRST_S * NS_PER_S)
    while sum(map(len, pieces)) < LOOK_S * SAMPLE_RATE_HZ:
        if clock.now_ns() > end_ns:
            raise SourceError(f"{microphone.uri} opens but gives no sound in {FIRST_S:.0f} s{_why(microphone)}; see whether it is muted or suspended")
        clock.sleep(_NAP_S)
        pieces += [event.samples for event in microphone.read()]
    samples = np.concatenate(pieces)
    peak, rms = float(np.abs(samples).max()), float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    granted = microphone.granted or {}
    fact = (
        f"{granted.get('device')!r}, {granted.get('rate_hz')} Hz, {granted.get('channels')} channel(s), asked for {_asked(microphone.asked)}, "
        f"peak {_dbfs(peak)}, mean {_dbfs(rms)}"
    )
    return fact, "" if peak > 0 else "it gives only zeros: unmute it, or choose another one"


def brightness(frame: FrameEvent) -> float:
    """Mean of the picture, 0 to 255."""
    if frame.format == "nv12":
        return float(frame.pixels[: len(frame.pixels) * 2 // 3].mean())
    return float(frame.pixels[..., 0].mean() if frame.format == "yuyv" else frame.pixels.mean())


def size(frame: FrameEvent) -> tuple[int, int]:
    """Height and width of the picture."""
    height, width = frame.pixels.shape[:2]
    return (height * 2 // 3 if frame.format == "nv12" else height), width


def _why(device: Camera | Microphone) -> str:
    notices = device.notices()
    return f" ({notices[-1].detail})" if notices else ""


def _asked(asked: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in asked.items() if value is not None) or "nothing"


def _dbfs(level: float) -> str:
    return f"{20 * math.log10(level):.1f} dBFS" if level > 0 else "none"
