"""Cameras and microphones by name: "camera:0", "v4l2:///dev/video0?fps=30", "csi://0", "rtsp://...", "http://...", "talk.mp4", "mic:NAME".

Pure and strict: nothing is opened or looked up, and what is not understood is a UsageError of one line that names the nearest scheme or key.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import UsageError
from ..secrets import without_secrets

CAMERAS = {
    "camera": "camera:0",
    "v4l2": "v4l2:///dev/video0?fourcc=MJPG&width=640&height=480&fps=30",
    "csi": "csi://0?width=1280&height=720&fps=30",
    "rtsp": "rtsp://HOST/PATH",
    "http": "http://HOST/PATH",
    "https": "https://HOST/PATH",
    "none": "none",
}
"""Scheme -> how it is written."""

_MODE = {"width", "height", "fps"}
_KEYS = {"camera": _MODE | {"fourcc"}, "v4l2": _MODE | {"fourcc"}, "csi": _MODE, "file": {"pace"}, "mic": {"rate", "channels"}}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SIDE_MOST, _RATE_MOST_HZ = 16_384, 1_000
_SAMPLE_RATES_HZ, _CHANNELS_MOST = (4_000, 768_000), 64


@dataclass(frozen=True)
class CameraUri:
    """`text` is for people and logs: as it was given, without passwords. What was not asked for is None."""

    text: str
    kind: str
    """"v4l2", "csi", "stream" or "file"."""
    target: str = field(repr=False)
    """Path of the device or file, number of the CSI sensor, or the whole address of the stream."""
    width: int | None = None
    height: int | None = None
    rate_hz: float | None = None
    fourcc: str | None = None
    pace: bool = True
    """Of a file: at its own speed, or as fast as it is taken."""

    @property
    def asked(self) -> dict[str, Any]:
        """width, height, rate_hz, fourcc; None where nothing was asked."""
        return {"width": self.width, "height": self.height, "rate_hz": self.rate_hz, "fourcc": self.fourcc}


@dataclass(frozen=True)
class MicrophoneUri:
    """`name` is part of the device's name, None for the default one."""

    text: str
    name: str | None
    rate_hz: int | None = None
    channels: int | None = None


def parse_camera(text: str) -> CameraUri | None:
    """What `text` names; None for "none". Raises UsageError."""
    if text == "none":
        return None
    _check(text, "camera", "camera:0")
    head = _SCHEME.match(text)
    if head is None:
        return _file(text)
    scheme, rest = head[1].lower(), text[head.end() :]
    if scheme in ("http", "https", "rtsp"):
        return _stream(text)
    text = without_secrets(text)
    if scheme not in _KEYS or scheme in ("file", "mic"):
        raise UsageError(f"unknown camera {text!r}; {_nearest(scheme)}; a file with a colon in its name is ./NAME")
    path, options = _options(text, rest, scheme)
    if scheme == "camera":
        if not re.fullmatch(r"[0-9]{1,3}", path):
            raise UsageError(f"camera {text!r} names no number; write camera:0, or v4l2:///dev/v4l/by-id/NAME ('sage-edge devices' lists them)")
        return CameraUri(text, "v4l2", f"/dev/video{int(path)}", **_mode(text, options))
    if scheme == "csi":
        if not re.fullmatch(r"//[0-9]{1,2}", path):
            raise UsageError(f"camera {text!r} names no sensor; write csi://0")
        return CameraUri(text, "csi", str(int(path[2:])), **_mode(text, options))
    device = unquote(path[2:])
    if not path.startswith("///") or len(device) < 2 or "\0" in device:
        raise UsageError(f"camera {text!r} names no device; write v4l2:///dev/video0, with three slashes")
    return CameraUri(text, "v4l2", device, **_mode(text, options))


def parse_microphone(text: str) -> MicrophoneUri | None:
    """What `text` names; None for "none". Raises UsageError."""
    if text == "none":
        return None
    _check(text, "microphone", "mic:default")
    head = _SCHEME.match(text)
    if head is None or head[1].lower() != "mic":
        raise UsageError(f"unknown microphone {text!r}; write mic:default, mic:NAME (part of its name) or none")
    name, options = _options(text, text[head.end() :], "mic")
    name = unquote(name).strip()
    if not name:
        raise UsageError(f"microphone {text!r} has no name; write mic:default, or mic:NAME ('sage-edge devices' lists them)")
    rate_hz, channels = options.get("rate"), options.get("channels")
    return MicrophoneUri(
        text,
        None if name == "default" else name,
        None if rate_hz is None else _whole(text, "rate", rate_hz, *_SAMPLE_RATES_HZ),
        None if channels is None else _whole(text, "channels", channels, 1, _CHANNELS_MOST),
    )


