"""Every kind of bad or odd input of a corpus: what is refused, what is counted, and that frames, labels and sound stay together."""

from __future__ import annotations

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sage_edge.cli.main import main
from sage_edge.runtime.errors import DataError, SourceError
from sage_edge.runtime.native import resize
from sage_edge.training.data.prepare import _picture
from sage_edge.training.data.store import Store, Trial, prepare
from sage_edge.training.data.summary import PUBLISHED
from sage_edge.training.data.windows import window_at, window_ends

sys.path.append(str(Path(__file__).parents[2] / "runtime"))
from make_video import even_stamps, flash_and_click, write_video

FRAMES = 45


def add(
    root: Path, trial: str, stamps: list[Fraction], labels: str | None = None, split: str = "Train_Set", crops: range | None = None, **video: Any
) -> None:
    """One trial: a crop for each frame, brightness 3 k + 20 for frame k (from 0), unless `crops` says otherwise; label k / 100."""
    text = "".join(f"{k / 100},{-k / 100}\n" for k in range(len(stamps))) if labels is None else labels
    for path in (root / f"VA_Estimation_Challenge/{split}/{trial}.txt", root / f"cropped_aligned/{trial}/x", root / "batch1/x"):
        path.parent.mkdir(parents=True, exist_ok=True)
    (root / f"VA_Estimation_Challenge/{split}/{trial}.txt").write_text("valence,arousal\n" + text)
    for k in crops if crops is not None else range(len(stamps)):
        cv2.imwrite(str(crop(root, trial, k)), np.full((112, 112, 3), 20 + 3 * k, np.uint8))
    media = root / f"batch1/{trial.removesuffix('_left').removesuffix('_right')}.mp4"
    if not media.exists():
        write_video(media, stamps_s=stamps, **video)


def crop(root: Path, trial: str, frame: int) -> Path:
    return root / f"cropped_aligned/{trial}/{frame + 1:05d}.jpg"


def prepared(tmp_path: Path, **options: Any) -> tuple[Any, dict[str, Trial]]:
    summary = prepare(tmp_path / "c", tmp_path / "s", workers=1, progress=False, **options)
    store = Store.open(tmp_path / "s")
    return summary, {entry["name"]: next(t for t in store.trials(entry["split"]) if t.name == entry["name"]) for entry in store.entries}


def click_s(trial: Trial) -> float:
    x = np.abs(trial.audio.astype(np.float64) / 32768)
    return int(np.argmax(x > 0.3)) / 16_000


def lost_some(rate: int) -> list[Fraction]:
    """A recorder of variable frame rate: a third of the frames late, some lost."""
    even = even_stamps(rate, FRAMES + 6)
    return [stamp + (Fraction(1, 3 * rate) if k % 3 == 1 else 0) for k, stamp in enumerate(even) if k not in (5, 6, 20, 21, 22, 40)]


@pytest.mark.parametrize("rate", [30, "native"])
@pytest.mark.parametrize(
    ("stamps", "video"),
    [
        (even_stamps(20, FRAMES), {"sound_rate": 8_000}),
        (even_stamps(Fraction(24_000, 1001), FRAMES), {"sound_rate": 48_000, "sound_layout": "stereo"}),
        (even_stamps(25, FRAMES), {"sound_rate": 48_000, "sound_layout": "5.1"}),
        (even_stamps(30, FRAMES), {"sound_rate": 44_100, "rotation": 90}),
        (lost_some(30), {"sound_rate": 16_000, "rotation": 180}),
        (even_stamps(Fraction(30_000, 1001), FRAMES, 0.3), {"sound_rate": 44_100}),
    ],
    ids=["20 a second, 8 kHz", "23.976, 48 kHz stereo", "25, 5.1", "30, turned", "variable rate, upside down", "29.97, picture late"],
)
def test_face_label_and_sound_of_a_frame_stay_together(tmp_path: Path, stamps: list[Fraction], video: dict[str, Any], rate: int | str) -> None:
    """A click sounds with frame 30: the tick that shows frame 30 has its face, its label, and the click among its samples."""
    seconds = float(stamps[-1]) + 0.2
    picture, sound = flash_and_click(float(stamps[30]), seconds, video["sound_rate"])
    add(tmp_path / "c", "t", stamps, picture=picture, sound=sound, **video)
    _, trials = prepared(tmp_path, rate=rate)
    trial = trials["t"]
    since = np.array([float(stamp - stamps[0]) for stamp in stamps])
    np.testing.assert_allclose(trial.frame_t_ns / 1e9, since, atol=1e-5)
    assert click_s(trial) == pytest.approx(since[30], abs=2e-3)
    window = window_at(trial, trial.n_ticks - 1, trial.n_ticks)
    tick = int(np.flatnonzero(trial.tick_frame == 30)[0])
    # on the uniform grid the first tick that shows a frame is up to a tick later than the frame
    late_s = trial.first_sample(tick) / 16_000 - since[30]
    assert -1e-4 <= late_s < (1e-4 if trial.native else 1 / 30)
    heard = int(np.argmax(np.abs(window.samples) > 0.3))
    assert heard == pytest.approx(window.tick_sample[tick] - late_s * 16_000, abs=40)
    assert abs(window.faces[tick].mean() - (20 + 3 * 30)) < 3
    assert window.labels[tick, 0] == pytest.approx(0.3)


