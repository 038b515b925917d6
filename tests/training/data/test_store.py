from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from sage_edge.cli.main import main
from sage_edge.runtime.errors import DataError, SageError, UsageError
from sage_edge.training.data import affwild2
from sage_edge.training.data.store import Store, prepare
from sage_edge.training.data.synthetic_video import write_mp4

FRAMES = 30


def tiny(root: Path, rows: int = FRAMES, crops: tuple[int, ...] = (1, 2, 5, 29, 33), rate: Fraction = Fraction(30), sound: bool = True) -> Path:
    """One trial `t` of 30 frames, crops with these numbers; crop k is all (k, 2k, 3k) in RGB."""
    labels = root / "VA_Estimation_Challenge/Train_Set/t.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("valence,arousal\n" + "".join(f"{i / 100},{-i / 100}\n" for i in range(rows)))
    (root / "cropped_aligned/t").mkdir(parents=True)
    for k in crops:
        cv2.imwrite(str(root / f"cropped_aligned/t/{k:05d}.jpg"), np.full((112, 112, 3), (3 * k, 2 * k, k), np.uint8))
    frames = ((round(i / rate * 90_000), np.full((48, 64, 3), 90, np.uint8)) for i in range(FRAMES))
    (root / "batch1").mkdir()
    write_mp4(root / "batch1/t.mp4", frames, (64, 48), rate, np.full(16_000, 0.1, np.float32) if sound else None)
    return root


def test_gaps_stay_gaps(tmp_path: Path) -> None:
    summary = prepare(tiny(tmp_path / "c"), tmp_path / "s", workers=1, progress=False)
    (trial,) = Store.open(tmp_path / "s").trials("train")
    assert trial.frame_face.tolist() == [0, 1, -1, -1, 2, *[-1] * 23, 3, -1]
    assert trial.faces.shape == (4, 48, 48, 3)
    for row, k in enumerate((1, 2, 5, 29)):
        np.testing.assert_allclose(trial.faces[row].reshape(-1, 3).mean(0), (k, 2 * k, 3 * k), atol=3)  # RGB
    assert summary.crops_dropped == 1  # 00033.jpg
    assert (summary.frames, summary.frames_with_face, summary.frames_with_label) == (30, 4, 30)


@pytest.mark.parametrize(("rows", "valid"), [(29, 29), (31, 30), (30, 30), (0, 0), (80, 30)])
def test_labels_and_frames_need_not_be_as_many(tmp_path: Path, rows: int, valid: int) -> None:
    summary = prepare(tiny(tmp_path / "c", rows), tmp_path / "s", workers=1, progress=False)
    (trial,) = Store.open(tmp_path / "s").trials("train")
    assert trial.labels.shape == (FRAMES, 2)
    assert trial.labels_valid.tolist() == [True] * valid + [False] * (FRAMES - valid)
    assert summary.uneven == ([] if rows == FRAMES else [("t", rows, FRAMES)])
    assert ("more or fewer labels" in "\n".join(summary.lines())) == (rows != FRAMES)


def test_no_sound_and_no_crops(tmp_path: Path) -> None:
    root = tiny(tmp_path / "c", crops=(), sound=False)
    summary = prepare(root, tmp_path / "s", workers=1, progress=False)
    (trial,) = Store.open(tmp_path / "s").trials("train")
    assert len(trial.audio) == 0
    assert trial.faces.shape == (0, 48, 48, 3)
    assert (trial.tick_face == -1).all()
    assert summary.without_sound == summary.without_crops == ["t"]


def test_rate_native_keeps_frames_as_ticks(tmp_path: Path) -> None:
    prepare(tiny(tmp_path / "c", rate=Fraction(24000, 1001)), tmp_path / "s", rate="native", workers=1, progress=False)
    store = Store.open(tmp_path / "s")
    (trial,) = store.trials("train")
    assert store.meta["rate"] == "native"
    assert (trial.rate_hz, trial.n_ticks) == (24, FRAMES)
    np.testing.assert_array_equal(trial.tick_frame, np.arange(FRAMES))
    with pytest.raises(UsageError, match="rate 25"):
        prepare(tmp_path / "c", tmp_path / "s2", rate=25, workers=1)


def test_store_of_a_synthetic_corpus(corpus: Path, store: Store) -> None:
    assert store.meta == {"name": "synthetic", "synthetic": True, "seed": 7, "schema": 2, "face_size": 48, "rate": 30}
    trials = [*store.trials("train"), *store.trials("val")]
    found = affwild2.find_trials(corpus)
    assert [t.name for t in trials] == [t.name for t in found]
    for trial, files in zip(trials, found, strict=True):
        assert files.labels is not None
        rows, valid = affwild2.read_labels(files.labels)
        n = min(len(rows), len(trial.labels))
        np.testing.assert_array_equal(trial.labels[:n], rows[:n])
        np.testing.assert_array_equal(trial.labels_valid[:n], valid[:n])
        assert np.flatnonzero(trial.frame_face >= 0).tolist() == list(affwild2.crop_numbers(files.crops))
        assert len(trial.audio) / 16_000 == pytest.approx(trial.frame_t_ns[-1] / 1e9, abs=0.2)
        assert not isinstance(trial.audio, np.memmap) or trial.audio.mode == "r"
        assert trial.subject is not None
    assert {t.subject for t in store.trials("train")}.isdisjoint({t.subject for t in store.trials("val")})


