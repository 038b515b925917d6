from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.ticks import first_sample, tick_time_ns
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import window_at, window_ends

MakeTrial = Callable[..., Trial]
RATES = (15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0)


@settings(deadline=None)
@given(n_ticks=st.integers(1, 2000), length=st.integers(1, 400), data=st.data())
def test_windows_cover_every_tick_and_end_with_the_clip(n_ticks: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    ends = window_ends(n_ticks, length, stride)
    covered = {tick for end in ends for tick in range(end - length + 1, end + 1)}
    assert covered >= set(range(n_ticks))
    assert ends[-1] == n_ticks - 1
    assert ends == sorted(set(ends))
    assert len(ends) == 1 or ends[0] == length - 1


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 301"):
        window_ends(1000, 300, 301)


def test_full_window_inside_the_clip(make_trial: MakeTrial) -> None:
    trial = make_trial(frames=400)
    window = window_at(trial, 350)
    assert window.faces.shape == (300, 48, 48, 3)
    assert window.samples.shape == (160_000,)
    assert window.visual_mask.all()
    assert window.audio_mask.all()
    assert window.labels_valid.all()
    np.testing.assert_array_equal(window.tick_face, np.arange(51, 351))
    np.testing.assert_array_equal(window.faces[:, 0, 0, 0], np.arange(51, 351) % 256)
    np.testing.assert_allclose(window.labels[:, 0], np.arange(51, 351) / 400, atol=1e-6)
    start = first_sample(51)
    np.testing.assert_allclose(window.samples * 32768, (np.arange(start, start + 160_000)) % 1000 + 1, atol=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    rate=st.sampled_from(RATES), frames=st.integers(1, 200), newest=st.integers(-40, 500), length=st.integers(1, 330),
    samples=st.integers(0, 120_000),    missing=st.sets(st.integers(0, 199), max_size=30), unlabelled=st.sets(st.integers(0, 199), max_size=30),
)  # fmt: skip
def test_masks_say_what_is_there_and_the_rest_is_zero(
    make_trial: MakeTrial, rate: float, frames: int, newest: int, length: int, samples: int, missing: set[int], unlabelled: set[int]
) -> None:
    trial = make_trial(rate, frames, samples, tuple(missing), tuple(unlabelled))
    window = window_at(trial, newest, length)
    first = newest - length + 1
    assert len(window.visual_mask) == len(window.audio_mask) == len(window.labels) == length
    for i, tick in enumerate(range(first, newest + 1)):
        inside = 0 <= tick < trial.n_ticks
        # the frame a tick takes, from the definition: the newest at or before it, not older than 150 ms
        known = np.flatnonzero(trial.frame_t_ns <= tick_time_ns(tick)) if inside else np.zeros(0, int)
        frame = int(known[-1]) if len(known) and tick_time_ns(tick) - trial.frame_t_ns[known[-1]] <= 150_000_000 else -1
        has_face = frame >= 0 and frame not in missing
        assert window.visual_mask[i] == has_face
        assert (window.tick_face[i] >= 0) == has_face
        heard = inside and first_sample(tick + 1) <= samples
        assert window.audio_mask[i] == heard
        low, high = first_sample(tick) - first_sample(first), first_sample(tick + 1) - first_sample(first)
        if not heard:
            assert not window.samples[low:high].any()
        else:
            assert (window.samples[low : min(high, len(window.samples))] > 0).all()
        assert window.labels_valid[i] == (frame >= 0 and frame not in unlabelled)
        if window.labels_valid[i]:
            assert window.labels[i, 0] == trial.labels[frame, 0]
    assert not window.faces[~window.visual_mask].any()


@pytest.mark.parametrize("rate", RATES)
def test_tick_grid_follows_the_frames_at_any_rate(make_trial: MakeTrial, rate: float) -> None:
    trial = make_trial(rate, frames=300)
    last_ns = int(trial.frame_t_ns[-1])
    assert tick_time_ns(trial.n_ticks - 1) >= last_ns > tick_time_ns(trial.n_ticks - 2)
    age = np.array([tick_time_ns(k) for k in range(trial.n_ticks)]) - trial.frame_t_ns[trial.tick_frame]
    assert (age >= 0).all()
    assert (age < 1e9 / rate + 1).all()  # never older than one frame's length
    assert (np.diff(trial.tick_frame) >= 0).all()
    expected = {15.0: 0.5, 60.0: 2.0}.get(rate)
    if expected:
        assert np.diff(trial.tick_frame).mean() == pytest.approx(expected, rel=0.02)
    lateness = np.array([tick_time_ns(int(k)) for k in trial.frame_tick]) - trial.frame_t_ns
    assert (lateness >= 0).all()
    assert (lateness < 1e9 / 30 + 1).all()


def test_frames_lost_by_the_recorder_switch_the_mask_off(make_trial: MakeTrial) -> None:
    trial = make_trial(30.0, frames=60)
    times = np.concatenate([trial.frame_t_ns[:20], trial.frame_t_ns[40:]])
    gap = Trial(**{**trial.__dict__, "frame_t_ns": times, "frame_face": np.arange(40, dtype=np.int32)})
    off = np.flatnonzero(gap.tick_face < 0)
    np.testing.assert_array_equal(off, np.arange(24, 40))  # frame 19 serves ticks 19 .. 23, 133 ms; then nothing until frame 40


def test_native_ticks_are_the_frames(make_trial: MakeTrial) -> None:
    trial = make_trial(25.0, frames=400, native=True)
    assert trial.n_ticks == 400
    window = window_at(trial, 350, 300)
    np.testing.assert_array_equal(window.tick_face, np.arange(51, 351))
    assert len(window.samples) == 192_000  # 300 frames of 25 a second
    assert window.audio_mask.all()
    assert window.samples[0] * 32768 == (51 * 640) % 1000 + 1
    early = window_at(trial, 10, 300)
    assert early.audio_mask.sum() == 11
    assert early.visual_mask.sum() == 11


def test_samples_outside_the_sound_are_zero(make_trial: MakeTrial) -> None:
    trial = make_trial(samples=100)
    got = trial.samples(-5, 120)
    assert not got[:5].any()
    assert not got[105:].any()
    np.testing.assert_allclose(got[5:105] * 32768, np.arange(100) + 1)
    assert not trial.samples(500, 10).any()
