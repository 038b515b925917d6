"""A microphone through a real sound server: every sample, when it was, and what is said and done when it stops."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pulse import MISSING, NEEDED, PulseServer, as_hardware, wait_for

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.notice import Notice
from sage_edge.runtime.sources import AudioEvent
from sage_edge.runtime.sources import microphone as watched
from sage_edge.runtime.sources.microphone import PortAudioMicrophone, open_microphone
from sage_edge.runtime.sources.steady import PERIOD_NS

pytestmark = pytest.mark.skipif(bool(MISSING), reason=NEEDED)

HOLD_US = 500_000


@pytest.fixture
def server() -> Iterator[PulseServer]:
    with PulseServer() as server:
        yield server


def opened(text: str) -> PortAudioMicrophone:
    microphone = open_microphone(text, MonotonicClock())
    assert isinstance(microphone, PortAudioMicrophone)
    microphone.start()
    return microphone


class Listener:
    """Reads a microphone as the live loop does, and its capture beside it: all events, all samples of the device, all notices."""

    def __init__(self, microphone: PortAudioMicrophone) -> None:
        self.microphone = microphone
        self.events: list[AudioEvent] = []
        self.raw: list[NDArray[np.float32]] = []
        self.notices: list[Notice] = []
        self.said: list[str] = []
        self._at = 0

    def listen(self) -> bool:
        if self.microphone._takes:
            capture = self.microphone._takes[0].capture
            if (count := capture.written - self._at) > 0:
                samples = np.empty(count, np.float32)
                assert capture.read(self._at, samples) == count
                self.raw.append(samples)
                self._at += count
        self.events += self.microphone.read()
        self.notices += self.microphone.notices()
        self.said = [notice.what for notice in self.notices]
        return bool(self.events)

    def until(self, state: str) -> None:
        wait_for(lambda: (self.listen() or True) and self.microphone.state == state, f"the microphone never became {state}; {self.said}")

    def hears(self, seconds: float) -> None:
        have = self.heard_s
        wait_for(lambda: (self.listen() or True) and self.heard_s >= have + seconds, f"no sound; {self.said}")

    @property
    def heard_s(self) -> float:
        return sum(len(event.samples) for event in self.events) / 16_000

    def gaps_ms(self) -> list[float]:
        """Between events that do not touch; a negative one would be an overlap."""
        return [gap for a, b in pairwise(self.events) if (gap := (b.t_ns - a.t_ns) / 1e6 - len(a.samples) / 16)]


def noise(seconds: float, rate_hz: int = 16_000) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-32_768, 32_768, round(seconds * rate_hz)).astype(np.int16)


def found_at(played: NDArray[np.int16], raw: list[NDArray[np.float32]]) -> list[int]:
    """Where all of `played` lies in what was recorded, bit for bit."""
    recorded = np.concatenate(raw) * 32_768
    starts = np.flatnonzero(recorded[: max(0, len(recorded) - len(played) + 1)] == played[0])
    return [int(k) for k in starts if np.array_equal(recorded[k : k + len(played)], played)]


def record_while_held(server: PulseServer, holds: int) -> None:
    """Hold the interpreter for 500 ms again and again while sound comes: nothing may be missing, nothing changed."""
    with server.microphone("pipemic", 16_000) as pipe:
        before = set(os.listdir("/proc/self/task"))
        microphone = opened("mic:pipemic")
        as_hardware(*map(int, set(os.listdir("/proc/self/task")) - before))  # what holds the callback up here is the interpreter, if anything
        ear = Listener(microphone)
        wait_for(ear.listen, "no sound")
        played = noise(0.5 * holds + 0.3)
        pipe.play(played)
        hold = ctypes.PyDLL(None).usleep  # PyDLL keeps the interpreter's lock while it sleeps
        for _ in range(holds):
            hold(HOLD_US)
            ear.listen()
        wait_for(lambda: (ear.listen() or True) and len(found_at(played, ear.raw)) == 1, "what was played is not in what was recorded, bit for bit")
        ear.listen()
        microphone.close()
        leaps = 0 if microphone._steady is None else microphone._steady.gaps
        assert microphone.counts.overruns == 0, f"{microphone._losses} samples or overflows, {leaps} leaps of the clock, gaps of {ear.gaps_ms()} ms"
        assert ear.gaps_ms() == []
        assert microphone.counts.samples == sum(map(len, ear.raw))


def test_no_sample_is_lost_or_changed_while_the_interpreter_is_held(server: PulseServer) -> None:
    record_while_held(server, 2)


@pytest.mark.slow
def test_no_sample_is_lost_or_changed_while_the_interpreter_is_held_twenty_times(server: PulseServer) -> None:
    record_while_held(server, 20)


def test_sound_comes_at_16_khz_in_one_piece_and_is_never_stamped_before_it_was_played(server: PulseServer) -> None:
    with server.microphone("headset", 48_000, 2, description="USB_Headset") as pipe:
        microphone = opened("mic:usb_head")
        ear = Listener(microphone)
        wait_for(ear.listen, "no sound")
        assert microphone.granted == {"device": "USB_Headset", "rate_hz": 48_000, "channels": 2}
        tone = np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000)
        begin_ns = time.monotonic_ns()
        pipe.play(np.stack([20_000 * tone, 10_000 * tone], 1).astype(np.int16))
        ear.hears(1.2)
        microphone.close()
        assert ear.gaps_ms() == []
        sound = np.concatenate([event.samples for event in ear.events])
        loud = np.flatnonzero(np.abs(sound) > 0.05)
        assert 0.49 < (loud[-1] - loud[0]) / 16_000 < 0.51
        assert abs(np.abs(sound).max() - 15_000 / 32_768) < 0.01  # the mean of both channels
        stamp_ns = ear.events[0].t_ns + int(loud[0]) * PERIOD_NS
        assert begin_ns - 100_000_000 < stamp_ns < time.monotonic_ns()


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(server: PulseServer) -> None:
    pipe = server.microphone("pipemic", 16_000)
    microphone = opened("mic:pipemic")
    ear = Listener(microphone)
    ear.until("live")
    ear.hears(0.6)
    pipe.close()
    server.kill()
    ear.until("gone")
    server.start()
    with server.microphone("pipemic", 44_100):
        ear.until("live")
        ear.hears(0.6)
        microphone.close()
    assert ear.said == ["microphone_open", "microphone_gone", "microphone_changed", "microphone_open"]
    assert microphone.granted is not None
    assert microphone.granted["rate_hz"] == 44_100
    assert microphone.counts.reopened == 1
    assert microphone.counts.overruns == len(ear.gaps_ms()) == 1
    assert min(ear.gaps_ms()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["suspended", "silent"])
def test_a_microphone_that_falls_silent_stalls_is_given_up_and_comes_back(server: PulseServer, way: str) -> None:
    with server.microphone("pipemic", 16_000) as pipe:

        def stop(stopped: bool) -> None:
            if way == "silent":
                pipe.pause(stopped)
            else:
                server.pactl("suspend-source", "pipemic", str(int(stopped)))

        microphone = opened("mic:pipemic")
        ear = Listener(microphone)
        ear.until("live")
        ear.hears(0.6)
        stop(True)
        ear.until("stalled")
        ear.until("gone")
        stop(False)
        ear.until("live")
        ear.hears(0.6)
        microphone.close()
        assert ear.said == ["microphone_open", "microphone_stalled", "microphone_gone", "microphone_open"]
        assert microphone.counts.reopened >= 1
        assert min(ear.gaps_ms()) > 0


@pytest.mark.slow
def test_a_short_break_is_a_gap_in_the_stamps_and_no_reason_to_open_it_again(server: PulseServer) -> None:
    with server.microphone("pipemic", 16_000) as pipe:
        microphone = opened("mic:pipemic")
        ear = Listener(microphone)
        ear.until("live")
        ear.hears(1.0)
        pipe.pause(True)
        begin_s = time.monotonic()
        wait_for(lambda: (ear.listen() or True) and time.monotonic() > begin_s + 0.7, "time stands still")
        pipe.pause(False)
        wait_for(lambda: (ear.listen() or True) and ear.gaps_ms(), "the break was never found")
        microphone.close()
        (gap_ms,) = ear.gaps_ms()
        assert gap_ms > 500
        assert microphone.counts.overruns == 1
        assert microphone.counts.reopened == 0


@pytest.mark.slow
def test_another_microphone_never_takes_the_place_of_the_one_that_was_named(server: PulseServer) -> None:
    with server.microphone("other", 16_000), server.microphone("wanted", 16_000) as pipe:
        microphone = opened("mic:wanted")
        ear = Listener(microphone)
        ear.until("live")
        pipe.unplug()
        ear.until("gone")
        with server.microphone("wanted", 16_000):
            ear.until("live")
            microphone.close()
        assert ear.said == ["microphone_open", "microphone_gone", "microphone_open"]


def test_whatever_its_watch_runs_into_it_is_gone_and_tried_again(server: PulseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def fail() -> None:
        tries.append("again")
        raise NativeError("out of\nmemory")

    with server.microphone("pipemic", 16_000):
        microphone = opened("mic:pipemic")
        ear = Listener(microphone)
        ear.until("live")
        monkeypatch.setattr(watched, "refresh", fail)
        monkeypatch.setattr(watched, "recorded_number", lambda: {}["sources"])
        monkeypatch.setattr(watched, "_SOURCE_S", 0.0)
        ear.until("gone")
        wait_for(lambda: tries, "nobody tried")
        monkeypatch.undo()
        ear.until("live")
        ear.hears(0.3)
        microphone.close()
    failed = [notice.detail for notice in ear.notices if "failed" in notice.detail]
    assert failed == [f"mic:pipemic: failed: {why}; opening it again" for why in ("KeyError: 'sources'", "NativeError: out of memory")]
    assert microphone.counts.reopened == 1


@pytest.mark.slow
def test_the_default_microphone_may_move_and_says_so(server: PulseServer) -> None:
    with server.microphone("other", 16_000), server.microphone("first", 16_000) as pipe:
        microphone = opened("mic:default")
        ear = Listener(microphone)
        ear.until("live")
        wait_for(lambda: microphone._now and microphone._now.number is not None, "nobody asked the server which source it is")
        pipe.unplug()
        wait_for(lambda: (ear.listen() or True) and "microphone_changed" in ear.said, f"it says nothing: {ear.said}")
        ear.hears(0.5)
        assert microphone.state == "live"
        microphone.close()


_HANGS = """
import sys, time
sys.path.insert(0, {folder!r})
from pulse import PulseServer, wait_for
from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.sources.microphone import open_microphone
with PulseServer() as server, server.microphone("pipemic", 16_000):
    microphone = open_microphone("mic:pipemic", MonotonicClock())
    microphone.start()
    wait_for(microphone.read, "no sound")
    server.freeze(True)
    wait_for(lambda: (microphone.read() or True) and microphone.state == "gone", "it was never given up")
    print("gone", file=sys.stderr, flush=True)
    microphone.close()
print("closed")
print("closed", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_neither_close_nor_the_end_of_the_program_nor_what_it_says() -> None:
    program = _HANGS.format(folder=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
    assert done.stderr.splitlines()[-2:] == ["gone", "closed"]
