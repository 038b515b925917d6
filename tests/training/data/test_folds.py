"""Folds: a partition that divides no video and nobody, balanced, and the same whatever the order of the trials."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import UsageError
from sage_edge.training.data.folds import split_folds
from sage_edge.training.data.store import Trial


def trial(name: str, source: str, subject: str | None, frames: int) -> Trial:
    empty = np.zeros(0, np.int16)
    times = np.arange(frames, dtype=np.int64)
    return Trial(
        name=name, split="train", source=source, subject=subject, frame_t_ns=times, frame_face=times.astype(np.int32),
        faces=np.zeros((0, 48, 48, 3), np.uint8), labels=np.zeros((frames, 2), np.float32), labels_valid=np.ones(frames, bool),
        audio=empty, rate_hz=30,
    )  # fmt: skip


@st.composite
def corpora(draw: st.DrawFn) -> list[Trial]:
    n = draw(st.integers(2, 24))
    names = [f"t{i // 2:02d}{('_left', '_right')[i % 2]}" if draw(st.booleans()) else f"u{i:02d}" for i in range(n)]
    return [trial(name, f"video{draw(st.integers(0, n))}.mp4", f"person{draw(st.integers(0, n))}", draw(st.integers(1, 5000))) for name in names]


def video(trial: Trial) -> str:
    """What two people of one video have in common."""
    return trial.name.removesuffix("_left").removesuffix("_right")


def count_groups(trials: list[Trial], by: str) -> int:
    """How many parts there are that share no source, no video's name and, by subject, nobody."""
    groups: list[set[tuple[str, str | None]]] = []
    for trial in trials:
        keys = {("source", trial.source), ("video", video(trial))} | ({("subject", trial.subject)} if by == "subject" else set())
        touched = [group for group in groups if group & keys]
        groups = [group for group in groups if not group & keys] + [keys.union(*touched)]
    return len(groups)


def names(trials: list[Trial]) -> list[str]:
    return [trial.name for trial in trials]


@settings(deadline=None, max_examples=60)
@given(trials=corpora(), by=st.sampled_from(["source", "subject"]), k=st.integers(2, 6), seed=st.integers(0, 9), data=st.data())
def test_every_trial_is_held_out_once_and_no_group_is_divided(trials: list[Trial], by: str, k: int, seed: int, data: st.DataObject) -> None:
    if count_groups(trials, by) < k:
        with pytest.raises(UsageError, match=f"folds={k} is more than the {count_groups(trials, by)} groups by {by}"):
            split_folds(trials, k, 0, by, seed)
        return
    folds = [split_folds(trials, k, fold, by, seed) for fold in range(k)]
    assert sorted(name for _, val in folds for name in names(val)) == sorted(names(trials))
    for train, val in folds:
        assert train
        assert val
        assert sorted(names(train) + names(val)) == sorted(names(trials))
        assert not {trial.source for trial in train} & {trial.source for trial in val}
        assert not {video(trial) for trial in train} & {video(trial) for trial in val}
        if by == "subject":
            assert not {trial.subject for trial in train} & {trial.subject for trial in val}
    again = data.draw(st.permutations(trials))
    assert [names(val) for _, val in folds] == [names(split_folds(again, k, fold, by, seed)[1]) for fold in range(k)]


@settings(deadline=None, max_examples=40)
@given(frames=st.lists(st.integers(1, 5000), min_size=6, max_size=30), k=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_differ_by_no_more_frames_than_the_longest_video_has(frames: list[int], k: int, seed: int) -> None:
    trials = [trial(f"t{i:02d}", f"v{i}.mp4", None, n) for i, n in enumerate(frames)]
    sizes = [sum(len(trial.frame_t_ns) for trial in split_folds(trials, k, fold, seed=seed)[1]) for fold in range(k)]
    assert max(sizes) - min(sizes) <= max(frames)


def test_another_seed_divides_otherwise() -> None:
    trials = [trial(f"t{i:02d}", f"v{i}.mp4", None, 100) for i in range(12)]
    assert len({tuple(names(split_folds(trials, 3, 0, seed=seed)[1])) for seed in range(8)}) > 1


def test_two_people_of_one_video_stay_together() -> None:
    trials = [trial("7_left", "7.mp4", "a", 50), trial("7_right", "7.mp4", "b", 50), trial("8", "8.mp4", "b", 50), trial("9", "9.mp4", "c", 50)]
    assert sorted(len(split_folds(trials, 3, fold)[1]) for fold in range(3)) == [1, 1, 2]
    assert sorted(len(split_folds(trials, 2, fold, "subject")[1]) for fold in range(2)) == [1, 3]


@pytest.mark.parametrize("by", ["source", "subject"])
def test_two_people_of_one_video_stay_together_where_each_has_a_file(by: str) -> None:
    trials = [trial(name, f"{name}.mp4", name, 50) for name in ("7_left", "7_right", "8", "9")]
    held = [names(split_folds(trials, 3, fold, by)[1]) for fold in range(3)]
    assert sorted(held) == [["7_left", "7_right"], ["8"], ["9"]]


def test_what_cannot_be_divided_is_refused_in_one_line() -> None:
    trials = [trial(f"t{i}", f"v{i}.mp4", f"p{i}" if i else None, 10) for i in range(4)]
    for arguments, message in (
        ((1, 0), "folds=1 divides nothing"),
        ((5, 0), "folds=5 is more than the 4 groups by source"),
        ((3, 3), "fold=3 is not within 0 and 2"),
        ((3, -1), "fold=-1 is not within"),
        ((3, 0, "person"), "fold_by='person' is unknown"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            split_folds(trials, *arguments)
        assert "\n" not in str(caught.value)
    unknown = [*trials, dataclasses.replace(trials[0], name="t9")]
    with pytest.raises(UsageError, match="2 of 5 trials have no known subject"):
        split_folds(unknown, 2, 0, "subject")
