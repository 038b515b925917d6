"""Recording through PortAudio with libsage's callback: sounddevice brings the library, no Python runs when sound comes.

    device = find_microphone(None)                                                   # the default one
    capture = AudioCapture("float32", device.channels, device.rate_hz, capacity)
    recording = Recording(device, device.rate_hz, device.channels, capture)          # sound comes into `capture` until recording.close()

PortAudio is one for the whole process and for one thread at a time, so what opens and closes waits its turn here. It reads its list of devices
when it begins, so `refresh` ends it and begins again; that closes every stream in the process, so it is only for when there is none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SourceError
from ..native import AudioCapture
from .pulse import pulse_sources

PULSE = "PulseAudio"
"""`Device.host` of a sound server's sources."""
LATENCY_S = 0.1
"""Sound that the device may hold back: what is lost when the process does not run for longer."""
BLOCK_HZ = 50
"""Callbacks a second."""
MUTED_S = 0.5
"""What people are told meanwhile is lost on stderr, so no longer than opening takes where it works."""
_SERVER_CHANNELS = 9
"""A device that claims as many channels is no microphone but a sound server, which mixes them itself."""
_BUSY, _RATE, _CHANNELS, _GONE = -9985, -9997, -9998, -9996
_USERS_SOURCE = os.environ.get("PULSE_SOURCE")
_LOCK = threading.Lock()
_open_now: list[Recording] = []


@dataclass(frozen=True)
class Device:
    """Something to record from. `name` is for people and what `mic:NAME` is looked for in; `host` is the system behind it."""

    name: str
    host: str
    rate_hz: int
    """Its own rate; what `default` says of itself where nobody knows better."""
    channels: int
    """As many as are recorded; their mean is taken."""
    default: bool
    index: int
    """PortAudio's number, until the next `refresh`."""
    source: str | None = None
    """Of a sound server's source: the server's name for it."""


def microphones() -> list[Device]:
    """All there are, the default one first. Raises SourceError when PortAudio is not installed."""
    sd = _sounddevice()
    with _turn("list the microphones"):
        listed, hosts = list(sd.query_devices()), sd.query_hostapis()
        default = sd._lib.Pa_GetDefaultInputDevice()
    found = [
        Device(
            str(entry["name"]),
            str(hosts[entry["hostapi"]]["name"]),
            round(entry["default_samplerate"]),
            1 if entry["max_input_channels"] >= _SERVER_CHANNELS else min(entry["max_input_channels"], 2),
            index == default,
            index,
        )
        for index, entry in enumerate(listed)
        if entry["max_input_channels"] > 0
    ]
    server = next((device for device in found if device.name == "pulse"), None)
    if server is not None:
        sources = [source for source in pulse_sources() if not source.monitor]
        if any(source.default for source in sources):
            found = [replace(device, default=False) for device in found if device.name != "default"]  # one and the same
        found += [
            Device(source.description, PULSE, source.rate_hz, min(source.channels, 2), source.default, server.index, source.name)
            for source in sources
        ]
    return sorted(found, key=lambda device: not device.default)


def find_microphone(name: str | None) -> Device:
    """The one whose name contains `name`, whatever the case; None: the default one.

    A whole name goes before a part of one, a sound server's source before the hardware that the server holds. Raises SourceError: there is none
    (lists what there is), or several (lists them).
    """
    found = microphones()
    if not found:
        raise SourceError("no microphone is there; plug one in, start the sound server, or run with --mic none")
    if name is None:
        return found[0]
    wanted = name.casefold()
    matches = [device for device in found if wanted in (device.name.casefold(), (device.source or "").casefold())]
    matches = matches or [device for device in found if wanted in device.name.casefold() or wanted in (device.source or "").casefold()]
    matches = [device for device in matches if device.source is not None] or matches
    if not matches:
        raise SourceError(f"no microphone is called {name!r}; there is {_names(found)}")
    if len(matches) > 1:
        raise SourceError(f"{name!r} is part of {len(matches)} names: {_names(matches)}; write more of the one you mean")
    return matches[0]


