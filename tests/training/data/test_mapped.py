"""Faces and sound are mapped when they are looked at, and never more of them at once than a process may open."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sage_edge.training.data import mapped
from sage_edge.training.data.mapped import ArrayFile
from sage_edge.training.data.store import ARRAYS, SCHEMA, Store, array_path
from sage_edge.training.data.store_writer import RowFile, file_record, write_index

TRIALS = 600


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """As many trials as Aff-Wild2 has, of two frames each; trial i has faces of i % 256 and i + 1 samples of i."""
    folder = tmp_path_factory.mktemp("large") / "store"
    entries, columns = [], []
    for i in range(TRIALS):
        entry = {
            "name": f"t{i}", "split": "train", "source": f"t{i}.mp4", "subject": None, "rate_hz": 30, "last_ns": 33_333_333,
            "counts": {"frames": 2, "faces": 1, "audio": i + 1, "label_rows": 2, "valid": 2}, "files": {},
        }  # fmt: skip
        values = {"faces": np.full((1, 48, 48, 3), i % 256, np.uint8), "audio": np.full(i + 1, i, np.int16)}
        for name, (kind, shape) in ARRAYS.items():
            path = array_path(folder, entry, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with RowFile(path, kind, shape) as file:
                file.write(values[name])
            entry["files"][name] = file_record(path)
        entries.append(entry)
        labels = np.full((2, 2), i / TRIALS, np.float32)
        columns.append({"frame_t_ns": np.array([0, 33_333_333]), "frame_face": np.array([0, -1], np.int32), "labels": labels,
                        "labels_valid": np.ones(2, bool)})  # fmt: skip
    write_index(folder, {"schema": SCHEMA, "face_size": 48, "rate": 30, "name": "large", "synthetic": True}, entries, columns)
    return Store.open(folder)


@pytest.fixture
def few_files() -> Iterator[int]:
    """At most 500 files more than now, the way 1024 are the limit of most systems."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mapped._mapped.cache_clear()
    allowed = 500 + max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    yield allowed
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")


def test_a_store_of_600_trials_is_read_with_few_open_files(large: Store, few_files: int) -> None:
    trials = large.trials("train")
    for _ in range(2):
        for trial in trials:
            i = int(trial.name[1:])
            assert trial.faces.max() == trial.faces.min() == i % 256
            assert trial.audio.tolist() == [i] * (i + 1)
            assert (trial.labels == np.float32(i / TRIALS)).all()
            assert trial.frame_face.tolist() == [0, -1]
    assert len(os.listdir("/proc/self/fd")) < few_files


def test_opening_maps_no_face_and_no_sound(large: Store) -> None:
    mapped._mapped.cache_clear()
    store = Store.open(large.path)
    trials = store.trials("train")
    maps = Path("/proc/self/maps").read_text()
    assert f"{large.path}/audio" not in maps
    assert f"{large.path}/faces" not in maps
    trials[5].audio.max()
    assert f"{large.path}/audio/t" in Path("/proc/self/maps").read_text()


def test_a_view_outlives_the_closing_of_its_file(large: Store) -> None:
    trials = large.trials("train")
    held = trials[0].audio
    for trial in trials:
        trial.faces.max()
    assert held.tolist() == [int(trials[0].name[1:])] * len(held)
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    seen = []
    for value in (1, 2):
        np.save(path, np.full(3, value))
        seen.append(int(ArrayFile(path, file_record(path)["sha256"]).open()[0]))
    assert seen == [1, 2]


@pytest.mark.parametrize("rows", [0, 1, 3, 70])
def test_a_row_file_is_what_numpy_saves(tmp_path: Path, rows: int) -> None:
    rng = np.random.default_rng(rows)
    for kind, shape in ARRAYS.values():
        array = rng.integers(0, 200, (rows, *shape)).astype(kind)
        with RowFile(tmp_path / "a.npy", kind, shape) as file:
            for start in range(0, rows, 32):
                file.write(array[start : start + 32])
            with pytest.raises(ValueError, match="the file takes"):
                file.write(np.zeros((1, *shape, 2), kind))
        loaded = np.load(tmp_path / "a.npy")
        assert loaded.dtype == kind
        np.testing.assert_array_equal(loaded, array)
        assert (tmp_path / "a.npy").stat().st_size == 128 + array.nbytes