def test_a_turned_video_has_the_crops_of_one_that_is_not(tmp_path: Path) -> None:
    """Crops are the organisers'; how a player would turn the raw video plays no part."""
    stores = []
    for name, turn in (("a", 0), ("b", 90)):
        add(tmp_path / name / "c", "t", even_stamps(25, 20), rotation=turn)
        stores.append(prepared(tmp_path / name)[1]["t"])
    np.testing.assert_array_equal(stores[0].faces, stores[1].faces)
    np.testing.assert_array_equal(stores[0].frame_face, stores[1].frame_face)


def jpeg(size: int = 112) -> bytes:
    return bytes(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (size, size, 3)).astype(np.uint8))[1])


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "cut thumbnail", "unreadable"])
def test_a_crop_that_is_no_picture_is_a_frame_without_a_face(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "c", "t", even_stamps(30, FRAMES), crops=range(20))
    bad = crop(tmp_path / "c", "t", 7)
    thumbnail = b"\xff\xd8\xff\xe1" + (len(jpeg(16)) + 2).to_bytes(2, "big") + jpeg(16)
    whole = {"empty": b"", "text": b"no picture", "cut": jpeg()[:-500], "cut thumbnail": thumbnail + jpeg()[2:-500], "unreadable": b""}
    bad.write_bytes(whole[damage])
    if damage == "unreadable":
        bad.unlink()
        bad.symlink_to("/proc/self/mem")  # opens, and cannot be read
    summary, trials = prepared(tmp_path)
    assert trials["t"].frame_face.tolist() == [*range(7), -1, *range(7, 19), *[-1] * (FRAMES - 20)]
    assert len(trials["t"].faces) == 19
    for row, k in ((6, 6), (7, 8), (18, 19)):
        assert abs(trials["t"].faces[row].mean() - (20 + 3 * k)) < 3
    assert summary.unreadable == [("t", ["00008.jpg"])]
    assert "1 crops are no readable pictures, their frames count as frames without a face: t/00008.jpg" in summary.lines()
    assert summary.frames_with_face == 19


def test_a_whole_picture_of_another_kind_or_size_is_a_face(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 10), crops=range(0))
    picture = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    png = bytes(cv2.imencode(".png", picture)[1])
    crop(tmp_path / "c", "t", 2).write_bytes(png)
    crop(tmp_path / "c", "t", 3).write_bytes(jpeg() + bytes(200))  # what some writers leave behind the end
    summary, trials = prepared(tmp_path)
    assert summary.unreadable == []
    np.testing.assert_array_equal(trials["t"].faces[0], resize(picture, (0, 0, 96, 96), 48, "bgr"))


def test_left_and_right_share_the_sound_and_not_the_faces(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    add(tmp_path / "c", "v_left", even_stamps(30, FRAMES), sound=sound, sound_rate=16_000)
    add(tmp_path / "c", "v_right", even_stamps(30, FRAMES), crops=range(10, 20))
    add(tmp_path / "c", "w", even_stamps(30, FRAMES), split="Validation_Set")
    summary, trials = prepared(tmp_path)
    left, right = trials["v_left"], trials["v_right"]
    assert sorted(path.name for path in (tmp_path / "s/audio").iterdir()) == ["v.npy", "w.npy"]
    assert left.source == right.source == "v.mp4"
    assert len(left.audio)
    np.testing.assert_array_equal(left.audio, right.audio)
    assert (len(left.faces), len(right.faces)) == (FRAMES, 10)
    assert summary.splits["train"] | {"hours": 0} == {
        "trials": 2, "plain": 0, "left": 1, "right": 1, "frames": 90, "label_rows": 90, "with_label": 90, "with_face": 55, "hours": 0,
    }  # fmt: skip
    assert summary.without_sound == ["w"]
    assert summary.cost.hours == pytest.approx(2 * 44 / 30 / 3600, rel=0.01), "a video's time counts once"


def test_numbers_close_to_minus_five_are_numbers(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 4), labels="-5,-5\n-5.204e-18,0.5\n-5.0,-5.0\n0.25,-0.5\n")
    trial = prepared(tmp_path)[1]["t"]
    assert trial.labels_valid.tolist() == [False, True, False, True]
    assert trial.labels[1].tolist() == [np.float32(-5.204e-18), 0.5]