def test_two_workers_and_one_write_the_same(corpus: Path, store: Store, tmp_path: Path) -> None:
    summary = prepare(corpus, tmp_path / "s", workers=2, progress=False)
    assert summary.digest == Store.open(tmp_path / "s").digest == store.digest


def test_stored_faces_are_the_area_average_of_the_crops(corpus: Path, store: Store) -> None:
    trial = store.trials("val")[0]
    path = next(iter((corpus / "cropped_aligned" / trial.name).glob("*.jpg")))
    row = trial.frame_face[int(path.stem) - 1]
    crop = np.asarray(cv2.imread(str(path)), np.float64)[..., ::-1]
    weights = np.zeros((48, 112))
    for i in range(48):  # exact overlap of the 112/48 wide cell i with each pixel
        low, high = i * 112 / 48, (i + 1) * 112 / 48
        weights[i] = np.clip(np.minimum(high, np.arange(112) + 1) - np.maximum(low, np.arange(112)), 0, 1) / (high - low)
    expected = np.einsum("ir,jc,rck->ijk", weights, weights, crop)
    np.testing.assert_allclose(trial.faces[row], expected, atol=0.5 + 1e-6)


def damage_missing_index(path: Path) -> None:
    (path / "index.json").unlink()


def damage_json(path: Path) -> None:
    (path / "index.json").write_text('{"meta": 3}')


def damage_schema(path: Path) -> None:
    content = json.loads((path / "index.json").read_text())
    content["meta"]["schema"] = 99
    (path / "index.json").write_text(json.dumps(content))


def damage_file(path: Path) -> None:
    victim = next((path / "audio").iterdir())
    victim.write_bytes(victim.read_bytes()[:-10])


def damage_table(path: Path) -> None:
    victim = path / "frames/labels.npy"
    victim.write_bytes(victim.read_bytes() + b"more")


def damage_missing_file(path: Path) -> None:
    next((path / "faces").iterdir()).unlink()


def damage_old(path: Path) -> None:
    content = json.loads((path / "index.json").read_text())
    content["meta"]["schema"] = 1
    for entry in content["trials"]:
        entry["files"] = {"faces.npy": {"size": 3, "sha256": ""}}
    (path / "index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing_index, "is no prepared store"),
        (damage_json, "cannot be read as a store's index"),
        (damage_schema, "has schema 99"),
        (damage_old, "has schema 1, this version reads 2; prepare the corpus again"),
        (damage_file, r"audio/.*.npy is \d+ bytes, the index says"),
        (damage_table, r"frames/labels.npy is \d+ bytes, the index says"),
        (damage_missing_file, "faces/.*.npy is missing"),
    ],
)
def test_a_damaged_store_is_refused(store: Store, tmp_path: Path, damage: object, message: str) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy"))
    damage(copy)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        Store.open(copy)


def test_an_unknown_split_names_those_there_are(store: Store) -> None:
    with pytest.raises(DataError, match="no 'test' trials; its splits: train, val"):
        store.trials("test")


def bad_label(root: Path) -> None:
    with open(root / "VA_Estimation_Challenge/Train_Set/t.txt", "a") as stream:
        stream.write("1.5,0\n")


def bad_header(root: Path) -> None:
    (root / "VA_Estimation_Challenge/Train_Set/t.txt").write_text("valence arousal\n0,0\n")


def bad_video(root: Path) -> None:
    (root / "batch1/t.mp4").write_bytes(b"")


def cut_video(root: Path) -> None:
    video = root / "batch1/t.mp4"
    video.write_bytes(video.read_bytes()[:500])


def bad_crop_name(root: Path) -> None:
    (root / "cropped_aligned/t/face.jpg").write_bytes(b"")


def video_missing(root: Path) -> None:
    (root / "batch1/t.mp4").unlink()


def no_labels(root: Path) -> None:
    (root / "VA_Estimation_Challenge/Train_Set/t.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bad_label, "t.txt:32: valence 1.5 is beyond [-1, 1]"),
        (bad_header, "t.txt:1: the header is 'valence arousal'"),
        (bad_video, "t.mp4 has zero bytes"),
        (cut_video, "t.mp4 ends before its first frame"),
        (bad_crop_name, "face.jpg: a crop's name is its frame number"),
        (video_missing, "1 of 1 trials have no video below"),
        (no_labels, "holds no labels"),
    ],
)
def test_a_bad_corpus_is_one_line_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: object, message: str) -> None:
    root = tiny(tmp_path / "c")
    damage(root)  # type: ignore[operator]
    code = main(["prepare", str(root), str(tmp_path / "out" / "s")])
    errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("prepare", "check"))]
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_existing_folder_is_not_touched(store: Store, corpus: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        prepare(corpus, store.path)
    assert Store.open(store.path).digest == store.digest


def test_an_error_in_a_worker_process_is_the_same_line(corpus: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "c"))
    victim = next((root / "batch1").glob("*.mp4"))
    victim.write_bytes(b"nothing")
    with pytest.raises(SageError, match=f"{victim.name} is not a video") as caught:
        prepare(root, tmp_path / "s", workers=2, progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]  # refused before anything was done


def test_the_command_reports_in_json(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--rate", "native", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    store = Store.open(tmp_path / "s")
    assert report["digest"] == store.digest
    assert report["trials"] == {"train": 2, "val": 1, "test": 0}
    assert report["frames"] == sum(len(t.frame_t_ns) for split in ("train", "val") for t in store.trials(split))
    assert store.meta["rate"] == "native"
