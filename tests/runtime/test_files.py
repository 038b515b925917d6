"""Whole or not at all: what a reader can see after success, failure and interruption."""

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import atomic_file, atomic_folder, lock, sha256_file


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_inside_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(tmp_path / "out") as work:
        (work / "half").write_text("x")
        raise error
    with pytest.raises(error), atomic_file(tmp_path / "file.json") as work:
        work.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_and_is_not_overwritten_unasked(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with atomic_folder(target) as work:
        (work / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with pytest.raises(UsageError, match="exists already"), atomic_folder(target):
        raise AssertionError("refused before the block starts")


def test_replace_keeps_the_old_folder_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ValueError, match="halfway"), atomic_folder(target, replace=True) as work:
        (work / "new").write_text("new")
        raise ValueError("halfway")
    assert [p.name for p in target.iterdir()] == ["old"]
    with atomic_folder(target, replace=True) as work:
        (work / "new").write_text("new")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_atomic_file_replaces_and_sha256_file_matches_hashlib(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    for payload in (b"one", b"two" * 10**6):
        with atomic_file(target) as work:
            assert work.suffix == ".bin"
            work.write_bytes(payload)
        assert target.read_bytes() == payload
    assert sha256_file(target) == hashlib.sha256(b"two" * 10**6).hexdigest()


@pytest.mark.parametrize("when", ["between the renames", "while the old one is removed"])
def test_an_interrupt_of_a_replacement_leaves_one_whole_folder(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    rename = os.rename
    calls: list[Path] = []

    def renamed(source: Path, to: Path) -> None:
        calls.append(source)
        if when == "between the renames" and len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, to)
        if when != "between the renames" and len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", renamed)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, replace=True) as work:
        (work / "new").write_text("new")
    assert [p.name for p in target.iterdir()] == ["old" if when == "between the renames" else "new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is not a folder"), atomic_folder(tmp_path / "out", replace=True):
        raise AssertionError("refused before the block starts")
    assert (tmp_path / "out").read_text() == "mine"


def test_replacing_a_link_takes_the_link_and_leaves_the_folder_behind_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/old").write_text("old")
    (tmp_path / "out").symlink_to("real")
    with atomic_folder(tmp_path / "out", replace=True) as work:
        (work / "new").write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "real"]
    assert (tmp_path / "real/old").read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "folder"), atomic_file(tmp_path / "file") as work:
            work.write_text("x")
        assert os.umask(mask) == mask, "it is as it was"
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_parents_that_a_failure_leaves_empty_go_again(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for atomic in (atomic_folder, atomic_file):
        with pytest.raises(ValueError, match="halfway"), atomic(tmp_path / "kept/a/b/out"):
            raise ValueError("halfway")
        assert list((tmp_path / "kept").iterdir()) == []
    with pytest.raises(ValueError, match="halfway"), atomic_folder(tmp_path / "kept/a/b/out"):
        (tmp_path / "kept/a/other").write_text("of somebody else")
        raise ValueError("halfway")
    assert [p.name for p in (tmp_path / "kept/a").iterdir()] == ["other"]


def test_a_lock_is_held_by_the_process_that_took_it_and_not_by_those_it_forks(tmp_path):
    stream = lock(tmp_path / "lock")
    with pytest.raises(UsageError, match="another process"):
        lock(tmp_path / "lock")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        # the child's first act may come after its birth
        with pytest.raises(UsageError, match="another process"):
            lock(tmp_path / "lock")
        stream.close()
        for _ in range(100):
            try:
                return lock(tmp_path / "lock").close()
            except UsageError:
                time.sleep(0.05)
        pytest.fail("the child holds the lock")
    finally:
        child.kill()
        child.join()
