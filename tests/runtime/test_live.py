"""The live loop over real files: every hop gives an estimate, whatever is missing; it ends cleanly, however it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_video import even_stamps, write_video
from moving_face import Person, Room, path_of

from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.errors import SinkError
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.live import Summary, hello, run_live
from sage_edge.runtime.session import Session
from sage_edge.runtime.sinks import SinkClosed
from sage_edge.runtime.sources import AudioEvent, Event, FrameEvent, SourceDrops
from sage_edge.runtime.sources.video import VideoFile

VOICE = (0.2 * np.sin(np.arange(3 * 48_000) / 30)).astype(np.float32)
HOP_NS = 500_000_000


class Kept:
    """A sink that keeps what it gets; it fails with `error` at estimate number `at`."""

    spec = "kept:"

    def __init__(self, at: int = -1, error: BaseException | None = None) -> None:
        self.hellos: list[dict[str, Any]] = []
        self.estimates: list[Estimate] = []
        self.closed = 0
        self._at, self._error = at, error

    def start(self, hello: dict[str, Any]) -> None:
        self.hellos.append(hello)

    def write(self, estimate: Estimate) -> None:
        if len(self.estimates) == self._at and self._error is not None:
            raise self._error
        self.estimates.append(estimate)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seconds each: a face that speaks; without its sound; the room alone; a face hidden for a second."""
    folder, person, room = tmp_path_factory.mktemp("clips"), Person(3), Room((320, 240))
    stamps = even_stamps(30, 90)

    def face(index: int, _seconds: float) -> np.ndarray:
        return room.shot(index, [(person, path_of(index, (320, 240), 60))])

    def hidden(index: int, seconds: float) -> np.ndarray:
        return room.shot(index, []) if 1 <= seconds < 2 else face(index, seconds)

    def empty(index: int, _seconds: float) -> np.ndarray:
        return room.shot(index, [])

    common: dict[str, Any] = {"stamps_s": stamps, "size": (320, 240)}
    sound: dict[str, Any] = {"sound": VOICE, "sound_rate": 48_000}
    return {
        "talk": write_video(folder / "talk.mp4", picture=face, **common, **sound),
        "mute": write_video(folder / "mute.mp4", picture=face, **common),
        "empty": write_video(folder / "empty.mp4", picture=empty, **common),
        "hidden": write_video(folder / "hidden.mp4", picture=hidden, **common, **sound),
        "voice": write_video(folder / "voice.mp4", stamps_s=stamps[:30], picture=empty, size=(320, 240), **sound),
    }


def run(path: Path, bundle: Bundle, *sinks: Kept, hop: int | None = None, pace: bool = False) -> tuple[list[Estimate], Summary]:
    kept = Kept()
    with VideoFile(path) as video, Session(bundle, precision="fp32", hop=hop, t0_ns=0) as session:
        summary = run_live(video, session, [kept, *sinks], pace=pace)
    assert kept.closed == 1
    assert len(kept.hellos) == 1
    return kept.estimates, summary


@pytest.mark.parametrize("name", ["talk", "mute", "empty", "hidden"])
def test_every_hop_gives_an_estimate(name: str, clips: dict[str, Path], bundle: Bundle) -> None:
    estimates, summary = run(clips[name], bundle)
    assert [e.t_ns for e in estimates] == [round((15 * n + 14) / 30 * 1e9) for n in range(6)]
    trail = [t for e in estimates for t, _, _ in e.trail]
    assert trail == [round(k / 30 * 1e9) for k in range(90)], "every tick is in one trail"
    assert all(np.isfinite([e.valence, e.arousal]).all() and abs(e.valence) <= 1 >= abs(e.arousal) for e in estimates)
    seen = [e.face is not None for e in estimates]
    assert seen == {"talk": [True] * 6, "mute": [True] * 6, "empty": [False] * 6, "hidden": [True, True, False, False, True, True]}[name]
    heard = [e.audio.rms_dbfs > -100 for e in estimates]
    assert heard == [name in ("talk", "hidden")] * 6
    for e in estimates:
        visual, audio = e.reliability.visual, e.reliability.audio
        assert visual is not None
        assert audio is not None
        if name == "mute":
            assert (round(visual, 3), round(audio, 3)) == (1, 0)
        if name == "hidden" and e.face is None:
            assert (round(visual, 3), round(audio, 3)) == (0, 1)
    assert (summary.frames, summary.estimates, summary.ended) == (90, 6, "end")
    assert summary.drops.frames_stale == summary.drops.audio_overruns == summary.source_drops.frames == 0
    assert summary.media_s == pytest.approx(3.0, abs=0.04)
    assert summary.real_time_factor == pytest.approx(summary.busy_s / summary.media_s)