def test_a_trial_without_a_valid_frame_is_said_and_gives_windows(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, FRAMES), labels="-5,-5\n" * FRAMES, crops=range(0))
    add(tmp_path / "c", "u", even_stamps(30, FRAMES))
    summary, trials = prepared(tmp_path)
    assert summary.without_labels == summary.without_crops == ["t"]
    assert "1 trials have no valid label: t" in summary.lines()
    for newest in window_ends(trials["t"].n_ticks):
        window = window_at(trials["t"], newest)
        assert not window.labels_valid.any()
        assert not window.visual_mask.any()
        assert np.isfinite(window.samples).all()


def test_videos_and_labels_without_each_other(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 5))
    write_video(tmp_path / "c/batch1/nobody.mp4", stamps_s=even_stamps(30, 5))
    summary, _ = prepared(tmp_path)
    assert summary.unused_videos == ["nobody"]
    assert "1 videos are in no split and were left out: nobody" in summary.lines()
    for name in ("x", "y"):
        (tmp_path / f"c/VA_Estimation_Challenge/Train_Set/{name}.txt").write_text("valence,arousal\n0,0\n")
    with pytest.raises(DataError, match=r"2 of 3 trials have no video below .*: x, y; add"):
        prepare(tmp_path / "c", tmp_path / "t", workers=1, progress=False)


def test_all_videos_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    for name in "abcd":
        add(tmp_path / "c", name, even_stamps(30, 5))
    for name in "bd":
        (tmp_path / f"c/batch1/{name}.mp4").write_bytes(b"not a video")
    (tmp_path / "c/VA_Estimation_Challenge/Train_Set/c.txt").write_text("valence,arousal\n2,0\n")
    with pytest.raises(DataError, match=r"b\.mp4 is not a video.* \(2 more of 4 videos cannot be used: c, d\)"):
        prepare(tmp_path / "c", tmp_path / "s", workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_test_split_has_no_labels_and_the_published_counts_stand_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 60))
    (tmp_path / "c/VA_Estimation_Challenge/Train_Set/t.txt").rename(tmp_path / "t.txt")
    add(tmp_path / "c", "u", even_stamps(30, 60), labels="0,0\n" * 59)
    listed = tmp_path / "c/names_of_videos_in_each_test_set/Valence_Arousal_Estimation_Challenge_test_set_release.txt"
    listed.parent.mkdir()
    listed.write_text("t\n")
    assert main(["prepare", str(tmp_path / "c"), str(tmp_path / "s"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:18].strip(): line[18:].split() for line in lines if line.startswith(("train", "val", "test"))}
    assert rows["train, published"] == ["356", "347", "4", "5", "1,682,057", "1,679,857"]
    assert rows["val, published"] == ["76", "71", "2", "3", "383,814", "382,021"]
    assert rows["test, published"] == ["162", "147", "8", "7", "927,210"]
    assert rows["train"] == ["1", "1", "0", "0", "60", "59", "59", "60", "0.00"]
    assert rows["test"] == ["1", "1", "0", "0", "60", "0", "0", "60", "0.00"]
    assert any("1 trials have more or fewer labels than frames" in line and "u (59 labels, 60 frames)" in line for line in lines)
    assert any(line.startswith("all 594 trials of Aff-Wild2 would take 2") for line in lines)
    assert sum(counts["trials"] for counts in PUBLISHED.values()) == 594
    (trial,) = Store.open(tmp_path / "s").trials("test")
    assert not trial.labels_valid.any()


def test_videos_of_one_frame_have_no_pace(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 1))
    summary, _ = prepared(tmp_path)
    assert summary.cost.hours == 0
    text = "\n".join(summary.lines())
    assert "ms a crop" in text
    assert "an hour of video" not in text
    assert "would take" not in text


def test_a_synthetic_corpus_is_not_compared_with_the_published_one_but_extrapolated(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "published" not in text
    assert "ms a crop" in text
    (line,) = [line for line in text.splitlines() if "Aff-Wild2" in line]
    assert line.startswith("all 594 trials of Aff-Wild2 would take 2")
    assert line.endswith("at this pace, extrapolated from a synthetic corpus, whose videos are smaller")


def test_json_has_all_of_it(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--workers", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cost"]["bytes"] == sum(path.stat().st_size for path in (tmp_path / "s").rglob("*.npy"))
    assert report["cost"]["crops"] == report["frames_with_face"] == sum(split["with_face"] for split in report["splits"].values())
    assert all(report["cost"][key] > 0 for key in ("wall_s", "faces_s", "media_s", "peak_mb", "hours", "workers"))
    assert {"uneven", "unreadable", "damaged", "without_sound", "without_crops", "without_labels", "unused_videos"} <= set(report)


def test_a_disk_that_is_too_small_is_said_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 5))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 6912 - 1))
    with pytest.raises(DataError, match=r"is too small: 0\.0 GB of faces are to come, 0\.0 GB are free; free some or choose another path"):
        prepared(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_crops_that_go_away_in_the_midst_end_the_work(tmp_path: Path) -> None:
    add(tmp_path / "c", "t", even_stamps(30, 5))
    path = crop(tmp_path / "c", "t", 0)
    path.parent.rename(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"cannot be read any more .* continue with --resume"):
        _picture(path)
