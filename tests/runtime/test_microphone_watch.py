"""What a microphone's watch makes of silence and of what a device lost, in simulated time: no sound server, no PortAudio."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.runtime.native.capture import INPUT_OVERFLOW
from sage_edge.runtime.sources import microphone as watched
from sage_edge.runtime.sources.microphone import PortAudioMicrophone
from sage_edge.runtime.sources.portaudio import Device
from sage_edge.runtime.sources.uri import parse_microphone

RATE_HZ = 16_000
CALL_NS = 20_000_000
LOOK_NS = round(watched._LOOK_S * 1e9)


class Told:
    """A clock that is told the time."""

    t_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.t_ns


class Given:
    """A recording whose sound is fed by the test."""

    active = True

    def __init__(self, *_: object, **__: object) -> None: ...

    def close(self) -> None: ...


class Bench:
    """A microphone on a clock, opened, without its watching thread: the test is that thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watched, "Recording", Given)
        uri = parse_microphone("mic:default")
        assert uri is not None
        self.clock = Told()
        self.microphone = PortAudioMicrophone(uri, self.clock)
        self.microphone._open(Device("bench", "ALSA", RATE_HZ, 1, True, 0))
        [self.take] = self.microphone._takes

    def hear(self, seconds: float, flags: int = 0) -> None:
        """Sound for so long, looked after as often as in earnest."""
        samples = np.zeros(CALL_NS * RATE_HZ // 1_000_000_000, np.float32)
        for i in range(round(seconds * 1e9) // CALL_NS):
            self.clock.t_ns += CALL_NS
            self.take.capture.feed(samples, self.clock.t_ns, flags)
            if i % (LOOK_NS // CALL_NS) == 0:
                self.look()

    def look(self) -> None:
        self.microphone._look_after(self.take)

    def told(self) -> list[str]:
        return [notice.what for notice in self.microphone.notices()]


@pytest.mark.parametrize("stood_s", [0.9, 2.5, 60.0])
def test_a_process_that_stood_still_does_not_blame_the_microphone(monkeypatch: pytest.MonkeyPatch, stood_s: float) -> None:
    bench = Bench(monkeypatch)
    bench.hear(1.0)
    for _ in range(3):
        bench.clock.t_ns += LOOK_NS + round(stood_s * 1e9)
        bench.look()
        bench.clock.t_ns += LOOK_NS
        bench.look()
        bench.hear(1.0)
    assert bench.told() == ["microphone_open"]
    assert bench.microphone._now is bench.take


@pytest.mark.parametrize("late_s", [0.0, 1.5])
def test_silence_is_a_stall_and_then_the_end_however_late_it_is_looked_at(monkeypatch: pytest.MonkeyPatch, late_s: float) -> None:
    bench = Bench(monkeypatch)
    bench.hear(1.0)
    looks = 0
    while bench.microphone._now is not None:
        bench.clock.t_ns += LOOK_NS + round(late_s * 1e9)
        bench.look()
        looks += 1
        assert looks * watched._LOOK_S < 3 * watched.STALL_S
    assert bench.told() == ["microphone_open", "microphone_stalled", "microphone_gone"]


@pytest.mark.parametrize("read_before", [False, True])
def test_what_the_device_lost_at_its_end_is_counted_also_when_its_last_sound_was_read_before(
    monkeypatch: pytest.MonkeyPatch, read_before: bool
) -> None:
    bench = Bench(monkeypatch)
    bench.hear(1.0)
    bench.microphone.read()
    bench.hear(0.1, INPUT_OVERFLOW)
    if read_before:
        bench.microphone.read()
    bench.microphone._lose(bench.take, "has ended")
    bench.microphone.read()
    assert bench.microphone.counts.overruns == bench.take.capture.stats().input_overflows == 5
    assert bench.microphone.counts.samples == bench.take.capture.written
