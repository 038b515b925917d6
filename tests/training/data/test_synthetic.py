from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.cli.main import main
from sage_edge.runtime.errors import DataError, UsageError
from sage_edge.training.data import affwild2
from sage_edge.training.data.synthetic import make_video, plan, read_corruption, synthesise
from sage_edge.training.data.synthetic_latent import AUDIO_KINDS, VISUAL_KINDS, Corruption, affect, draw_corruptions


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


@given(seed=st.integers(0, 3), train=st.integers(1, 60), val=st.integers(1, 30))
def test_nobody_is_in_two_videos(seed: int, train: int, val: int) -> None:
    videos = plan(seed, train, val, 10)
    people = [person for video in videos for person in video.people]
    assert sorted(people) == list(range(train + val))
    assert {split: sum(len(v.people) for v in videos if v.split == split) for split in ("train", "val")} == {"train": train, "val": val}
    assert len({video.name for video in videos}) == len(videos)
    assert all(len(video.people) in (1, 2) for video in videos)
    if train >= 10:
        assert any(len(v.people) == 2 for v in videos)


def test_the_default_plan_is_varied() -> None:
    videos = plan(0, 32, 10, 40)
    rates = [video.rate for video in videos]
    assert rates.count(Fraction(30)) > len(videos) / 2
    assert {Fraction(30000, 1001), Fraction(25), Fraction(24000, 1001), Fraction(24)} <= set(rates)
    assert (640, 480) in {video.size for video in videos}
    assert {len(v.people) for v in videos if v.split == "val"} == {1, 2}


def test_layout_is_what_readers_of_aff_wild2_expect(corpus: Path) -> None:
    trials = affwild2.find_trials(corpus)
    assert [t.split for t in trials] == ["train", "train", "val"]
    subjects = json.loads((corpus / "synthetic/corpus.json").read_text())["subjects"]
    assert set(subjects) == {t.name for t in trials}
    for trial in trials:
        assert trial.labels is not None
        labels, valid = affwild2.read_labels(trial.labels)
        assert np.abs(labels).max() <= 1
        assert valid.mean() > 0.6
        with av.open(str(trial.media)) as container:
            assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
            frames = sum(1 for _ in container.decode(video=0))
        assert abs(len(labels) - frames) <= 1
        crops = affwild2.crop_numbers(trial.crops)
        assert len(crops) > 0.7 * frames
        assert max(crops) < frames
        assert {np.asarray(cv2.imread(str(path))).shape for path in crops.values()} == {(112, 112, 3)}


def test_the_same_seed_makes_the_same_files(corpus: Path, tmp_path: Path) -> None:
    again = synthesise(tmp_path / "again", seed=7, train=2, val=1, seconds=3, workers=2, progress=False)
    first, second = contents(corpus), contents(again)
    assert first == second
    other = synthesise(tmp_path / "other", seed=8, train=1, val=1, seconds=2, workers=1, progress=False)
    labels = "VA_Estimation_Challenge/Train_Set/1-30-320x240.txt"
    assert contents(other)[labels] != first[labels]


def test_two_people_in_a_video_are_two_trials(tmp_path: Path) -> None:
    (pair,) = (video for video in plan(1, 10, 1, 2) if len(video.people) == 2)
    for folder in ("batch1", "cropped_aligned", "VA_Estimation_Challenge/Train_Set"):
        (tmp_path / folder).mkdir(parents=True)
    record = make_video(pair, tmp_path)
    trials = affwild2.find_trials(tmp_path)
    assert [t.name for t in trials] == [f"{pair.name}_left", f"{pair.name}_right"] == list(record)
    assert trials[0].media == trials[1].media
    (a, _), (b, _) = (affwild2.read_labels(trial.labels) for trial in trials if trial.labels)
    n = min(len(a), len(b))
    assert not np.allclose(a[:n, 0], b[:n, 0])
    crops = [np.asarray(cv2.imread(str(next(iter(affwild2.crop_numbers(t.crops).values())))), int) for t in trials]
    assert np.abs(crops[0] - crops[1]).mean() > 10  # two different faces


