"""Whole or not at all: what a reader can see after success, failure and interruption."""

import hashlib
from pathlib import Path

import pytest

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import atomic_file, atomic_folder, sha256_file


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
