"""A record is whole on the disk before it has its name: what a power cut leaves is the old one or the new one."""

import os
from pathlib import Path

import pytest

from sage_edge.jetson.lay_in import write_beside


def test_what_is_synced_is_the_whole_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, content = tmp_path / "state/trial.json", b'{"to": "2"}\n'
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append((os.fstat(handle).st_size, target.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_beside(target, content, 0o644)
    assert synced[0] == (len(content), False)
    assert synced[-1][1]  # the folder, once the record has its name
    assert target.read_bytes() == content
