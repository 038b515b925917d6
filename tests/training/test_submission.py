"""The challenge's file: its lines, its numbers, and whole or not at all."""

from dataclasses import replace

import numpy as np
import pytest

from sage_edge.runtime.errors import UsageError
from sage_edge.training import submission


def unlabelled(trial):
    return replace(trial, labels_valid=np.zeros_like(trial.labels_valid))


def estimates(trials, scale=1.0):
    rng = np.random.default_rng(0)
    return {trial.name: scale * rng.uniform(-1, 1, trial.labels.shape) for trial in trials}


def test_a_labelled_split_has_a_line_per_frame_with_a_label(toy, tmp_path):
    trials = toy.trials("val")
    frames = estimates(trials)
    written = submission.write(tmp_path / "out", trials, frames)
    lines = (tmp_path / "out" / "predictions.txt").read_text().splitlines()
    assert lines[0] == "image_location,valence,arousal"
    assert len(lines) - 1 == written.rows == sum(int(trial.labels_valid.sum()) for trial in trials)
    assert written.videos == len(trials)
    rows = dict(line.split(",", 1) for line in lines[1:])
    assert len(rows) == written.rows
    for trial in trials:
        for frame in (0, 4, 8, len(trial.labels) - 1):
            said = np.array(rows[f"{trial.name}/{frame + 1:05d}.jpg"].split(","), float)
            assert said == pytest.approx(frames[trial.name][frame], abs=1e-6)
        assert f"{trial.name}/00006.jpg" not in rows, "frame 5 has no valid label"


def test_a_split_without_labels_has_every_frame_faces_or_not(toy, tmp_path):
    trials = [unlabelled(trial) for trial in toy.trials("val")]
    submission.write(tmp_path / "out", trials, estimates(trials))
    lines = (tmp_path / "out" / "predictions.txt").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [f"{trial.name}/{i + 1:05d}.jpg" for trial in trials for i in range(len(trial.labels))]
    assert any((trial.frame_face < 0).any() for trial in trials)


def test_values_are_clipped(toy, tmp_path):
    trials = toy.trials("val")
    submission.write(tmp_path / "out", trials, estimates(trials, scale=3.0))
    values = np.loadtxt(tmp_path / "out" / "predictions.txt", delimiter=",", skiprows=1, usecols=(1, 2))
    assert values.min() == -1
    assert values.max() == 1


def test_an_existing_path_is_refused_and_a_failure_leaves_nothing(toy, tmp_path):
    trials = toy.trials("val")
    (tmp_path / "there").write_text("mine")
    for call in (lambda: submission.refuse_existing(tmp_path / "there"), lambda: submission.write(tmp_path / "there", trials, estimates(trials))):
        with pytest.raises(UsageError, match="exists already"):
            call()
    assert (tmp_path / "there").read_text() == "mine"
    partial = estimates(trials[:1])
    with pytest.raises(KeyError):
        submission.write(tmp_path / "out" / "deep", trials, partial)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
