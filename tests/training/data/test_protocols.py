from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import DataError
from sage_edge.runtime.metrics import affect_ccc
from sage_edge.runtime.ticks import tick_time_ns
from sage_edge.training.data.protocols import hold, overlap, score
from sage_edge.training.data.store import Trial

MakeTrial = Callable[..., Trial]


@settings(deadline=None, max_examples=60)
@given(rate=st.sampled_from([15.0, 23.976, 25.0, 30.0, 60.0]), frames=st.integers(1, 250), length=st.integers(2, 120), data=st.data())
def test_overlap_gives_each_frame_the_mean_of_the_windows_at_its_tick(
    make_trial: MakeTrial, rate: float, frames: int, length: int, data: st.DataObject
) -> None:
    trial = make_trial(rate, frames)
    stride = data.draw(st.integers(1, length))
    calls: list[int] = []

    def predict(newest: int) -> np.ndarray:
        calls.append(newest)
        ticks = np.arange(newest - length + 1, newest + 1)
        return np.stack([ticks + 0.001 * newest, np.full(length, newest)], 1)

    result = overlap(trial, predict, length, stride)
    assert result.shape == (frames, 2)
    assert result.dtype == np.float32
    for frame in range(frames):
        tick = next(k for k in range(trial.n_ticks) if tick_time_ns(k) >= trial.frame_t_ns[frame])
        ends = [end for end in calls if end - length < tick <= end]
        assert ends
        assert result[frame, 0] == pytest.approx(tick + 0.001 * np.mean(ends), abs=1e-3)
        assert result[frame, 1] == pytest.approx(np.mean(ends), abs=1e-3)


def test_overlap_refuses_a_window_of_another_length(make_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match=r"shape \(10, 2\)"):
        overlap(make_trial(), lambda _newest: np.zeros((10, 2)), 50, 50)


@given(frames=st.integers(1, 100), stamps=st.lists(st.integers(0, 4_000_000_000), unique=True, max_size=20))
def test_hold_is_causal_and_newest_wins(make_trial: MakeTrial, frames: int, stamps: list[int]) -> None:
    trial = make_trial(frames=frames)
    stamps = sorted(stamps)
    estimates = np.stack([np.arange(len(stamps)) + 1, -(np.arange(len(stamps)) + 1)], 1) if stamps else np.zeros((0, 2))
    held = hold(trial, stamps, estimates)
    for frame, t_ns in enumerate(trial.frame_t_ns):
        before = [i for i, stamp in enumerate(stamps) if stamp <= t_ns]
        expected = (before[-1] + 1, -(before[-1] + 1)) if before else (0, 0)
        assert tuple(held[frame]) == expected


def test_hold_refuses_times_that_go_back(make_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match="ascending"):
        hold(make_trial(), [5, 3], np.zeros((2, 2)))


def test_score_pools_valid_frames_only(make_trial: MakeTrial) -> None:
    first, second = make_trial(frames=40, unlabelled=(3, 4)), make_trial(frames=60)
    second = Trial(**{**second.__dict__, "name": "other"})
    rng = np.random.default_rng(0)
    guesses = {"made": rng.uniform(-1, 1, (40, 2)), "other": rng.uniform(-1, 1, (60, 2))}
    result = score(guesses, [first, second])
    keep = [i for i in range(40) if i not in (3, 4)]
    pooled = affect_ccc(np.concatenate([guesses["made"][keep], guesses["other"]]), np.concatenate([first.labels[keep], second.labels]))
    assert {name: result[name] for name in pooled} == pooled
    assert set(result["per_video"]) == {"made", "other"}
    guesses["made"][3] = 1e9  # a frame without a label counts for nothing
    assert score(guesses, [first, second]) == result


def test_score_without_labels_is_refused(make_trial: MakeTrial) -> None:
    trial = make_trial(frames=3, unlabelled=(0, 1, 2))
    with pytest.raises(DataError, match="no frame of these trials has a label"):
        score({"made": np.zeros((3, 2))}, [trial])


def test_equal_labels_are_said_and_pooled_with_others_they_count(make_trial: MakeTrial) -> None:
    varies, still = make_trial(frames=50), replace(make_trial(frames=40), name="still", labels=np.tile(np.float32([0.1, -0.2]), (40, 1)))
    blank = replace(make_trial(frames=5, unlabelled=(0, 1, 2, 3, 4)), name="blank")
    guesses = {trial.name: np.random.default_rng(0).uniform(-1, 1, (len(trial.labels), 2)) for trial in (varies, still, blank)}
    result = score(guesses, [varies, still, blank])
    assert set(result["per_video"]) == {"made", "still"}
    alone = result["per_video"]["still"]
    assert all(math.isnan(alone[name]) for name in ("valence", "arousal", "mean"))
    assert alone["undefined"] == {"valence": "all labels equal", "arousal": "all labels equal"}
    assert result["undefined"] == result["per_video"]["made"]["undefined"] == {}
    assert math.isfinite(result["mean"])
