from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sage_edge.runtime.errors import DataError
from sage_edge.training.data.affwild2 import crop_numbers, find_trials, media_name, read_labels, unused_videos


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def layout(root: Path, trial: str = "a", folder: str = "Train_Set", video: str = "batch1/a.mp4") -> Path:
    write(root / "VA_Estimation_Challenge" / folder / f"{trial}.txt", "valence,arousal\n0,0\n")
    (root / "cropped_aligned" / trial).mkdir(parents=True)
    write(root / video)
    return root


def test_labels_are_read_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "valence,arousal\n0.5,-0.25\n-5,-5\n-5.0,-5.0\n-5.204e-18,1\n-1,1\r\n0.1,-5\n")
    labels, valid = read_labels(path)
    assert labels.dtype == np.float32
    assert valid.tolist() == [True, False, False, True, True, False]
    np.testing.assert_allclose(labels[valid], np.array([[0.5, -0.25], [-5.204e-18, 1], [-1, 1]], np.float32))
    assert not labels[~valid].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x.txt:1: the header is ''"),
        ("arousal,valence\n0,0\n", r"x.txt:1: the header is 'arousal,valence'; expected 'valence,arousal'"),
        ("0.1,0.2\n", r"x.txt:1: the header is '0.1,0.2'"),
        ("valence,arousal\n0,0\nnan,0\n", r"x.txt:3: valence is NaN"),
        ("valence,arousal\n0,NaN\n", r"x.txt:2: arousal is NaN"),
        ("valence,arousal\n0,0\n0,0\n0.3,1.2\n", r"x.txt:4: arousal 1.2 is beyond \[-1, 1\]"),
        ("valence,arousal\n-1.0001,0\n", r"x.txt:2: valence -1.0001 is beyond"),
        ("valence,arousal\n-4.9,0\n", r"x.txt:2: valence -4.9 is beyond"),
        ("valence,arousal\ninf,0\n", r"x.txt:2: valence inf is beyond"),
        ("valence,arousal\nhigh,0\n", r"x.txt:2: 'high,0' is not two numbers"),
        ("valence,arousal\n0.1\n", r"x.txt:2: '0.1' is not two numbers"),
        ("valence,arousal\n0.1,0.2,0.3\n", r"x.txt:2: '0.1,0.2,0.3' is not two numbers"),
        ("valence,arousal\n0,0\n\n0,0\n", r"x.txt:3: '' is not two numbers"),
        ("valence,arousal\n1_0,0\n", r"x.txt:2: '1_0,0' is not two numbers"),
        (b"valence,arousal\n\xff\xfe,0\n", r"x.txt: not a text file"),
    ],
)
def test_a_bad_label_file_names_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_labels(write(tmp_path / "x.txt", text))
    assert "\n" not in str(caught.value)


def test_trials_of_one_video_share_it(tmp_path: Path) -> None:
    layout(tmp_path, "v_left", video="batch1/v.mp4")
    layout(tmp_path, "v_right", "Validation_Set", video="batch2/other.avi")
    layout(tmp_path, "w", "Validation_Set", video="new_vids/w.AVI")
    found = find_trials(tmp_path)
    assert [(t.name, t.split, t.media.name) for t in found] == [("v_left", "train", "v.mp4"), ("v_right", "val", "v.mp4"), ("w", "val", "w.AVI")]
    assert found[0].crops == tmp_path / "cropped_aligned" / "v_left"
    assert media_name("left_right_left") == "left_right"


def test_older_names_deeper_folders_and_the_test_list(tmp_path: Path) -> None:
    write(tmp_path / "annotations/VA_Set/Training_Set/a.txt", "valence,arousal\n")
    (tmp_path / "images/cropped_aligned/a").mkdir(parents=True)
    write(tmp_path / "videos/batch1/a.mp4")
    write(tmp_path / "videos/batch1/b.mp4")
    write(tmp_path / "names_of_videos_in_each_test_set/Valence_Arousal_Estimation_Challenge_test_set_release.txt", "b\n\n")
    found = find_trials(tmp_path)
    assert [(t.name, t.split, t.labels is None, t.crops is None) for t in found] == [("a", "train", False, False), ("b", "test", True, True)]


def test_both_folders_of_crops_and_videos_of_nobody(tmp_path: Path) -> None:
    layout(tmp_path, "a")
    write(tmp_path / "VA_Estimation_Challenge/Train_Set/b.txt", "valence,arousal\n0,0\n")
    write(tmp_path / "new_vids/b.mp4")
    write(tmp_path / "cropped_aligned_new_50_vids/b/00001.jpg")
    write(tmp_path / "cropped_aligned_new_50_vids/b/film.mp4")
    write(tmp_path / "batch2/other.mp4")
    write(tmp_path / "VA_Estimation_Challenge/Train_Set/._b.txt", b"\x00\x05")
    write(tmp_path / "batch2/._other.mp4")
    found = find_trials(tmp_path)
    assert [(t.name, t.crops and t.crops.parent.name) for t in found] == [("a", "cropped_aligned"), ("b", "cropped_aligned_new_50_vids")]
    assert unused_videos(tmp_path, found) == ["other"]


def test_two_videos_of_one_name_are_refused_where_a_trial_needs_them(tmp_path: Path) -> None:
    layout(tmp_path, "a_left", video="batch1/a.mp4")
    for path in ("batch1/other.mp4", "new/other.avi"):
        write(tmp_path / path)
    found = find_trials(tmp_path)
    assert unused_videos(tmp_path, found) == ["other"]
    write(tmp_path / "new/a.avi")
    with pytest.raises(DataError, match=r"trial a_left has 2 videos: .*batch1/a.mp4 and .*new/a.avi; remove or rename") as caught:
        find_trials(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no labels; expected VA_Estimation_Challenge"):
        find_trials(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        find_trials(tmp_path / "missing")


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write(tmp_path / "VA_Estimation_Challenge/Train_Set/a.txt", "valence,arousal\n")
    with pytest.raises(DataError, match="no cropped_aligned folder"):
        find_trials(tmp_path)
    (tmp_path / "cropped_aligned").mkdir()
    with pytest.raises(DataError, match=r"1 of 1 trials have no video below .*: a; add a.mp4 or .avi"):
        find_trials(tmp_path)
    for name in "bcdefg":
        write(tmp_path / f"VA_Estimation_Challenge/Validation_Set/{name}_left.txt", "valence,arousal\n")
    with pytest.raises(DataError, match=r"7 of 7 trials have no video below .*: a, b_left, c_left, d_left, e_left, ...; add a.mp4"):
        find_trials(tmp_path)


def test_a_trial_in_two_splits_is_refused(tmp_path: Path) -> None:
    layout(tmp_path)
    write(tmp_path / "VA_Estimation_Challenge/Validation_Set/a.txt", "valence,arousal\n")
    with pytest.raises(DataError, match="a is in train and in val"):
        find_trials(tmp_path)


def test_crop_numbers_keep_gaps(tmp_path: Path) -> None:
    for name in ("00003.jpg", "00001.jpg", "00010.jpg", "._00002.jpg", "Thumbs.db"):
        write(tmp_path / name)
    assert list(crop_numbers(tmp_path)) == [0, 2, 9]
    assert crop_numbers(None) == {}
    write(tmp_path / "face.jpg")
    with pytest.raises(DataError, match=r"face.jpg: a crop's name is its frame number"):
        crop_numbers(tmp_path)
