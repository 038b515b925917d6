"""The rules of time: what a tick takes, when a hop is decided, what is dropped, what the masks say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from feeding import SECOND, by_time, events, make_clip, run, stamp

from sage_edge.runtime import Bundle, Session, UsageError, ticks
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.timeline import MAX_JUMP_NS

MS = 1_000_000
TICK = ticks.tick_time_ns
FACE = np.random.default_rng(3).integers(0, 255, (48, 48, 3), np.uint8)
NOISE = (0.1 * np.random.default_rng(4).standard_normal(480_000)).astype(np.float32)
Make = Callable[..., Session]


@pytest.fixture
def make(bundle: Bundle) -> Iterator[Make]:
    made: list[Session] = []

    def open_session(**options: object) -> Session:
        made.append(Session(bundle, precision="fp32", **options))  # type: ignore[arg-type]
        return made[-1]

    yield open_session
    for session in made:
        session.close()


def masks(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """The masks that the last fusion saw, as bool [W] each: visual, audio."""
    assert session._graphs is not None
    inputs = session._graphs.fusion.inputs
    return inputs["visual_mask"][0] > 0, inputs["audio_mask"][0] > 0


def finish(session: Session) -> list:
    session.finish()
    return session.poll()


def test_hop_comes_when_both_streams_have_passed_its_end(make: Make) -> None:
    session = make(t0_ns=0)
    end = ticks.first_sample(15)
    for k in range(16):
        session.push_face(FACE, TICK(k))
    assert session.poll() == []
    session.push_audio(NOISE[: end - 1], 0)
    assert session.poll() == []
    session.push_audio(NOISE[end - 1 : end], stamp(end - 1))
    (estimate,) = session.poll()
    assert estimate.t_ns == TICK(14)
    assert estimate.age_ms == 0
    assert session.poll() == []


def test_video_may_be_the_one_that_is_waited_for(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_audio(NOISE[:9000], 0)
    for k in range(15):
        session.push_face(FACE, TICK(k))
    assert session.poll() == []
    session.push_face(FACE, TICK(15))
    assert len(session.poll()) == 1


def test_no_sound(make: Make) -> None:
    session = make(t0_ns=0)
    estimates = []
    for k in range(91):
        session.push_face(FACE, TICK(k))
        estimates += session.poll()
    # a second of lag, then every hop
    assert [e.t_ns for e in estimates] == [TICK(14), TICK(29), TICK(44), TICK(59)]
    estimates += finish(session)
    assert [e.t_ns for e in estimates[4:]] == [TICK(74), TICK(89), TICK(90)]
    visual, audio = masks(session)
    assert visual.sum() == 91
    assert not audio.any()
    for e in estimates:
        assert e.audio.rms_dbfs == -120
        assert not e.audio.warm
        assert e.reliability.visual == 1
        assert e.face is not None
    assert "audio" not in session.stages.summary()


def test_no_face_and_no_frames(make: Make) -> None:
    for faces in (True, False):
        session = make(t0_ns=0)
        for k in range(60):
            if faces:
                session.push_face(None, TICK(k))
            session.push_audio(NOISE[k * 534 : k * 534 + 534], stamp(k * 534))
        estimates = finish(session)
        assert [e.t_ns for e in estimates][:3] == [TICK(14), TICK(29), TICK(44)]
        visual, audio = masks(session)
        assert not visual.any()
        assert audio.any()
        for e in estimates:
            assert e.face is None
            assert e.age_ms is None
            assert e.reliability.audio == 1
        assert '"face":null' in estimates[0].to_json()
        assert "visual" not in session.stages.summary()


def test_nothing_at_all(make: Make) -> None:
    session = make()
    assert finish(session) == []
    session = make()
    session.advance(5 * SECOND)
    session.advance(6 * SECOND)
    estimates = session.poll()
    assert [e.t_ns for e in estimates] == [5 * SECOND + TICK(14), 5 * SECOND + TICK(29)]
    assert all(np.isfinite([e.valence, e.arousal, e.reliability.temporal, e.reliability.visual]).all() for e in estimates)
    assert finish(session) == []


def test_fusion_sees_warm_up_as_masks_off(make: Make) -> None:
    session = make(t0_ns=0)
    for event in by_time(*events(make_clip(1, missing=0))):
        (session.push_face if event[0] == "face" else session.push_audio)(event[2], event[1])
    finish(session)
    visual, audio = masks(session)
    assert not visual[:-30].any()
    assert not audio[:-30].any()
    assert visual[-30:].all()
    assert audio[-30:].all()


def test_warm_once_the_window_is_full_of_sound(make: Make) -> None:
    session = make(t0_ns=0, hop=30)
    estimates = run(session, [("audio", 0, NOISE[:192_000])])
    assert [e.audio.warm for e in estimates] == [False] * 9 + [True] * 3


@pytest.mark.parametrize("first", ["face", "audio"])
def test_epoch_is_the_first_stamp(make: Make, first: str) -> None:
    session = make()
    start = 123_456_789_012
    if first == "face":
        session.push_face(FACE, start)
        session.push_audio(NOISE[:9000], start + 5 * MS)
    else:
        session.push_audio(NOISE[:9000], start)
        session.push_face(FACE, start + 5 * MS)
    session.advance(start + 500 * MS)
    (estimate,) = session.poll()
    assert estimate.t_ns == start + TICK(14)
    visual, audio = masks(session)
    # tick 0 lies at the epoch: a frame that comes 5 ms later is not seen by it, and without its first 80 samples it has no sound
    assert list(visual[-15:]) == [first == "face"] + [True] * 4 + [False] * 10
    assert list(audio[-15:]) == [first == "audio"] + [True] * 14


def test_frame_grows_old(make: Make) -> None:
    session = make(t0_ns=0, hop=1)
    session.push_face(FACE, 10 * MS)
    session.advance(300 * MS)
    ages = [e.age_ms for e in session.poll()]
    # 150 ms at most: ticks 1 (33 ms) to 4 (133 ms)
    assert ages[0] is None
    assert ages[1:5] == pytest.approx([23.333333, 56.666667, 90, 123.333333])
    assert ages[5:] == [None] * 4
    assert session.stages.summary()["visual"].count == 1


def test_a_frame_is_encoded_once_or_never(make: Make) -> None:
    for rate, count in ((15, 30), (30, 60), (60, 60)):
        session = make(t0_ns=0)
        frames, sound = events(make_clip(2, rate, missing=0))
        run(session, by_time(frames, sound))
        assert session.stages.summary()["visual"].count == pytest.approx(count, abs=1)
        assert session.drops.frames_stale == 0


def test_audio_and_fusion_run_once_per_hop(make: Make) -> None:
    session = make(t0_ns=0, hop=7)
    estimates = run(session, by_time(*events(make_clip(3))))
    summary = session.stages.summary()
    assert summary["fusion"].count == summary["audio"].count == summary["hop"].count == len(estimates) == 13


def test_frame_without_a_face_hides_an_older_face(make: Make) -> None:
    session = make(t0_ns=0, hop=1)
    session.push_face(FACE, 0)
    session.push_face(None, 40 * MS)
    session.advance(80 * MS)
    assert [e.face is not None for e in session.poll()] == [True, True]
    session.push_face(FACE, 90 * MS)
    session.advance(140 * MS)
    assert [e.face is not None for e in session.poll()] == [False, True]


def test_out_of_order_frames_are_stale(make: Make) -> None:
    session = make(t0_ns=0, hop=1)
    session.push_face(FACE, 0, track=1)
    session.push_face(FACE, 40 * MS, track=2)
    session.push_face(FACE, 20 * MS, track=3)
    assert session.drops.frames_stale == 1
    session.push_face(FACE, 40 * MS, track=4)
    session.advance(100 * MS)
    estimates = session.poll()
    assert [e.face and e.face.track for e in estimates] == [1, 1, 4]
    assert estimates[-1].drops.frames_stale == 1


def test_frame_behind_a_decided_tick_is_stale_but_serves_the_next(make: Make) -> None:
    session = make(t0_ns=0, hop=1)
    session.advance(200 * MS)
    assert len(session.poll()) == 6
    session.push_face(FACE, 150 * MS)
    assert session.drops.frames_stale == 1
    session.advance(240 * MS)
    (estimate,) = session.poll()
    assert estimate.face is not None
    assert estimate.age_ms == 50


def test_frames_before_the_epoch(make: Make) -> None:
    session = make(t0_ns=SECOND, hop=1)
    session.push_face(FACE, SECOND - 300 * MS)
    session.push_face(FACE, SECOND - 20 * MS)
    session.push_audio(NOISE[:1600], SECOND - 50 * MS)
    session.advance(SECOND + 100 * MS)
    estimates = session.poll()
    assert estimates[0].t_ns == SECOND
    assert estimates[0].age_ms == 20
    assert session.drops == type(session.drops)(0, 0, 0)
    visual, audio = masks(session)
    assert visual[-3:].all()
    # 50 ms of the sound lie after the epoch: one whole tick
    assert list(audio[-3:]) == [True, False, False]


def test_gap_in_the_sound(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_audio(NOISE[:8000], 0)
    session.push_audio(NOISE[12_000:16_000], stamp(12_000))
    finish(session)
    assert session.drops.audio_overruns == 1
    _, audio = masks(session)
    assert list(audio[-30:]) == [True] * 15 + [False] * 8 + [True] * 7
    assert session._graphs is not None
    samples = session._graphs.audio._read["samples"][0]
    start = 160_000 - 16_000
    assert np.array_equal(samples[start : start + 8000], NOISE[:8000])
    # tick 22 is half there: its mask is off, so its samples are silent as well
    assert not samples[start + 8000 : start + ticks.first_sample(23)].any()
    assert np.array_equal(samples[start + ticks.first_sample(23) :], NOISE[ticks.first_sample(23) : 16_000])


def test_sound_that_ended_leaves_nothing_behind(make: Make) -> None:
    session = make(t0_ns=0, hop=300)
    session.push_audio(NOISE[:160_000], 0)
    session.advance(TICK(600))
    before, after = session.poll()
    assert before.audio.warm
    assert before.audio.rms_dbfs > -30
    assert after.audio.rms_dbfs == -120
    assert session._graphs is not None
    assert not session._graphs.fusion._read["audio"].any()


def test_sound_that_ended_leaves_nothing_behind_for_any_face(make: Make) -> None:
    session = make(t0_ns=0, hop=300, follow="all", most_faces=2)
    session.push_audio(NOISE[:160_000], 0)
    session.advance(TICK(600))
    assert [e.audio.rms_dbfs > -120 for e in session.poll()] == [True, False]
    assert session._graphs is not None
    assert not session._graphs.fusion._read["audio"][0].any()


def test_sound_far_ahead_of_the_video(make: Make) -> None:
    clip = make_clip(13)
    frames, sound = events(clip, 3000)
    expected = run(make(t0_ns=0), by_time(frames, sound))
    early = [(kind, t_ns - 800 * MS, (t_ns, data)) for kind, t_ns, data in sound]
    order = sorted([("face", t_ns, (t_ns, data)) for _, t_ns, data in frames] + early, key=lambda event: event[1])
    assert run(make(t0_ns=0), [(kind, *rest) for kind, _, rest in order]) == expected


def test_gap_longer_than_the_window(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_audio(NOISE[:16_000], 0)
    session.push_audio(NOISE[:16_000], 20 * SECOND)
    estimates = finish(session)
    assert len(estimates) == 42
    assert session.drops.audio_overruns == 1
    _, audio = masks(session)
    assert list(np.flatnonzero(audio)) == list(range(270, 300))
    assert session._sound._gaps == [(16_000, 320_000)]


def test_stamp_jitter_is_ignored(make: Make) -> None:
    clip = make_clip(2)
    rng = np.random.default_rng(0)
    frames, sound = events(clip, 480)
    shaken = [(kind, t_ns + (int(rng.integers(-19, 20)) * MS if t_ns else 0), data) for kind, t_ns, data in sound]
    session = make(t0_ns=0)
    expected = run(make(t0_ns=0), by_time(frames, sound))
    order = [event for pair in zip(frames, sound, strict=False) for event in pair]
    order += frames[len(sound) :] + sound[len(frames) :]
    shaken_of = dict(zip((id(e) for e in sound), shaken, strict=True))
    assert run(session, [shaken_of.get(id(e), e) for e in order]) == expected
    assert session.drops.audio_overruns == 0


def test_overlapping_sound_is_dropped(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_audio(NOISE[:8000], 0)
    session.push_audio(NOISE[4000:12_000], stamp(4000))
    session.push_audio(NOISE[:4000], 0)
    session.push_audio(NOISE[12_000:16_000], stamp(12_000))
    finish(session)
    assert session.drops.audio_overruns == 2
    assert session._graphs is not None
    assert np.array_equal(session._graphs.audio._read["samples"][0, -16_000:], NOISE[:16_000])


def test_sound_that_comes_after_its_hop_serves_later_windows(make: Make) -> None:
    session = make(t0_ns=0)
    session.advance(TICK(15))
    assert session.poll()[0].audio.rms_dbfs == -120
    session.push_audio(NOISE[:16_000], 0)
    session.advance(TICK(30))
    session.poll()
    assert masks(session)[1][-30:].all()


def test_not_finite_samples_become_zeros_and_are_counted(make: Make) -> None:
    bad = NOISE[:16_000].copy()
    bad[[3, 5000, 9000]] = [np.nan, np.inf, -np.inf]
    session, clean = make(t0_ns=0), make(t0_ns=0)
    session.push_audio(bad, 0)
    bad[[3, 5000, 9000]] = 0
    clean.push_audio(bad, 0)
    assert [e.valence for e in finish(session)] == [e.valence for e in finish(clean)]
    assert session._sound.samples_not_finite == 3
    assert (session.drops.audio_overruns, clean.drops.audio_overruns) == (3, 0)


@pytest.mark.parametrize("chunk", [7, 320, 1601, 16_000])
def test_a_stretch_of_not_finite_samples_is_one_break(chunk: int, make: Make) -> None:
    bad = NOISE[:16_000].copy()
    bad[:5], bad[1590:1620], bad[9000:12_000], bad[-1] = np.nan, np.inf, -np.inf, np.nan
    session = make(t0_ns=0)
    for at in range(0, len(bad), chunk):
        session.push_audio(bad[at : at + chunk], at * 62_500)
    assert finish(session)[-1].drops.audio_overruns == 4
    assert session._sound.samples_not_finite == 5 + 30 + 3000 + 1


def test_lag_is_bounded(make: Make) -> None:
    session = make(t0_ns=0, max_lag_ms=200)
    session.push_audio(NOISE[: 16 * 690], 0)
    assert session.poll() == []
    session.push_audio(NOISE[16 * 690 : 16 * 705], 690 * MS)
    assert [e.t_ns for e in session.poll()] == [TICK(14)]


def test_finish_gives_the_partial_hop(make: Make) -> None:
    session = make(t0_ns=0)
    estimates = run(session, by_time(*events(make_clip(0.7))))
    assert [len(e.trail) for e in estimates] == [15, 6]
    session = make(t0_ns=0)
    session.push_face(FACE, 0)
    (estimate,) = finish(session)
    assert estimate.t_ns == 0
    assert len(estimate.trail) == 1
    assert estimate.face is not None
    session.finish()
    assert session.poll() == []


def test_last_frame_reaches_the_tick_after_it(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_face(FACE, 0)
    session.push_face(FACE, 40 * MS, track=7)
    (estimate,) = finish(session)
    assert estimate.t_ns == TICK(2)
    assert estimate.face is not None
    assert estimate.face.track == 7


def test_pixels_are_copied_unless_the_caller_keeps_them(make: Make) -> None:
    outcomes = []
    for copy in (True, False):
        session = make(t0_ns=0)
        face = FACE.copy()
        session.push_face(face, 0, copy=copy)
        face[:] = 0
        session.push_face(None, TICK(1))
        outcomes.append(finish(session)[0].trail[0])
    session = make(t0_ns=0)
    session.push_face(FACE, 0)
    session.push_face(None, TICK(1))
    assert outcomes[0] == finish(session)[0].trail[0]
    assert outcomes[1] != outcomes[0]


def test_estimates_stay_in_range(make: Make) -> None:
    session = make(t0_ns=0)
    assert session._graphs is not None
    fusion = session._graphs.fusion
    plain = fusion.run

    def beyond(items: int | None = None) -> None:
        plain(items)
        fusion.outputs["estimates"][...] = (1.0039, -1.0039)

    fusion.run = beyond  # type: ignore[method-assign]
    session.push_face(FACE, 0)
    (estimate,) = finish(session)
    assert (estimate.valence, estimate.arousal, estimate.trail) == (1, -1, ((0, 1, -1),))


def test_json_is_strict(make: Make) -> None:
    estimates = run(make(t0_ns=0), by_time(*events(make_clip(1))))
    line = json.loads(estimates[0].to_json(), parse_constant=pytest.fail)
    assert list(line) == ["v", "t_ns", "age_ms", "valence", "arousal", "reliability", "face", "audio", "drops", "trail", "smooth", "live"]
    assert line["trail"][-1] == [line["t_ns"], line["valence"], line["arousal"]]
    assert "\n" not in estimates[0].to_json()


def test_losses_from_outside_are_added(make: Make) -> None:
    session = make(t0_ns=0)
    session.count_drops(frames_stale=2, audio_overruns=3, sinks=4)
    session.push_face(FACE, 0)
    (estimate,) = finish(session)
    assert (estimate.drops.frames_stale, estimate.drops.audio_overruns, estimate.drops.sinks) == (2, 3, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.push_face(FACE.astype(np.float32), 0), "float32 [48, 48, 3], must be uint8 [H, W, 3]"),
        (lambda s: s.push_face(FACE[..., 0], 0), "[H, W, 3]"),
        (lambda s: s.push_face(FACE[:0], 0), "[0, 48, 3]"),
        (lambda s: s.push_frame([1], 0), "list"),
        (lambda s: s.push_frame(FACE, 0, format="rgba"), "'rgba' is unknown"),
        (lambda s: s.push_frame(FACE, 0, format="nv12"), "[H * 3 / 2, W]"),
        (lambda s: s.push_frame(FACE[:, :47, :2], 0, format="yuyv"), "W even"),
        (lambda s: s.push_audio(np.zeros(3), 0), "float64 [3], must be float32 [n]"),
        (lambda s: s.push_audio(np.zeros(3, np.int16), 0), "divided by 32768"),
        (lambda s: s.push_audio(np.zeros((2, 3), np.float32), 0), "[2, 3]"),
        (lambda s: s.push_audio([0.0], 0), "list"),
        (lambda s: s.push_face(FACE, 0, track="1"), "track is '1', must be a whole number"),
        (lambda s: s.push_face(FACE, 0, track=1 << 63), "of less than 64 bits"),
        (lambda s: s.push_face(FACE, 0.5), "whole number of nanoseconds"),
        (lambda s: s.push_audio(NOISE, "0"), "whole number of nanoseconds"),
        (lambda s: s.advance(None), "whole number of nanoseconds"),
    ],
)
def test_wrong_input_changes_nothing(make: Make, call: Callable[[Session], None], words: str) -> None:
    session = make(hop=1)
    with pytest.raises(UsageError) as caught:
        call(session)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    session.push_face(FACE, 10 * SECOND)
    (estimate,) = finish(session)
    assert estimate.t_ns == 10 * SECOND
    assert estimate.drops.frames_stale == 0


def test_numpy_stamps_are_fine(make: Make) -> None:
    session = make()
    session.push_face(FACE, np.int64(7))  # type: ignore[arg-type]
    (estimate,) = finish(session)
    assert type(estimate.t_ns) is int
    json.dumps(estimate.to_dict())


def test_jump_of_the_clock(make: Make) -> None:
    session = make()
    session.push_face(FACE, 0)
    for call in (lambda t: session.push_face(FACE, t), lambda t: session.push_audio(NOISE[:10], t), session.advance):
        with pytest.raises(UsageError, match="ahead of the session"):
            call(MAX_JUMP_NS + 1)
    session.push_face(FACE, TICK(1))
    assert len(finish(session)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"hop": 0},
        {"hop": 301},
        {"hop": 1.5},
        {"hop": True},
        {"max_lag_ms": -1},
        {"backend": "tensor"},
        {"threads": 0},
        {"precision": "fp16"},
        {"t0_ns": 0.5},
    ],
)
def test_wrong_options(bundle: Bundle, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Session(bundle, **options)  # type: ignore[arg-type]


def test_closed_and_finished(make: Make) -> None:
    session = make(t0_ns=0)
    session.push_face(FACE, 0)
    session.finish()
    for call in (lambda: session.push_face(FACE, 1), lambda: session.push_audio(NOISE, 1), lambda: session.advance(1)):
        with pytest.raises(UsageError, match="finished"):
            call()
    session.close()
    session.close()
    assert len(session.poll()) == 1
    assert session.hello()["precision"] == "fp32"
    for call in (lambda: session.push_face(FACE, 1), lambda: session.push_audio(NOISE, 1), lambda: session.advance(1)):
        with pytest.raises(UsageError, match="closed"):
            call()
    with make() as other:
        pass
    for call in (other.finish, lambda: other.push_frames([]), lambda: other.push_frames([FrameEvent(0, FACE, "rgb")])):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_hello(make: Make) -> None:
    hello = make(hop=7).hello()
    assert hello["type"] == "hello"
    assert hello["hop"] == 7
    assert hello["trained_on"] == {"name": "synthetic", "synthetic": True, "seed": 0}
    assert (hello["precision"], hello["backend"], hello["window"]) == ("fp32", "onnxruntime", 300)
    json.dumps(hello)
