"""A microphone without hardware: a real PulseAudio in user space whose sources are pipes, each fed by a process of its own.

    with PulseServer() as server, server.microphone("pipemic", 16_000) as pipe:      # PULSE_SERVER is set meanwhile
        pipe.play(samples)                                                           # int16 [n]: the pipe carries them, silence before and after

A pipe is written in real time by another process, so that holding this interpreter does not stop the microphone. Run as a program
(`python pulse.py FIFO RATE_HZ CHANNELS`) this file is that process.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = [name for name in ("pulseaudio", "pactl") if shutil.which(name) is None]
MISSING += [] if ctypes.util.find_library("portaudio") else ["libportaudio2"]
_PLUGIN = "alsa-lib/libasound_module_pcm_pulse.so"  # ** of glob would follow links that lead back to themselves, as LLVM has them
MISSING += [] if glob.glob(f"/usr/lib*/{_PLUGIN}") + glob.glob(f"/usr/lib*/*/{_PLUGIN}") else ["libasound2-plugins"]
NEEDED = "needs a user-space audio server: apt-get install pulseaudio pulseaudio-utils libportaudio2 libasound2-plugins"
_DEADLINE_S = 30.0
_PIECE_S = 0.01


def wait_for(what: Callable[[], Any], why: str, deadline_s: float = _DEADLINE_S) -> Any:
    """The first true value of `what()`, asked again and again; AssertionError with `why` when the deadline passes."""
    end_s = time.monotonic() + deadline_s
    while not (value := what()):
        assert time.monotonic() < end_s, f"waited {deadline_s:g} s: {why}"
        time.sleep(0.01)
    return value


def as_hardware(*threads: int) -> None:
    """Let no load of this machine hold up what stands for a device, as none holds up a real one. Where that is not allowed, it may."""
    for thread in threads:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))


class Pipe:
    """One source of the server and the process that feeds it, int16 at `rate_hz`."""

    def __init__(self, server: PulseServer, name: str, rate_hz: int, channels: int, description: str | None) -> None:
        self.server, self.name, self.rate_hz, self.channels = server, name, rate_hz, channels
        self.fifo = server.folder / f"{name}.fifo"
        self.fifo.unlink(missing_ok=True)  # left by a server that was killed
        spec = ("format=s16le", f"rate={rate_hz}", f"channels={channels}", f"source_properties=device.description={description or name}")
        self.module = server.load("module-pipe-source", f"source_name={name}", f"file={self.fifo}", *spec)
        command = (sys.executable, __file__, str(self.fifo), str(rate_hz), str(channels))
        self._feeder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        as_hardware(self._feeder.pid)
        assert self._feeder.stdout is not None
        assert self._feeder.stdout.readline() == "feeding\n"

    def play(self, samples: NDArray[np.int16]) -> None:
        """Send `samples`, int16 [n] or [n, channels], after the silence that is going on; returns at once."""
        file = self.server.folder / f"{self.name}.{time.monotonic_ns()}"
        samples.astype("<i2").tofile(file)
        assert self._feeder.stdin is not None
        print(file, file=self._feeder.stdin, flush=True)

    def pause(self, paused: bool) -> None:
        """Stop, or go on, sending anything: to the server, a device that hangs."""
        os.kill(self._feeder.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def unplug(self) -> None:
        """Take the source away from the server."""
        self.server.pactl("unload-module", self.module)
        self.close()

    def close(self) -> None:
        if self._feeder.poll() is None:
            self._feeder.kill()
        self._feeder.wait()
        for end in (self._feeder.stdin, self._feeder.stdout):
            if end is not None:
                end.close()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PulseServer:
    """A server of its own on a socket of its own; `PULSE_SERVER` names it while it is entered."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pulse-"))  # sockets have short names only
        self.socket = self.folder / "pulse.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[str, str | None] = {}

    def start(self) -> None:
        """Run it, and wait until it answers; also after `kill`."""
        self.socket.unlink(missing_ok=True)
        script = self.folder / "server.pa"
        script.write_text(f".fail\nload-module module-native-protocol-unix auth-anonymous=1 socket={self.socket}\n")
        command = ["pulseaudio", "-n", "-F", str(script), "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--realtime=no"]
        command += ["--high-priority=no", f"--log-target=file:{self.folder / 'log'}"]
        own = {**os.environ, "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}
        self._process = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        as_hardware(self._process.pid)
        wait_for(lambda: self._pactl("info").returncode == 0, f"pulseaudio does not answer; see {self.folder / 'log'}")

    def load(self, *module: str) -> str:
        """Load a module, wait for it; its number."""
        return self.pactl("load-module", *module).strip()

    def pactl(self, *command: str) -> str:
        done = self._pactl(*command)
        assert done.returncode == 0, f"pactl {' '.join(command)}: {done.stderr}"
        return done.stdout

    def microphone(self, name: str, rate_hz: int, channels: int = 1, description: str | None = None) -> Pipe:
        """A new source, the default one from now on."""
        pipe = Pipe(self, name, rate_hz, channels, description)
        self.pactl("set-default-source", name)
        return pipe

    def freeze(self, frozen: bool) -> None:
        """Stop the server where it stands, or let it go on: it keeps its sockets and answers nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """What a crash is to its clients."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _pactl(self, *command: str) -> subprocess.CompletedProcess[str]:
        own = {**os.environ, "PULSE_SERVER": f"unix:{self.socket}"}
        return subprocess.run(["pactl", *command], env=own, capture_output=True, text=True, timeout=_DEADLINE_S)

    def __enter__(self) -> PulseServer:
        self._before = {name: os.environ.get(name) for name in ("PULSE_SERVER", "PULSE_COOKIE")}
        os.environ |= {"PULSE_SERVER": f"unix:{self.socket}", "PULSE_COOKIE": str(self.folder / "cookie")}
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for name, value in self._before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(self.folder, ignore_errors=True)


def _feed(fifo: str, rate_hz: int, channels: int) -> None:
    """Write to `fifo` in real time: the files that stdin names, one after the other, silence while there is none."""
    import queue
    import threading

    files: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: [files.put(line.strip()) for line in sys.stdin], daemon=True).start()
    out = os.open(fifo, os.O_WRONLY)
    piece = round(rate_hz * _PIECE_S)
    silence, rest = np.zeros(piece * channels, "<i2"), np.zeros(0, "<i2")
    os.write(out, silence.tobytes())
    print("feeding", flush=True)
    begin_s, written = time.monotonic(), 0
    while True:
        if not len(rest) and not files.empty():
            rest = np.fromfile(files.get(), "<i2")
        samples, rest = (rest[: len(silence)], rest[len(silence) :]) if len(rest) else (silence, rest)
        os.write(out, np.pad(samples, (0, len(silence) - len(samples))).tobytes())
        written += piece
        due_s = begin_s + written / rate_hz - time.monotonic()
        if due_s < -0.5:  # it was stopped for a while: what a device did not record is lost
            begin_s -= due_s
        time.sleep(max(0.0, due_s))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the source is gone
        _feed(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