def test_corruption_is_on_record_and_visible(tmp_path: Path) -> None:
    root = synthesise(tmp_path / "c", seed=3, train=3, val=1, seconds=8, workers=2, progress=False)
    record = json.loads((root / "synthetic/corruption.json").read_text())
    assert set(record) == {t.name for t in affwild2.find_trials(root)}
    seen = 0
    for trial in affwild2.find_trials(root):
        crops = affwild2.crop_numbers(trial.crops)
        with av.open(str(trial.media)) as container:
            times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        for entry in record[trial.name]:
            assert entry["kind"] in VISUAL_KINDS + AUDIO_KINDS
            assert 0 < entry["start_s"] < entry["end_s"] < times[-1]
            if entry["kind"] in VISUAL_KINDS:
                inside = [i for i, t in enumerate(times) if entry["start_s"] + 0.45 <= t <= entry["end_s"] - 0.3]
                assert not [i for i in inside if i in crops]
                seen += 1
    assert seen


def test_latents_span_their_range_and_differ() -> None:
    tracks = [affect(np.random.default_rng(seed), 40) for seed in range(20)]
    assert all(np.abs(track).max() <= 1 for track in tracks)
    assert np.mean([np.quantile(track, 0.95) - np.quantile(track, 0.05) for track in tracks]) > 1.2
    assert all(0.35 < track.std() < 0.8 for track in tracks)
    n = min(map(len, tracks))
    alike = np.abs(np.corrcoef([track[:n] for track in tracks]) - np.eye(20))
    assert alike.max() < 0.95
    assert alike.sum() / (20 * 19) < 0.4


def test_corruptions_do_not_overlap_and_some_videos_have_none() -> None:
    drawn = [draw_corruptions(np.random.default_rng(seed), 40) for seed in range(60)]
    assert 5 < sum(not found for found in drawn) < 30
    assert max(map(len, drawn)) > 1
    assert {c.kind for found in drawn for c in found} == set(VISUAL_KINDS + AUDIO_KINDS)
    for found in drawn:
        assert all(before.end_s < after.start_s for before, after in itertools.pairwise(found))
        assert all(2 <= c.end_s - c.start_s <= 5.1 for c in found)
    assert Corruption("mute", 1, 2).level(np.array([0.9, 1.5, 2.1])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("options", [{"train": 0}, {"val": 0}, {"seconds": 1}, {"seconds": 1e9}])
def test_wrong_numbers_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        synthesise(tmp_path / "c", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("x")
    assert main(["synth", str(tmp_path), "--train", "1", "--val", "1", "--seconds", "2"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sage_edge.cli.main", "synth", str(tmp_path / "c"), "--seconds", "60", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")):  # both workers are at it
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: everyone in the group gets it
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("synth ")] == ["error: interrupted; nothing half-written was left behind"]
    assert not list(tmp_path.iterdir())


def test_the_command_makes_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "c"), "--train", "1", "--val", "1", "--seconds", "2", "--seed", "9", "--workers", "1"]) == 0
    assert "1 people to train on, 1 to validate on, seed 9" in capsys.readouterr().out
    assert [t.split for t in affwild2.find_trials(tmp_path / "c")] == ["train", "val"]
    assert read_corruption(tmp_path / "c") == {"1-30-320x240": [], "2-30-320x240": []}
    with pytest.raises(DataError, match="only a corpus made by sage-edge synth"):
        read_corruption(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("resource")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"  # no file may grow beyond 20 kB
        "from sage_edge.cli.main import main\n"
        "sys.exit(main(['synth', sys.argv[1], '--train', '1', '--val', '1', '--seconds', '3', '--workers', sys.argv[2]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c"), str(workers)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("synth ")]
    assert len(errors) == 1
    assert "cannot be written: File too large; free some disk space" in errors[0]
    assert not list(tmp_path.iterdir())
