"""The video devices that there are, by asking the kernel: names, formats, sizes, rates, and who is using one. Nothing is streamed.

Structures and numbers: linux/videodev2.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_CAPABILITY = struct.Struct("=16s32s32sIII12x")
_FORMAT = struct.Struct("=III32sI16x")
_SIZE = struct.Struct("=IIIII24x")
_INTERVAL = struct.Struct("=IIIIIII24x")
_BUFFERS = struct.Struct("=IIIII")

_CAPTURE, _MMAP, _DISCRETE = 1, 1, 1
_IS_CAPTURE, _HAS_OWN_CAPABILITIES = 0x1, 0x80000000
_CSI_DRIVER = "tegra-video"  # raw sensors of a Jetson: nvargus opens them, by number
_MOST = 64  # entries of one list that are asked for


def _request(number: int, struct_: struct.Struct, write: bool = True) -> int:
    """_IOR or _IOWR of the kernel's 'V' requests."""
    return (3 if write else 2) << 30 | struct_.size << 16 | ord("V") << 8 | number


_QUERYCAP, _ENUM_FMT, _REQBUFS = _request(0, _CAPABILITY, False), _request(2, _FORMAT), _request(8, _BUFFERS)
_ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = _request(74, _SIZE), _request(75, _INTERVAL)


@dataclass(frozen=True)
class Mode:
    """One size of one pixel format; `rates_hz` are the discrete rates, empty where the device names a range or nothing."""

    fourcc: str
    width: int
    height: int
    rates_hz: tuple[float, ...]


@dataclass(frozen=True)
class VideoDevice:
    """A device that gives pictures. `uri` is stable over unplugging where the system keeps such a name; `problem` says why it cannot be opened."""

    uri: str
    path: str
    name: str
    driver: str
    modes: tuple[Mode, ...]
    problem: str | None


def video_devices(dev: Path = Path("/dev")) -> list[VideoDevice]:
    """All of them, in the order of their numbers; nodes that give no pictures (metadata, codecs) are left out."""
    nodes = sorted((int(node.name[5:]), node) for node in dev.glob("video*") if node.name[5:].isdecimal())
    stable = {os.path.realpath(link): str(link) for link in sorted((dev / "v4l/by-id").glob("*"), reverse=True)}
    found = [_look(str(node), stable.get(os.path.realpath(node), str(node))) for _, node in nodes]
    devices, sensors = [device for device in found if device is not None], 0
    for i, device in enumerate(devices):
        if device.driver == _CSI_DRIVER:
            devices[i] = replace(device, uri=f"csi://{sensors}")
            sensors += 1
    return devices


def problem_of(path: str) -> str | None:
    """Why the device cannot be opened now, and what to do, without its name; None when it can."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except PermissionError:
        return "permission denied; sudo usermod -aG video $USER, and log in again"
    except OSError as error:
        if error.errno == errno.EBUSY:
            return _busy(path)
        return f"{os.strerror(error.errno or 0).lower()}; plug it in again"
    try:
        if not _captures(fd):
            return "it gives no pictures (a metadata node, or no camera); 'sage-edge devices' lists what does"
        fcntl.ioctl(fd, _REQBUFS, _BUFFERS.pack(0, _CAPTURE, _MMAP, 0, 0))
    except OSError as error:
        return _busy(path) if error.errno == errno.EBUSY else None
    finally:
        os.close(fd)
    return None


def gives_pictures(path: str) -> bool:
    """Whether the device is there and answers."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _captures(fd)
    finally:
        os.close(fd)


def open_descriptors(path: str) -> set[int]:
    """The file descriptors of this process that are this device."""
    real = os.path.realpath(path)
    return {int(link.name) for link in Path("/proc/self/fd").iterdir() if _target(link) == real}


def listing(devices: list[VideoDevice]) -> str:
    """What there is, for an error of one line."""
    if not devices:
        return "there is no video device here; plug one in, and see that this user is in the group 'video'"
    return "there is " + ", ".join(f"v4l2://{device.path} ({device.name})" for device in devices)


def _busy(path: str) -> str:
    by = ", ".join(f"{name} (pid {pid})" for pid, name in _holders(path))
    return f"it is in use{f' by {by}' if by else ' by another program'}; close that, or choose another camera"


def _holders(path: str) -> Iterator[tuple[int, str]]:
    """Programs of this user that have it open, but this one."""
    real = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(_target(link) == real for link in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text().strip()


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _look(path: str, stable: str) -> VideoDevice | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return VideoDevice(f"v4l2://{stable}", path, "unknown", "unknown", (), problem_of(path))
    try:
        if not _captures(fd):
            return None
        driver, card, *_ = _capability(fd)
        modes = tuple(_modes(fd))
    finally:
        os.close(fd)
    return VideoDevice(f"v4l2://{stable}", path, _text(card), _text(driver), modes, problem_of(path))


def _capability(fd: int) -> tuple[bytes, bytes, bytes, int, int, int]:
    """Driver, card, bus, version, capabilities of all nodes of the device, of this one. Raises OSError for what is no video device."""
    return _CAPABILITY.unpack(fcntl.ioctl(fd, _QUERYCAP, bytes(_CAPABILITY.size)))


def _captures(fd: int) -> bool:
    """Whether this node gives pictures."""
    try:
        *_, capabilities, own = _capability(fd)
    except OSError:
        return False
    return bool((own if capabilities & _HAS_OWN_CAPABILITIES else capabilities) & _IS_CAPTURE)


def _modes(fd: int) -> Iterator[Mode]:
    for entry in _entries(fd, _ENUM_FMT, _FORMAT, _CAPTURE, 0, b"", 0):
        pixel_format = entry[4]
        fourcc = pixel_format.to_bytes(4, "little").decode("latin-1").rstrip()
        for _, _, kind, width, height in _entries(fd, _ENUM_FRAMESIZES, _SIZE, pixel_format, 0, 0, 0):
            rates = _entries(fd, _ENUM_FRAMEINTERVALS, _INTERVAL, pixel_format, width, height, 0, 0, 0)
            rates_hz = tuple(round(rate[6] / rate[5], 3) for rate in rates if rate[4] == _DISCRETE and rate[5])
            yield Mode(fourcc, width, height, rates_hz)
            if kind != _DISCRETE:
                break


def _entries(fd: int, request: int, layout: struct.Struct, *values: object) -> Iterator[tuple[int, ...]]:
    """The entries of one of the kernel's lists, until it says that there are no more."""
    for index in range(_MOST):
        try:
            yield layout.unpack(fcntl.ioctl(fd, request, layout.pack(index, *values)))
        except OSError:
            return


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace")
