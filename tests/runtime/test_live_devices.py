"""The loop over devices, on a simulated clock: newest frames, all sound, estimates on time whatever is silent, and a word about every change."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from feeding import in_step
from numpy.typing import NDArray

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.clock import SimulatedClock
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.live_devices import QUIET_S, WAIT_MS, DeviceSummary, run_live_devices
from sage_edge.runtime.notice import WHATS, Notice, Status
from sage_edge.runtime.session import Session
from sage_edge.runtime.sinks import SinkClosed
from sage_edge.runtime.smooth_tracks import SmoothTracks
from sage_edge.runtime.smoothing import Smoothing, one_euro
from sage_edge.runtime.sources import FrameEvent, simulated, waiting
from sage_edge.runtime.sources.simulated import Fault, SimulatedCamera, SimulatedMicrophone
from sage_edge.runtime.stages import Histogram
from sage_edge.runtime.thermal import Thermometer

NS = 1_000_000_000
START = 1_000 * NS
TICK_NS = NS / 30


class Kept:
    """A sink that keeps everything."""

    spec = "kept:"

    def __init__(self) -> None:
        self.hellos: list[dict[str, Any]] = []
        self.estimates: list[Estimate] = []
        self.notices_: list[Notice] = []
        self.statuses: list[Status] = []
        self.closed = 0

    def start(self, hello: dict[str, Any]) -> None:
        self.hellos.append(hello)

    def write(self, estimate: Estimate) -> None:
        self.estimates.append(estimate)

    def notice(self, notice: Notice) -> None:
        self.notices_.append(notice)

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Box:
    """A face in the middle of every frame; looking for it takes `busy_s` of simulated time."""

    clock: SimulatedClock
    busy_s: float = 0.0
    box: tuple[float, float, float, float] = (8.0, 0.0, 48.0, 48.0)
    score: float = 1.0
    track: int = 1
    seen: list[int] = field(default_factory=list)

    def find(self, pixels: NDArray[np.uint8], format: str, t_ns: int) -> Box:
        self.clock.sleep(self.busy_s)
        self.seen.append(t_ns)
        return self


PICTURES = np.random.default_rng(0).integers(40, 255, (64, 48, 64, 3), np.uint8)


def picture(t_ns: int) -> NDArray[np.uint8]:
    return PICTURES[t_ns // 16_000_000 % 64].copy()


def tone(t_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.2 * np.sin(t_ns * (2 * np.pi * 440 / NS)))


@dataclass
class Run:
    kept: Kept
    summary: DeviceSummary
    finder: Box
    clock: SimulatedClock

    def times_s(self, what: str) -> list[float]:
        return [(notice.t_ns - START) / NS for notice in self.kept.notices_ if notice.what == what]


def run(
    bundle: Bundle,
    seconds: float,
    *,
    camera: Sequence[Fault] | None = (),
    microphone: Sequence[Fault] | None = (),
    rate_hz: float = 30.0,
    busy_s: float = 0.0,
    hop: int | None = None,
    sinks: Sequence[Any] = (),
    clock: SimulatedClock | None = None,
    hop_s: float = 0.0,
    hop_thread: bool = True,
    step: bool = True,
    **options: Any,
) -> Run:
    clock = clock or SimulatedClock(START)
    eye = None if camera is None else SimulatedCamera(clock, picture, rate_hz=rate_hz, faults=camera)
    ear = None if microphone is None else SimulatedMicrophone(clock, tone, faults=microphone)
    kept, finder = Kept(), Box(clock, busy_s)
    for device in (eye, ear):
        if device is not None:
            device.start()
    with Session(bundle, precision="fp32", hop=hop, threads=1, faces=finder, hop_thread=hop_thread) as session:
        if hop_s:
            slow_down(session, clock, hop_s)
        if step:
            in_step(session)
        summary = run_live_devices(eye, ear, session, [kept, *sinks], clock=clock, seconds=seconds, **options)
    assert kept.closed == 1
    assert len(kept.hellos) == 1
    assert all(notice.what in WHATS for notice in kept.notices_)
    return Run(kept, summary, finder, clock)


def fetches(bundle: Bundle, hop: int, seconds: float, rate_hz: float = 30.0) -> int:
    """How often sound is fetched."""
    clock = SimulatedClock(START)
    eye, ear = SimulatedCamera(clock, picture, rate_hz=rate_hz), SimulatedMicrophone(clock, tone)
    eye.start()
    ear.start()
    read, count = ear.read, itertools.count()

    def counted() -> list[Any]:
        next(count)
        return read()

    ear.read = counted  # type: ignore[method-assign]
    with Session(bundle, precision="fp32", hop=hop, threads=1, faces=Box(clock, 0.0)) as session:
        run_live_devices(eye, ear, session, [Kept()], clock=clock, seconds=seconds)
    return next(count)


@pytest.mark.parametrize(("hop", "most"), [(15, 2.0), (60, 4.0)])
def test_sound_is_fetched_when_a_hop_needs_it_and_once_a_second(bundle: Bundle, hop: int, most: float) -> None:
    assert fetches(bundle, hop, 8) <= most * 8 * 30 / hop + 6


def test_sound_is_not_fetched_for_a_hop_that_waits_for_its_frame(bundle: Bundle) -> None:
    assert fetches(bundle, 15, 8, rate_hz=29.9) <= 8 * 2 + 6, "once a hop"


def turns(bundle: Bundle, seconds: float, **options: Any) -> tuple[float, list[Estimate]]:
    """How often a second the loop woke up, and what it said."""
    count = itertools.count()
    done = run(bundle, seconds, stop=lambda: next(count) < 0, **options)
    return next(count) / seconds, done.kept.estimates


@pytest.mark.parametrize(("rate_hz", "share"), [(30.0, 0.3), (60.0, 0.25)])
def test_a_loop_with_time_to_spare_wakes_up_for_several_frames_at_once_and_says_the_same_as_soon(
    rate_hz: float, share: float, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered, estimates = turns(bundle, 10, rate_hz=rate_hz)
    monkeypatch.setattr(waiting, "MOST", 1)
    one_by_one, expected = turns(bundle, 10, rate_hz=rate_hz)
    assert one_by_one > 0.97 * rate_hz
    assert gathered < share * one_by_one
    assert [e.to_json() for e in estimates] == [e.to_json() for e in expected], "live.late_ms and live.frame_age_ms among it"


@pytest.mark.parametrize(("rate_hz", "busy_s"), [(15.0, 0.0), (25.0, 0.0), (30.0, 0.012), (30.0, 0.025), (60.0, 0.012), (60.0, 0.02)])
def test_a_loop_without_time_to_spare_or_with_a_slow_camera_takes_each_frame_as_it_comes(
    rate_hz: float, busy_s: float, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    often, estimates = turns(bundle, 10, rate_hz=rate_hz, busy_s=busy_s)
    assert often > 0.95 * rate_hz
    assert estimates[-1].drops.frames_stale == 0
    monkeypatch.setattr(waiting, "MOST", 1)
    assert [e.to_json() for e in estimates] == [e.to_json() for e in turns(bundle, 10, rate_hz=rate_hz, busy_s=busy_s)[1]]


@pytest.mark.parametrize(
    ("rate_hz", "face_s", "low", "high"),
    [(30.0, 0.003, 7, 12), (30.0, 0.0065, 9, 13), (30.0, 0.0105, 27, 31), (60.0, 0.003, 12, 18), (60.0, 0.0075, 18, 24), (60.0, 0.0085, 58, 61)],
)
def test_no_more_frames_are_gathered_than_are_worked_off_soon_and_with_time_to_spare_if_all_have_a_face(
    rate_hz: float, face_s: float, low: float, high: float, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Costly(Histogram):
        """Of a machine to which each face takes `face_s`, whatever this one is doing."""

        def add(self, ns: int) -> None:
            super().add(round(face_s * NS) if self is visual else 0)

    begun, visual = Session.__enter__, Costly()

    def experienced(session: Session) -> Session:
        session._encoder._visual_ns = session.stages._stages["visual"] = visual
        session._encoder._crop_ns = session.stages._stages["crop"] = Costly()
        session._find_ns = session.stages._stages["find"] = Costly()
        return begun(session)

    monkeypatch.setattr(Session, "__enter__", experienced)
    assert low < turns(bundle, 10, rate_hz=rate_hz)[0] <= high


@pytest.mark.parametrize(
    ("rate_hz", "busy_s", "hop"), [(50.0, 0.0065, 20), (50.0, 0.01, 60), (29.9, 0.01, 15), (30.0, 0.0065, 15), (90.0, 0.005, 10)]
)
def test_frames_that_come_while_others_are_worked_off_are_not_lost_and_make_nothing_late(
    rate_hz: float, busy_s: float, hop: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    often, estimates = turns(bundle, 10, rate_hz=rate_hz, busy_s=busy_s, hop=hop)
    monkeypatch.setattr(waiting, "MOST", 1)
    expected = turns(bundle, 10, rate_hz=rate_hz, busy_s=busy_s, hop=hop)[1]
    assert often < 0.75 * rate_hz
    assert estimates[-1].drops.frames_stale == 0
    assert [replace(e, live=None) for e in estimates] == [replace(e, live=None) for e in expected]
    assert all(e.live and was.live and e.live.late_ms <= was.live.late_ms + 0.001 for e, was in zip(estimates, expected, strict=True))


@pytest.mark.parametrize("hop", [10, 20])
def test_a_hop_that_waits_for_its_sound_is_decided_when_that_is_here(hop: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    often, estimates = turns(bundle, 20, rate_hz=29.9, busy_s=0.001, hop=hop)
    monkeypatch.setattr(waiting, "MOST", 1)
    expected = turns(bundle, 20, rate_hz=29.9, busy_s=0.001, hop=hop)[1]
    assert often < 5 * 30 / hop
    assert [replace(e, live=None) for e in estimates] == [replace(e, live=None) for e in expected]
    later = [e.live.late_ms - was.live.late_ms for e, was in zip(estimates, expected, strict=True) if e.live and was.live]
    assert np.mean(later) < -2
    assert max(later) < TICK_NS / 1e6 / 2


def test_sound_that_was_late_once_delays_no_later_hop(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hiccup(SimulatedMicrophone):
        """Its chunks of 10 ms come on time, but for those between 5.3 and 5.36 s."""

        def _record(self, t_ns: int, faults: set[str]) -> None:
            super()._record(t_ns, faults)
            if 5.3 * NS <= self._next_ns - START <= 5.36 * NS:
                self._next_ns = START + round(5.36 * NS)

    def lateness(most: int) -> NDArray[np.float64]:
        monkeypatch.setattr(waiting, "MOST", most)
        clock, kept = SimulatedClock(START), Kept()
        eye, ear = SimulatedCamera(clock, picture, rate_hz=29.97), Hiccup(clock, tone, late_ns=0, chunk_s=0.01)
        eye.start()
        ear.start()
        with Session(bundle, precision="fp32", hop=10, threads=1, faces=Box(clock)) as session:
            run_live_devices(eye, ear, session, [kept], clock=clock, seconds=30)
        return np.array([e.live.late_ms for e in kept.estimates if e.live])

    later = lateness(15) - lateness(1)
    assert later.mean() < 1
    assert (later > TICK_NS / 1e6 / 2).sum() <= 1


@pytest.mark.parametrize("hop_s", [0.02, 0.1])
def test_a_turn_that_a_hop_holds_up_says_nothing_of_what_frames_take(hop_s: float, bundle: Bundle) -> None:
    assert turns(bundle, 10, hop_s=hop_s)[0] < 14


@pytest.mark.parametrize("before_ms", [5, 20, 31, 60])
@pytest.mark.parametrize("busy_s", [0.0005, 0.002])
def test_stamps_from_before_a_frame_came_make_no_estimate_late(
    before_ms: int, busy_s: float, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stamped(waiting.Waiting):
        """Frames with stamps of the moment they were exposed, as drivers give them."""

        def put(self, event: FrameEvent) -> bool:
            return super().put(FrameEvent(event.t_ns - before_ms * 1_000_000, event.pixels, event.format))

    monkeypatch.setattr(simulated, "Waiting", Stamped)
    gathered, estimates = turns(bundle, 10, busy_s=busy_s)
    monkeypatch.setattr(waiting, "MOST", 1)
    expected = turns(bundle, 10, busy_s=busy_s)[1]
    assert gathered < 12
    assert [replace(e, live=None) for e in estimates] == [replace(e, live=None) for e in expected]
    assert all(e.live and was.live and e.live.late_ms <= was.live.late_ms + 0.001 for e, was in zip(estimates, expected, strict=True))


def test_frames_are_not_gathered_before_it_is_known_what_a_face_takes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Box, "find", lambda *_: None)
    assert turns(bundle, 10)[0] > 29


@pytest.mark.parametrize("seconds", [5.1, 5.2, 5.3])
def test_a_run_that_gathers_frames_ends_on_time(seconds: float, bundle: Bundle) -> None:
    assert seconds <= run(bundle, seconds).summary.seconds < seconds + TICK_NS / NS + 0.001


def test_pictures_that_somebody_watches_are_not_gathered(bundle: Bundle) -> None:
    shown: list[FrameEvent] = []
    assert turns(bundle, 10, show=shown.append)[0] > 29
    assert len(shown) > 295


def test_short_hops_leave_no_time_to_gather_frames(bundle: Bundle) -> None:
    assert turns(bundle, 10, hop=2)[0] > 29


@pytest.mark.parametrize("budget_ms", [700.0, 100.0])
def test_a_loop_that_gathers_waits_no_longer_for_a_silent_camera(budget_ms: float, bundle: Bundle) -> None:
    estimates = turns(bundle, 4, camera=fault("stalled", 2, 4), budget_ms=budget_ms)[1]
    waited_ms = min(WAIT_MS, budget_ms / 2)
    assert all(e.live is not None and e.live.late_ms < waited_ms + 2 * TICK_NS / 1e6 + 10 for e in estimates[:-1])


def test_without_a_camera_the_loop_wakes_up_when_a_hop_is_near(bundle: Bundle) -> None:
    often, estimates = turns(bundle, 10, camera=None)
    assert often < 14
    assert all(e.live is not None and e.live.late_ms < 100 for e in estimates[:-1])


def test_python_does_not_look_for_objects_that_hold_each_other_while_frames_come(bundle: Bundle) -> None:
    searches = []

    def search(phase: str, info: dict[str, int]) -> None:
        searches.append(info["generation"])

    gc.callbacks.append(search)
    try:
        run(bundle, 60)
    finally:
        gc.callbacks.remove(search)
    assert len(searches) <= 4, "begin and end of two; nine without"


def slow_down(session: Session, clock: SimulatedClock, hop_s: float) -> None:
    """Let every hop take `hop_s` of simulated time."""
    fusion = session._open().fusion
    compute = fusion.run

    def run(items: int | None = None) -> None:
        clock.sleep(hop_s)
        compute(items)

    fusion.run = run  # type: ignore[method-assign]


def fault(kind: str, start_s: float, end_s: float) -> list[Fault]:
    return [Fault(kind, START + round(start_s * NS), START + round(end_s * NS))]


def check_whole(estimates: list[Estimate]) -> None:
    """No tick is missing, none is there twice."""
    ticks = [t for e in estimates for t, _, _ in e.trail]
    assert [round((t - START) / TICK_NS) for t in ticks] == list(range(len(ticks)))


def check_complete(estimates: list[Estimate], seconds: float) -> None:
    """Every tick of the run is in one trail, and nothing is out of range."""
    check_whole(estimates)
    assert abs(sum(len(e.trail) for e in estimates) / 30 - seconds) < 0.3
    values = np.array([(v, a) for e in estimates for _, v, a in e.trail])
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1


def test_every_tick_is_there_and_on_time_with_both_devices(bundle: Bundle) -> None:
    done = run(bundle, 10)
    estimates = done.kept.estimates
    check_complete(estimates, 10)
    assert all(e.face is not None and e.audio.rms_dbfs > -25 for e in estimates[1:-1])
    lives = [e.live for e in estimates[:-1] if e.live is not None]
    assert len(lives) == len(estimates) - 1
    assert all(live.late_ms < 100 for live in lives), "decided as soon as both streams have passed the tick"
    assert all((live.camera, live.microphone, live.face_every, live.hop, live.why) == ("live", "live", 1, 15, None) for live in lives)
    assert all(live.frame_age_ms is not None and 0 <= live.frame_age_ms < 40 for live in lives)
    assert estimates[-1].drops.frames_stale == estimates[-1].drops.audio_overruns == 0
    assert done.summary.ended == "seconds"
    assert (done.summary.frames, done.summary.estimates) == (pytest.approx(300, abs=2), len(estimates))


@pytest.mark.parametrize("name", ["camera", "microphone"])
def test_one_device_alone_is_enough(name: str, bundle: Bundle) -> None:
    devices: dict[str, Any] = {"camera": None, "microphone": None, name: ()}
    done = run(bundle, 6, **devices)
    check_complete(done.kept.estimates, 6)
    for e in done.kept.estimates[1:-1]:
        assert e.live is not None
        assert e.live.late_ms < 120
        assert (e.live.camera, e.live.microphone) == (("live", None) if name == "camera" else (None, "live"))
        assert (e.face is not None) == (name == "camera")
        assert (e.audio.rms_dbfs > -100) == (name == "microphone")
    assert done.kept.statuses[-1]["camera" if name == "microphone" else "microphone"] is None


@pytest.mark.parametrize("kind", ["gone", "stalled"])
@pytest.mark.parametrize("name", ["camera", "microphone"])
def test_a_device_that_is_silent_does_not_hold_up_an_estimate(name: str, kind: str, bundle: Bundle) -> None:
    devices: dict[str, Any] = {name: fault(kind, 4, 9)}
    done = run(bundle, 20, **devices)
    estimates = done.kept.estimates
    check_complete(estimates, 20)
    assert all(e.live is not None and e.live.late_ms < WAIT_MS + 100 for e in estimates[:-1])

    def has(e: Estimate) -> bool:
        return e.face is not None if name == "camera" else e.audio.rms_dbfs > -100

    during = [e for e in estimates if 4.6 < (e.t_ns - START) / NS < 9]
    after = [e for e in estimates if (e.t_ns - START) / NS > 15]
    assert not any(has(e) for e in during)
    assert all(has(e) for e in after[:-1])
    states = [getattr(e.live, name) for e in estimates]
    assert states[0] == states[-1] == "live", states
    assert states[16] in ("gone", "opening")
    lost = done.times_s(f"{name}_gone") + done.times_s(f"{name}_stalled")
    assert 4 <= lost[0] <= 6.5
    assert len(done.times_s(f"{name}_open")) == len(lost) + 1 == done.summary.reopened + 1


def test_a_frozen_camera_is_opened_again_and_black_is_only_said(bundle: Bundle) -> None:
    frozen = run(bundle, 10, camera=fault("frozen", 3, 6))
    assert len(frozen.times_s("camera_stalled")) == 1
    assert "the same picture" in next(n.detail for n in frozen.kept.notices_ if n.what == "camera_stalled")
    black = run(bundle, 10, camera=fault("black", 3, 7))
    assert black.summary.reopened == 0
    assert next(n.detail for n in black.kept.notices_ if n.what == "camera_changed").count("black")
    for done in (frozen, black):
        check_complete(done.kept.estimates, 10)


@pytest.mark.parametrize("kind", ["nan", "clipped", "rate"])
def test_bad_sound_is_counted_and_leaves_no_trace(kind: str, bundle: Bundle) -> None:
    done = run(bundle, 10, microphone=fault(kind, 3, 4))
    estimates = done.kept.estimates
    check_complete(estimates, 10)
    assert (estimates[-1].drops.audio_overruns > 0) == (kind != "clipped")
    assert len(done.times_s("microphone_changed")) == (2 if kind == "rate" else 0)
    assert estimates[-2].audio.rms_dbfs == pytest.approx(-17, abs=0.5)


@pytest.mark.parametrize("hop_thread", [False, True])
def test_a_jump_of_the_clock_leaves_out_what_nobody_saw_and_says_so(hop_thread: bool, bundle: Bundle) -> None:
    clock = SimulatedClock(START)
    jumped: list[int] = []

    def stop() -> bool:
        if not jumped and clock.now_ns() > START + 4 * NS:
            jumped.append(clock.now_ns())
            clock.sleep(2 * 3600)
        return False

    order: list[int | str] = []

    class Order(Kept):
        def write(self, estimate: Estimate) -> None:
            order.append(estimate.t_ns)

        def notice(self, notice: Notice) -> None:
            order.append(notice.what)

    done = run(bundle, 2 * 3600 + 10, clock=clock, stop=stop, hop_thread=hop_thread, step=False, sinks=[Order()])
    at = order.index("clock_jump")
    assert all(t_ns <= jumped[0] for t_ns in order[:at] if isinstance(t_ns, int)), "what was decided before comes before the word about it"
    assert all(t_ns > jumped[0] for t_ns in order[at:] if isinstance(t_ns, int))
    estimates = done.kept.estimates
    assert done.summary.jumps == len(done.times_s("clock_jump")) == 1
    assert "7200.0 s passed" in next(n.detail for n in done.kept.notices_ if n.what == "clock_jump")
    before = [e for e in estimates if e.t_ns <= jumped[0]]
    after = [e for e in estimates if e.t_ns > jumped[0]]
    assert len(before) >= 7
    assert len(after) >= 11
    assert after[0].trail[0][0] - jumped[0] >= 2 * 3600 * NS, "nothing is made up for the time in between"
    assert not after[0].audio.warm
    ticks = [t for e in after for t, _, _ in e.trail]
    assert all(round((b - a) / TICK_NS) == 1 for a, b in pairwise(ticks))
    assert after[-1].face is not None
    assert after[-2].audio.rms_dbfs > -25


def test_a_machine_that_was_suspended_begins_anew_though_its_clock_stood_still(bundle: Bundle) -> None:
    clock = SimulatedClock(START)
    slept: list[int] = []

    def stop() -> bool:
        if not slept and clock.now_ns() > START + 12 * NS:
            slept.append(clock.now_ns())
            clock.suspend(3600)
        return False

    done = run(bundle, 16, clock=clock, stop=stop)
    (notice,) = [n for n in done.kept.notices_ if n.what == "clock_jump"]
    assert notice.detail.startswith("3600.4 s passed between two turns of the loop (the machine slept)"), "and a turn until a hop was near"
    before = [e for e in done.kept.estimates if e.t_ns <= slept[0]]
    after = [e for e in done.kept.estimates if e.t_ns > slept[0]]
    assert before[-1].audio.warm
    assert not any(e.audio.warm for e in after), "its window holds nothing from before"
    assert after[0].trail[0][0] - before[-1].t_ns < 2 * NS
    assert len(after) >= 6
    assert after[-2].face is not None


def test_an_overloaded_loop_reads_fewer_faces_says_so_and_recovers(bundle: Bundle) -> None:
    clock = SimulatedClock(START)

    class Slow(Kept):
        """The stream itself: takes time for a while."""

        def write(self, estimate: Estimate) -> None:
            super().write(estimate)
            if START + 5 * NS < clock.now_ns() < START + 30 * NS:
                clock.sleep(0.9)

    slow = Slow()
    done = run(bundle, 150, clock=clock, sinks=[slow])
    degraded, recovered = done.times_s("degraded"), done.times_s("recovered")
    assert degraded
    assert len(recovered) == len(degraded) == done.summary.degraded
    assert 5 < degraded[0] < 15
    lives = [e.live for e in done.kept.estimates if e.live is not None]
    assert {live.face_every for live in lives} >= {1, 2}
    assert all((live.why is None) == ((live.face_every, live.hop) == (1, 15)) for live in lives)
    assert lives[-1].why is None
    assert done.kept.estimates[-1].face is not None
    check_whole(done.kept.estimates)


@pytest.mark.parametrize("hop_s", [0.6, 1.0, 1.8])
def test_hops_that_take_longer_than_they_last_become_wider_ones(hop_s: float, bundle: Bundle) -> None:
    done = run(bundle, 90, hop_s=hop_s)
    estimates = done.kept.estimates
    check_whole(estimates)
    lates = [e.live.late_ms for e in estimates if e.live is not None]
    assert max(lates) < 1000 * (3 * hop_s + 2), "it does not fall further and further behind"
    assert done.summary.jumps == 0
    assert done.summary.degraded >= 1
    last = estimates[-2].live
    assert last is not None
    assert last.why == "overloaded"
    assert last.hop >= 30 * hop_s, "as wide as the machine needs"


@pytest.mark.parametrize("hop_s", [11.0, 24.0])
def test_hops_that_take_longer_than_their_window_leave_out_what_none_will_hold_and_say_so(hop_s: float, bundle: Bundle) -> None:
    done = run(bundle, 400, hop_s=hop_s)
    estimates = done.kept.estimates
    assert max(e.live.late_ms for e in estimates if e.live is not None) < 1000 * (2 * hop_s + 1), "it does not fall further and further behind"
    assert done.summary.jumps == 0
    ticks = [t for e in estimates for t, _, _ in e.trail]
    holes = [(a, b) for a, b in pairwise(ticks) if round((b - a) / TICK_NS) != 1]
    told = [n.detail.split() for n in done.kept.notices_ if n.what == "ticks_skipped"]
    assert len(holes) == len(told) >= 400 / hop_s - 3
    for (before, after), words in zip(holes, told, strict=True):
        start, end, skipped = int(words[-3]), int(words[-1]), int(words[-7])
        assert (start, end) == (pytest.approx(before + TICK_NS, abs=1000), pytest.approx(after, abs=1000))
        assert skipped == round((after - before) / TICK_NS) - 1 > 0
    assert done.summary.skipped == sum(int(words[-7]) for words in told)


@pytest.mark.parametrize("every", [2, 3])
def test_fewer_faces_are_found_but_estimates_stay_on_time(every: int, bundle: Bundle, tmp_path: Any) -> None:
    zone = tmp_path / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    for name, text in (("type", "cpu"), ("temp", "99000"), ("trip_point_0_type", "passive"), ("trip_point_0_temp", "95000")):
        (zone / name).write_text(text)
    done = run(bundle, 14.5 if every == 2 else 24.5, thermometer=Thermometer(tmp_path))
    (notice, *_) = [n for n in done.kept.notices_ if n.what == "degraded"]
    assert "cpu is at 99 C, its limit is 95 C" in notice.detail
    last = done.kept.estimates[-2].live
    assert last is not None
    assert (last.face_every, last.why) == (every, "hot")
    assert last.late_ms < WAIT_MS + 100
    recent = [t for t in done.finder.seen if t > done.clock.now_ns() - 4 * NS]
    assert len(recent) / 4 == pytest.approx(30 / every, rel=0.15)
    assert all(e.face is not None for e in done.kept.estimates[1:-1]), "a face holds for the ticks in between"
    assert done.kept.statuses[-1]["process"]["temperature_c"] == 99.0


def test_stale_frames_are_replaced_and_counted(bundle: Bundle) -> None:
    done = run(bundle, 10, rate_hz=60.0, busy_s=0.1)
    drops = done.kept.estimates[-1].drops
    assert drops.frames_stale > 300
    assert done.summary.frames + drops.frames_stale == pytest.approx(600, abs=10)
    assert all(e.live is not None and e.live.late_ms < 500 for e in done.kept.estimates[:-1]), "what is old is not queued"


def test_status_once_a_second_hello_first(bundle: Bundle) -> None:
    smooth = SmoothTracks(Smoothing.parse("one-euro:0.7,2"))
    done = run(bundle, 65, smooth=smooth, about={"faces": "largest"})
    (hello,) = done.kept.hellos
    assert hello["smooth"] == {"kind": "one-euro", "min_cutoff_hz": 0.7, "beta": 2.0, "by_track": False}
    assert (hello["camera"], hello["microphone"], hello["faces"], hello["budget_ms"]) == ("simulated:camera", "simulated:microphone", "largest", 700)
    statuses = done.kept.statuses
    assert len(statuses) == pytest.approx(65, abs=2)
    assert all(NS <= b["t_ns"] - a["t_ns"] < 1.1 * NS for a, b in pairwise(statuses[:-1]))
    json.dumps([hello, statuses], allow_nan=False)
    second = statuses[30]
    assert {"type", "v", "t_ns", "stages", "drops", "camera", "microphone", "sinks", "process"} == set(second)
    assert second["camera"]["rate_hz"] == pytest.approx(30, abs=1.5)
    assert second["microphone"]["state"] == "live"
    assert second["microphone"]["granted"]["rate_hz"] == 16_000
    assert second["sinks"] == {"kept:": {"state": "live", "written": None, "dropped": 0, "queued": 0}}
    counts = [status["stages"].get("fusion", {"count": 0})["count"] for status in statuses]
    assert max(counts) <= 122, "stages begin anew every minute"
    assert counts[-1] < 20
    assert done.summary.stages["fusion"].count == len(done.kept.estimates), "the summary holds them all"


def test_smoothed_estimates_are_the_filter_over_the_raw_ones(bundle: Bundle) -> None:
    done = run(bundle, 8, smooth=SmoothTracks(Smoothing.parse("one-euro:0.5,1")))
    estimates = done.kept.estimates
    raw = [(e.valence, e.arousal) for e in estimates]
    expected = one_euro(np.array([e.t_ns for e in estimates]), raw, 0.5, 1.0)
    smooth = [(e.smooth.valence, e.smooth.arousal) for e in estimates if e.smooth is not None]
    np.testing.assert_allclose(smooth, expected, atol=1e-12)
    assert run(bundle, 2).kept.estimates[0].smooth is None


def test_a_stop_ends_it_with_every_estimate_that_is_due(bundle: Bundle) -> None:
    clock = SimulatedClock(START)
    done = run(bundle, 100, clock=clock, stop=lambda: clock.now_ns() >= START + 7 * NS + 123_000_000)
    assert done.summary.ended == "stopped"
    assert done.summary.line().endswith("; stopped")
    assert 7.123 <= done.summary.seconds < 7.123 + QUIET_S + 0.01
    check_complete(done.kept.estimates, 7.1)


def test_a_reader_that_goes_ends_it(bundle: Bundle) -> None:
    class Gone(Kept):
        def write(self, estimate: Estimate) -> None:
            super().write(estimate)
            if len(self.estimates) == 3:
                raise SinkClosed("gone")

    gone = Gone()
    done = run(bundle, 100, sinks=[gone])
    assert done.summary.ended == "closed"
    assert gone.closed == 1
    assert len(done.kept.estimates) == 3


def test_the_loop_shows_frames_only_when_asked(bundle: Bundle) -> None:
    shown: list[Any] = []
    done = run(bundle, 3, show=shown.append)
    assert len(shown) == done.summary.frames
    assert all(frame.format == "bgr" for frame in shown)


def test_what_was_collected_before_the_loop_is_not_used(bundle: Bundle) -> None:
    clock = SimulatedClock(START)
    eye, ear, kept = SimulatedCamera(clock, picture), SimulatedMicrophone(clock, tone), Kept()
    eye.start()
    ear.start()
    clock.sleep(3.0)
    with Session(bundle, precision="fp32", threads=1, faces=Box(clock)) as session:
        run_live_devices(eye, ear, session, [kept], clock=clock, seconds=3)
    assert kept.estimates[0].trail[0][0] == pytest.approx(START + 3 * NS, abs=TICK_NS), "at most the frame that waits"
    assert all(e.drops.frames_stale == 0 for e in kept.estimates)


def test_the_same_devices_give_the_same_lines_with_and_without_a_thread_for_hops(bundle: Bundle) -> None:
    first, second, third = (run(bundle, 5, camera=fault("gone", 1, 2), hop_thread=thread).kept.estimates for thread in (True, True, False))
    assert [e.to_json() for e in first] == [e.to_json() for e in second] == [e.to_json() for e in third]
