"""What works on this machine, each thing tried for real: the loop's own parts, the microphone, the backends, the GPU, the folders.

    for check in checks(): print(check.name, check.ok, check.fact, check.fix)

Nothing here raises, and nothing is written but into temporary folders and, for a moment, the cache folder. The microphone is open until its first
sample comes; nothing of it is kept.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import cpu
from .engines.arrays import one_line
from .engines.probe import Found, available, clash
from .errors import SageError, SourceError
from .files import atomic_file, cache_folder
from .machine import cores

_SOUND_NS = 3_000_000_000


@dataclass(frozen=True)
class Check:
    """One thing. `needed` means that `run` does not work without it; `fact` is what was found, `fix` what to do when it is not `ok`."""

    name: str
    ok: bool
    fact: str
    fix: str = ""
    needed: bool = False


def checks() -> list[Check]:
    """Everything but the backends; see `backends`."""
    tried: tuple[tuple[str, Callable[[], str], str, bool], ...] = (
        ("libsage", _libsage, "run `make native` in a checkout, or reinstall sage-edge", True),
        ("video", _video, "pip install --force-reinstall av soxr", True),
        ("faces", _faces, "pip install --force-reinstall 'opencv-python-headless<5'", True),
        ("microphone", _microphone, "", False),
        ("cache folder", _cache, "set CACHE_DIRECTORY to a folder that you may write to; --precision auto and TensorRT need it", False),
        ("CUDA", _cuda, "", False),
    )
    return [_try(*each) for each in tried] + _onnxruntimes()


def backends() -> tuple[list[Found], list[Check]]:
    """What `engines.probe` found, and the same as checks; ONNX Runtime on the CPU is needed, the others are offers."""
    found = available()
    return found, [
        Check(
            f"{each.backend} on {each.device}",
            each.ok,
            ": ".join(filter(None, (each.version, each.why))),
            each.fix,
            (each.backend, each.device) == ("onnxruntime", "cpu"),
        )
        for each in found
    ]


def processor() -> Check:
    """What the processor multiplies 8-bit numbers and bf16 with."""
    found = cpu.features()
    listed = ", ".join(name for name in cpu.FEATURES if name in found) or "no instruction set known to matter here"
    note = cpu.saturation_note("onnxruntime", found)
    return Check("processor", note is None, f"{cores()} core(s) for this process; {listed}", note or "")


def _try(name: str, look: Callable[[], str], fix: str, needed: bool) -> Check:
    try:
        return Check(name, True, look(), "", needed)
    except ModuleNotFoundError as error:
        return Check(name, False, f"{error.name} is not installed", fix, needed)
    except SageError as error:  # its message ends with a fix of its own
        return Check(name, False, one_line(error), "", needed)
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {one_line(error)}", fix, needed)


def _libsage() -> str:
    import numpy as np

    from .native import crop
    from .native.library import ABI_VERSION, load

    out = np.empty((3, 4, 4), np.float32)
    crop(np.full((8, 8, 3), 255, np.uint8), (0.0, 0.0, 8.0, 8.0), out, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if not np.allclose(out, 1.0):
        raise ValueError(f"it cropped a white picture to {out.min():g}..{out.max():g}")
    return f"interface {ABI_VERSION}, {load()._name}"


def _video() -> str:
    import av
    import numpy as np

    from .clip import write_clip
    from .sources import FrameEvent
    from .sources.video import VideoFile

    with tempfile.TemporaryDirectory(prefix="sage-edge-") as folder:
        write_clip(Path(folder) / "clip.mp4", 0.5, (160, 120))
        frames, loudest = 0, 0.0
        with VideoFile(Path(folder) / "clip.mp4") as video:
            for event in video:
                if isinstance(event, FrameEvent):
                    frames += 1
                else:
                    loudest = max(loudest, float(np.abs(event.samples).max(initial=0)))
    if frames != 15 or not loudest:
        raise ValueError(f"a clip of 15 frames with sound was read as {frames} frames, loudest sample {loudest:g}")
    decoder = ".".join(map(str, av.library_versions.get("libavcodec", ())))
    return f"wrote and read a clip with sound; PyAV {av.__version__}, libavcodec {decoder}"


def _faces() -> str:
    import cv2

    from .clip import write_clip
    from .faces import FaceFinder
    from .sources import FrameEvent
    from .sources.video import VideoFile

    finder, found = FaceFinder(), 0
    with tempfile.TemporaryDirectory(prefix="sage-edge-") as folder:
        write_clip(Path(folder) / "clip.mp4", 0.2, (320, 240))
        with VideoFile(Path(folder) / "clip.mp4") as video:
            for event in video:
                if isinstance(event, FrameEvent):
                    found += finder.find(event.pixels, event.format, event.t_ns) is not None
    if not found:
        raise ValueError("the cascade finds no face in a drawn picture of one")
    return f"found a drawn face; OpenCV {cv2.__version__}"


def _microphone() -> str:
    import sounddevice

    from .clock import MonotonicClock
    from .native import AudioCapture
    from .sources.portaudio import Recording, find_microphone, microphones

    clock, device = MonotonicClock(), find_microphone(None)
    capture = AudioCapture("float32", device.channels, device.rate_hz, device.rate_hz)
    recording = Recording(device, device.rate_hz, device.channels, capture, pinned=False)
    try:
        end_ns = clock.now_ns() + _SOUND_NS
        while not capture.written:
            if clock.now_ns() > end_ns:
                raise SourceError(f"microphone {device.name!r} opens but gives no sound; see whether it is muted or suspended")
            clock.sleep(0.01)
    finally:
        recording.close()
    version = sounddevice.get_portaudio_version()[1].split(",")[0]
    return (
        f"{device.name!r} gives sound at {device.rate_hz} Hz, {len(microphones())} to choose from; {version}, sounddevice {sounddevice.__version__}"
    )


def _cache() -> str:
    file = cache_folder() / "doctor.json"
    with atomic_file(file) as work:
        work.write_text("{}\n")
    file.unlink()
    with contextlib.suppress(OSError):
        file.parent.rmdir()
    return str(cache_folder())


def _cuda() -> str:
    from .engines.cuda import open_cuda

    with contextlib.closing(open_cuda()) as cuda:
        device = cuda.device
        return f"{device.name}, SM {device.sm}, {device.memory_bytes / 1e9:.1f} GB, driver for CUDA {device.driver}, through {cuda.driver.name}"


def _onnxruntimes() -> list[Check]:
    both = clash()
    if both is None:
        return []
    fact, _, fix = both.partition(": ")
    return [Check("onnxruntime packages", False, fact, fix, True)]
