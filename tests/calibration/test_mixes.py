"""Which stretches of the validation videos a mix is measured on: as many windows as were asked for, of as many people, from their beginnings."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.calibration.mixes import stretches
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import window_at, window_ends

WINDOW, STRIDE = 30, 20


def trial(name: str, frames: int, rate_hz: float = 30.0) -> Trial:
    rng = np.random.default_rng(len(name) + frames)
    return Trial(
        name=name,
        split="val",
        source=f"{name}.mp4",
        subject=name,
        frame_t_ns=(np.arange(frames) * 1e9 / rate_hz).astype(np.int64),
        frame_face=np.arange(frames, dtype=np.int32),
        faces=rng.integers(0, 256, (frames, 48, 48, 3), np.uint8),
        labels=rng.uniform(-1, 1, (frames, 2)).astype(np.float32),
        labels_valid=rng.random(frames) < 0.9,
        audio=rng.integers(-999, 999, int(frames / rate_hz * 16000), np.int16),
        rate_hz=30,
    )


def windows(trials: list[Trial]) -> list[int]:
    return [len(window_ends(each.n_ticks, WINDOW, STRIDE)) for each in trials]


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_long_videos_give_as_many_windows_as_asked_for(count: int) -> None:
    trials = [trial("a", 400), trial("b", 300, 24.0), trial("c", 350, 59.94)]
    some = stretches(trials, WINDOW, STRIDE, count)
    assert len(some) == min(count, 3)
    assert max(windows(some)) == -(-count // len(some))
    assert count <= sum(windows(some)) < count + len(some)


def test_many_videos_are_spread_over() -> None:
    trials = [trial(f"t{i}", 60) for i in range(9)]
    assert [each.name for each in stretches(trials, WINDOW, STRIDE, 3)] == ["t0", "t4", "t8"]


def test_short_videos_stay_whole() -> None:
    short = trial("a", 25)
    assert stretches([short], WINDOW, STRIDE, 5) == [short]


def test_what_is_left_of_a_video_is_its_beginning_frame_by_frame() -> None:
    whole = trial("a", 300, 24.0)
    (part,) = stretches([whole], WINDOW, STRIDE, 3)
    frames = len(part.frame_t_ns)
    assert 0 < frames < 300
    for name in ("frame_t_ns", "frame_face", "labels", "labels_valid"):
        assert (getattr(part, name) == getattr(whole, name)[:frames]).all()
    for newest in window_ends(part.n_ticks, WINDOW, STRIDE):
        a, b = (window_at(each, newest, WINDOW) for each in (part, whole))
        assert (a.samples == b.samples).all()
        assert (a.faces == b.faces).all()
        assert (a.visual_mask == b.visual_mask).all()