def test_sound_may_outlast_the_pictures(clips: dict[str, Path], bundle: Bundle) -> None:
    estimates, summary = run(clips["voice"], bundle)
    assert len(estimates) == 6
    assert all(e.audio.rms_dbfs > -20 for e in estimates)
    assert (summary.frames, round(summary.media_s)) == (30, 3)


def test_the_hop_is_the_callers(clips: dict[str, Path], bundle: Bundle) -> None:
    by_fifteen, _ = run(clips["talk"], bundle)
    by_five, summary = run(clips["talk"], bundle, hop=5)
    assert summary.estimates == 18
    same = {e.t_ns: e for e in by_five}
    for e in by_fifteen:
        assert (same[e.t_ns].valence, same[e.t_ns].arousal) == pytest.approx((e.valence, e.arousal), abs=1e-6)


def test_the_same_file_gives_the_same_lines(clips: dict[str, Path], bundle: Bundle) -> None:
    assert [e.to_json() for e in run(clips["hidden"], bundle)[0]] == [e.to_json() for e in run(clips["hidden"], bundle)[0]]


def test_pace_waits_for_the_time_of_each_event(clips: dict[str, Path], bundle: Bundle) -> None:
    free, _ = run(clips["mute"], bundle)
    paced, summary = run(clips["mute"], bundle, pace=True)
    assert [e.to_json() for e in paced] == [e.to_json() for e in free], "waiting changes nothing"
    assert summary.wall_s >= 89 / 30, "the last frame is not taken before its time"
    assert summary.busy_s < summary.wall_s


def test_the_summary_names_every_stage(clips: dict[str, Path], bundle: Bundle) -> None:
    _, summary = run(clips["talk"], bundle)
    counts = {name: stage.count for name, stage in summary.stages.items()}
    assert counts["capture"] == 90
    assert counts["find"] == counts["crop"] == counts["visual"] == 90
    assert counts["audio"] == counts["fusion"] == counts["emit"] == 6
    line = summary.line()
    assert "\n" not in line
    for word in ("90 frames", "6 estimates", "real-time factor", "frames_stale 0"):
        assert word in line
    assert re.search(r"capture \S+, face \S+, crop \S+, visual \S+, audio \S+, fusion \S+, emit \S+", line)
    assert all(0 <= stage.p50 <= stage.p95 <= stage.p99 <= stage.max for stage in summary.stages.values())


def test_hello_says_what_runs(bundle: Bundle) -> None:
    with Session(bundle, precision="int8") as session:
        said = hello(session)
    assert said["type"] == "hello"
    assert said["model"]["name"] == bundle.manifest.model.name
    assert said["trained_on"] == {"name": "synthetic", "synthetic": True, "seed": 0}
    assert {key: said[key] for key in ("precision", "backend", "window", "hop", "warm_up_ms", "rate_hz", "sample_rate_hz")} == {
        **{"precision": "int8-cpu", "backend": "onnxruntime", "window": 300, "hop": 15},
        **{"warm_up_ms": 10_000, "rate_hz": 30, "sample_rate_hz": 16_000},
    }
    assert "version" in said
    json.dumps(said, allow_nan=False)