def microphone_uri(name: str) -> str:
    """How a microphone of this name is written."""
    return "mic:" + name.replace("%", "%25").replace("?", "%3F")


def _check(text: str, what: str, example: str) -> None:
    if not text:
        raise UsageError(f"the {what} has no name; write {example}")
    if not text.isprintable():
        raise UsageError(f"{what} {without_secrets(text)!r} has characters that cannot be printed; write %XX for them")


def _file(text: str) -> CameraUri:
    if text.isdecimal():
        raise UsageError(f"unknown camera {text!r}; did you mean camera:{text}?")
    if re.match(r"/dev/(video|v4l/)", text):
        raise UsageError(f"unknown camera {text!r}; did you mean v4l2://{text}?")
    path, options = _options(text, text, "file")
    if not path:
        raise UsageError(f"camera {text!r} names no file; write FILE.mp4?pace=0")
    pace = options.get("pace", "1")
    if pace not in ("0", "1"):
        raise UsageError(f"{text!r}: pace is {pace!r}, must be 1 (at the speed of the video) or 0 (as fast as it goes)")
    return CameraUri(text, "file", path, pace=pace == "1")


def _stream(text: str) -> CameraUri:
    shown = without_secrets(text)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"camera {shown!r} is no address; write {CAMERAS['http']}, a number for a port, and %XX for marks in a password") from None
    if not host or " " in text:
        raise UsageError(f"camera {shown!r} names no host; write {CAMERAS[parts.scheme.lower()]}")
    return CameraUri(shown, "stream", text)


def _options(text: str, rest: str, scheme: str) -> tuple[str, dict[str, str]]:
    """What stands before the ? and the key=value pairs after it."""
    path, mark, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in query.split("&") if mark else ():
        key, equals, value = pair.partition("=")
        if key not in _KEYS[scheme]:
            near = difflib.get_close_matches(key, _KEYS[scheme], n=1)
            raise UsageError(f"{text!r}: unknown option {key!r}; " + (f"did you mean {near[0]}=?" if near else f"one of {_list(_KEYS[scheme])}"))
        if not equals or not value:
            raise UsageError(f"{text!r}: option {key} has no value; write {key}=VALUE, or leave it away")
        if key in options:
            raise UsageError(f"{text!r}: option {key} is there twice; keep one")
        options[key] = unquote(value)
    return path, options


def _mode(text: str, options: dict[str, str]) -> dict[str, Any]:
    """width, height, rate_hz, fourcc of a CameraUri, as far as they are given."""
    mode: dict[str, Any] = {side: _whole(text, side, options[side], 16, _SIDE_MOST) for side in ("width", "height") if side in options}
    if len(mode) == 1:
        raise UsageError(f"{text!r} gives {next(iter(mode))} alone; give width and height, or neither")
    if (rate := options.get("fps")) is not None:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", rate, re.ASCII) or not 0 < float(rate) <= _RATE_MOST_HZ:
            raise UsageError(f"{text!r}: fps is {rate!r}, must be more than 0 and at most {_RATE_MOST_HZ}")
        mode["rate_hz"] = float(rate)
    if (fourcc := options.get("fourcc")) is not None:
        if not re.fullmatch(r"[A-Za-z0-9 ]{4}", fourcc):
            raise UsageError(f"{text!r}: fourcc is {fourcc!r}, must be four letters or digits such as MJPG or YUYV")
        mode["fourcc"] = fourcc.upper()
    return mode


def _whole(text: str, key: str, value: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not least <= int(value) <= most:
        raise UsageError(f"{text!r}: {key} is {value!r}, must be a whole number from {least} to {most}")
    return int(value)


def _nearest(scheme: str) -> str:
    near = difflib.get_close_matches(scheme, CAMERAS, n=1)
    return f"did you mean {CAMERAS[near[0]]}?" if near else f"one of {', '.join(CAMERAS.values())}, FILE"


def _list(keys: set[str]) -> str:
    return ", ".join(f"{key}=" for key in sorted(keys))
