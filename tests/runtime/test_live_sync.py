"""Sound and picture stay in step, however long: a microphone whose clock is off, through libsage's clock, the resampler, the loop and the session.

The sound is a level that says when it was made, so the level of a hop is a time; the picture carries its time in its pixels. Both come out of
the estimates: nothing of the loop's insides is looked at.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from feeding import in_step
from numpy.typing import NDArray

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.clock import SimulatedClock
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.live_devices import run_live_devices
from sage_edge.runtime.notice import Notice, Status
from sage_edge.runtime.session import Session
from sage_edge.runtime.sources.simulated import SimulatedCamera, SimulatedMicrophone
from sage_edge.runtime.ticks import first_sample

NS = 1_000_000_000
START = 500 * NS
RAMP_S, LOW, HIGH = 64.0, 0.1, 0.9


def level(t_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """From LOW to HIGH in RAMP_S, again and again."""
    return np.asarray(LOW + (HIGH - LOW) / RAMP_S * ((t_ns - START) / NS % RAMP_S))


def picture(t_ns: int) -> NDArray[np.uint8]:
    pixels = np.full((48, 64, 3), 90, np.uint8)
    pixels[0, :8, 0] = np.frombuffer(np.int64(t_ns).tobytes(), np.uint8)
    return pixels


class Clockface:
    """Reads the time from a picture and says it in the box: x is in seconds since START."""

    score, track = 1.0, 1
    box = (0.0, 0.0, 48.0, 48.0)

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> Clockface:
        self.box = ((int(np.frombuffer(pixels[0, :8, 0].tobytes(), np.int64)[0]) - START) / NS, 0.0, 48.0, 48.0)
        return self


class Errors:
    """A sink that compares, hop by hop, when the sound was made with where it lies, and the same for the picture; ms."""

    spec = "errors:"

    def __init__(self) -> None:
        self.sound_ms: list[float] = []
        self.picture_ms: list[float] = []
        self.drift_ppm: list[float | None] = []

    def start(self, hello: dict[str, object]) -> None: ...

    def write(self, estimate: Estimate) -> None:
        if estimate.face is None or estimate.face.box is None or estimate.age_ms is None or len(estimate.trail) != 15:
            return
        tick = round((estimate.trail[0][0] - START) * 30 / NS)
        low, high = first_sample(tick) / 16_000, first_sample(tick + 15) / 16_000  # when the hop's samples should have been made
        if not 0.5 < low % RAMP_S < high % RAMP_S < RAMP_S - 0.5 or low < 10:  # near where the ramp falls back; before the clock has settled
            return
        # the mean square of a ramp over a length d about its middle m, of slope s, is m^2 + (s d)^2 / 12
        slope, power = (HIGH - LOW) / RAMP_S, 10 ** (estimate.audio.rms_dbfs / 10)
        middle = math.sqrt(power - (slope * (high - low)) ** 2 / 12)
        self.sound_ms.append(1000 * ((middle - LOW) / slope - (low + high) / 2 % RAMP_S))
        self.picture_ms.append(1000 * estimate.face.box[0] - ((estimate.t_ns - START) / 1e6 - estimate.age_ms))
        self.drift_ppm.append(None if estimate.live is None else estimate.live.drift_ppm)

    def notice(self, notice: Notice) -> None: ...

    def status(self, status: Status) -> None: ...

    def close(self) -> None: ...


def errors(bundle: Bundle, seconds: float, drift_ppm: float, rate_hz: int) -> Errors:
    clock, kept = SimulatedClock(START), Errors()
    camera = SimulatedCamera(clock, picture)
    microphone = SimulatedMicrophone(clock, level, rate_hz=rate_hz, drift_ppm=drift_ppm)
    camera.start()
    microphone.start()
    with Session(bundle, precision="fp32", threads=1, faces=Clockface(), hop_thread=True) as session:
        summary = run_live_devices(camera, microphone, in_step(session), [kept], clock=clock, seconds=seconds)
    assert summary.drops.audio_overruns == summary.drops.frames_stale == 0
    return kept


def check(kept: Errors, seconds: float, drift_ppm: float) -> None:
    assert len(kept.sound_ms) > 1.8 * (seconds - 12)
    apart = np.abs(np.array(kept.sound_ms) - np.array(kept.picture_ms))[:-1]  # the end of the last hop's sound had not come yet
    print(f"{seconds:.0f} s at {drift_ppm:+.0f} ppm: sound against picture p50 {np.median(apart):.2f} ms, most {apart.max():.2f} ms")
    assert apart.max() < 20
    late = [drift for drift in kept.drift_ppm[len(kept.drift_ppm) // 2 :] if drift is not None]
    assert late[-1] == pytest.approx(drift_ppm, abs=30)


@pytest.mark.parametrize("drift_ppm", [0.0, -200.0])
def test_drift_does_not_take_sound_from_picture(drift_ppm: float, bundle: Bundle) -> None:
    check(errors(bundle, 80, drift_ppm, 48_000), 80, drift_ppm)


@pytest.mark.slow
def test_an_hour_of_drift_does_not_take_sound_from_picture(bundle: Bundle) -> None:
    check(errors(bundle, 3600, 200.0, 16_000), 3600, 200.0)