def test_a_reader_that_goes_ends_the_run(clips: dict[str, Path], bundle: Bundle) -> None:
    gone, after = Kept(2, SinkClosed("gone")), Kept()
    estimates, summary = run(clips["talk"], bundle, gone, after)
    assert summary.ended == "closed"
    assert (len(estimates), len(gone.estimates), len(after.estimates)) == (3, 2, 2)
    assert gone.closed == after.closed == 1
    assert "reader of the output has gone" in summary.line()


def test_an_interrupt_ends_the_run_with_a_summary(clips: dict[str, Path], bundle: Bundle) -> None:
    stopped = Kept(3, KeyboardInterrupt())
    estimates, summary = run(clips["talk"], bundle, stopped)
    assert summary.ended == "interrupted"
    assert (len(estimates), summary.estimates, stopped.closed) == (4, 3, 1)
    assert summary.line().endswith("; interrupted")


def test_a_sink_that_fails_is_an_error_and_all_are_closed(clips: dict[str, Path], bundle: Bundle) -> None:
    fails, other = Kept(1, SinkError("disk full")), Kept()
    with VideoFile(clips["talk"]) as video, Session(bundle, precision="fp32", t0_ns=0) as session, pytest.raises(SinkError, match="disk full"):
        run_live(video, session, [fails, other])
    assert fails.closed == other.closed == 1


class Counted:
    """A video that says how many of its frames have been taken."""

    def __init__(self, video: VideoFile) -> None:
        self.drops, self.notes, self.has_sound, self._video, self.taken = video.drops, video.notes, video.has_sound, video, 0

    def __iter__(self) -> Iterator[Event]:
        for event in self._video:
            self.taken += isinstance(event, FrameEvent)
            yield event

    def close(self) -> None:
        self._video.close()


@pytest.mark.parametrize("name", ["talk", "mute"])
def test_an_estimate_waits_for_no_more_than_the_next_frame(name: str, clips: dict[str, Path], bundle: Bundle) -> None:
    with VideoFile(clips[name]) as video, Session(bundle, precision="fp32", t0_ns=0) as session:
        source, when = Counted(video), []
        kept = Kept()
        kept.write = lambda _estimate: when.append(source.taken)  # type: ignore[method-assign]
        run_live(source, session, [kept])
    # Hop n ends with tick 15 n + 14: the next frame says that the tick is over, and its sound may come one frame later.
    assert len(when) == 6
    assert all(taken <= min(15 * n + 17, 90) for n, taken in enumerate(when)), when


class Sixty:
    """A source of 60 pictures in a second, with sound that stops for a while."""

    def __init__(self) -> None:
        self.drops, self.notes, self.has_sound = SourceDrops(frames=2), [], True

    def __iter__(self) -> Iterator[Event]:
        for i in range(60):
            if not 20 <= i < 40:
                yield AudioEvent(round(i / 60 * 1e9), np.full(267 if i % 3 != 2 else 266, 0.1, np.float32))
            if i == 50:  # between the first estimate and the second
                self.drops.frames += 1
                self.drops.audio += 4
            yield FrameEvent(round(i / 60 * 1e9), np.full((48, 64, 3), 90, np.uint8), "bgr")

    def close(self) -> None:
        pass


def test_any_source_will_do(bundle: Bundle) -> None:
    kept = Kept()
    with Session(bundle, precision="fp32", t0_ns=0) as session:
        summary = run_live(Sixty(), session, [kept])
    assert (summary.frames, summary.estimates) == (60, 3), "the last frame, at 983 ms, is for tick 30: a hop of one tick"
    assert summary.stages["find"].count == 31, "only the frames that ticks take are searched"
    assert (summary.source_drops.frames, summary.source_drops.audio) == (3, 4)
    assert "damaged frames 3, damaged sound 4" in summary.line()
    drops = [e.drops for e in kept.estimates]
    assert [d.frames_stale for d in drops] == [2, 3, 3], "what the source lost is in the estimates that follow, once"
    assert [d.audio_overruns for d in drops] == [1, 5, 5], "the gap and four damaged pieces"
    assert summary.drops == drops[-1]