class Recording:
    """One open stream. The device's sound goes to `capture`, which lives as long as the stream does."""

    def __init__(self, device: Device, rate_hz: int, channels: int, capture: AudioCapture, pinned: bool = True) -> None:
        """Open and start; unless `pinned`, a sound server takes the source that is its default then. Raises SourceError: busy, gone, a rate or
        number of channels that it does not have."""
        sd = _sounddevice()
        self.device, self._capture = device, capture
        self._lib, stream = sd._lib, sd._ffi.new("PaStream **")
        parameters = sd._ffi.new("PaStreamParameters *", (device.index, channels, self._lib.paFloat32, LATENCY_S, sd._ffi.NULL))
        callback, user = sd._ffi.cast("PaStreamCallback *", capture.callback), sd._ffi.cast("void *", capture.pointer)
        flags = self._lib.paClipOff | self._lib.paDitherOff
        what = f"microphone {device.name!r}"
        with _turn(f"open {what}"), _muted():
            _choose_source(device.source if pinned else None)
            code = self._lib.Pa_OpenStream(stream, parameters, sd._ffi.NULL, rate_hz, max(1, rate_hz // BLOCK_HZ), flags, callback, user)
            if not code:
                self._stream = stream[0]
                code = self._lib.Pa_StartStream(self._stream)
                if code:
                    self._lib.Pa_CloseStream(self._stream)
            reason = _reason(sd, code) if code else ""
        if code:
            raise SourceError(refusal(device, code, reason, rate_hz, channels))
        self._open = True
        _open_now.append(self)

    @property
    def active(self) -> bool:
        """False when the stream has ended by itself: the sound server or the device is gone."""
        return self._open and bool(self._lib.Pa_IsStreamActive(self._stream) == 1)

    def close(self) -> None:
        """Stop and release; again does nothing. May wait for a sound server that hangs, for ever."""
        if self._open:
            with _turn("close the microphone", threading.TIMEOUT_MAX):
                self._lib.Pa_AbortStream(self._stream)
                self._lib.Pa_CloseStream(self._stream)
            self._open = False
            _open_now.remove(self)


def refresh() -> bool:
    """Read the list of devices again, unless a `Recording` is open: it would be closed, as would other streams of PortAudio in this process."""
    sd = _sounddevice()
    with _turn("list the microphones"):
        if _open_now:
            return False
        while sd._initialized:
            sd._terminate()
        sd._initialize()
    return True


def leave_open() -> None:
    """Let the process end without PortAudio's own cleaning up, which would wait for a sound server that hangs."""
    import atexit

    atexit.unregister(_sounddevice()._exit_handler)


def refusal(device: Device, code: int, reason: str, rate_hz: int, channels: int) -> str:
    """PortAudio's `code` and words for not opening `device`, as one line that says what to do."""
    what = f"microphone {device.name!r}"
    if code == _RATE:
        return f"{what} has no rate of {rate_hz} Hz; leave ?rate= away for its own, {device.rate_hz} Hz"
    if code == _CHANNELS:
        return f"{what} has no {channels} channels; leave ?channels= away for {device.channels}"
    if code == _BUSY or "busy" in reason.lower():
        return f"{what} is busy; close the program that records from it"
    if code == _GONE:
        return f"{what} has gone; plug it in again"
    return f"{what} cannot be opened: {reason.lower().rstrip('.')} [PortAudio {code}]; 'sage-edge devices' lists what there is"


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise SourceError("microphones need sounddevice: pip install sounddevice") from None
    except OSError as error:
        raise SourceError(f"microphones need PortAudio ({str(error).rstrip('.')}): sudo apt install libportaudio2") from None
    return sounddevice


@contextlib.contextmanager
def _turn(what: str, timeout_s: float = 20.0) -> Iterator[None]:
    if not _LOCK.acquire(timeout=timeout_s):
        raise SourceError(f"cannot {what}: the sound server has not answered for {timeout_s:g} s; restart it")
    try:
        yield
    except _sounddevice().PortAudioError as error:
        raise SourceError(f"cannot {what}: {error.args[0]}; 'sage-edge doctor' says what works here") from None
    finally:
        _LOCK.release()


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Nothing on stderr meanwhile, but for `MUTED_S` at most: it is the whole process's, and a sound server may hang."""
    # ALSA and PortAudio print a dozen lines of their own for every device that cannot be opened.
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    again = threading.Lock()

    def speak() -> None:
        if again.acquire(blocking=False):
            os.dup2(kept, 2)
            os.close(kept)

    timer = threading.Timer(MUTED_S, speak)
    timer.daemon = True
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        speak()


def _choose_source(source: str | None) -> None:
    # The one way through ALSA's plugin to libpulse. Changed as rarely as can be: other threads may be reading the environment.
    wanted = source or _USERS_SOURCE
    if os.environ.get("PULSE_SOURCE") != wanted:
        if wanted is None:
            del os.environ["PULSE_SOURCE"]
        else:
            os.environ["PULSE_SOURCE"] = wanted


def _reason(sd: Any, code: int) -> str:
    text = sd._ffi.string(sd._lib.Pa_GetErrorText(code)).decode(errors="replace")
    info = sd._lib.Pa_GetLastHostErrorInfo()
    if code == sd._lib.paUnanticipatedHostError and info.errorText != sd._ffi.NULL:
        text = sd._ffi.string(info.errorText).decode(errors="replace") or text
    return str(text)


def _names(devices: list[Device]) -> str:
    alike = len({device.name for device in devices}) < len(devices)
    return ", ".join(repr(device.source if alike and device.source else device.name) for device in devices)
