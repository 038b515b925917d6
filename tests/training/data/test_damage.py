"""What is wrong in a corpus or an index is said: damaged media are counted, keys that lack are named, crops are not walked over."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from sage_edge.runtime.errors import DataError
from sage_edge.training.data.affwild2 import find_trials
from sage_edge.training.data.store import COLUMNS, Store, prepare
from sage_edge.training.data.synthetic_video import write_mp4


def corpus_of_one(root: Path) -> Path:
    """One trial `t` of 30 frames with a second of noise; returns its video."""
    labels = root / "VA_Estimation_Challenge/Train_Set/t.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("valence,arousal\n" + "0.1,0.2\n" * 30)
    (root / "cropped_aligned/t").mkdir(parents=True)
    cv2.imwrite(str(root / "cropped_aligned/t/00001.jpg"), np.full((112, 112, 3), 90, np.uint8))
    (root / "batch1").mkdir()
    frames = ((i * 3000, np.full((48, 64, 3), 90, np.uint8)) for i in range(30))
    write_mp4(root / "batch1/t.mp4", frames, (64, 48), Fraction(30), np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    return root / "batch1/t.mp4"


def test_damaged_sound_is_counted_and_said(tmp_path: Path) -> None:
    video = corpus_of_one(tmp_path / "corpus")
    whole = prepare(tmp_path / "corpus", tmp_path / "whole", workers=1, progress=False)
    assert whole.damaged == []
    assert not any("damaged packets" in line for line in whole.lines())
    assert "damaged" not in (tmp_path / "whole/index.json").read_text()
    with av.open(str(video)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(video.read_bytes())
    for at, size in places[4:7]:
        data[at : at + size] = b"\xff" * size
    video.write_bytes(data)
    found = prepare(tmp_path / "corpus", tmp_path / "store", workers=1, progress=False)
    assert [name for name, _ in found.damaged] == ["t"]
    assert 1 <= found.damaged[0][1] <= 6
    assert any(line.startswith("1 trials have damaged packets") and "t (" in line for line in found.lines())
    assert Store.open(tmp_path / "store").entries[0]["damaged"] == found.damaged[0][1]


KEYS = ["name", "split", "source", "subject", "rate_hz", "first_row", "last_ns", "counts", "files"]
KEYS += ["counts.faces", "counts.valid", "files.audio", "files.faces.size", "files.audio.sha256"]


def without(entry: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        entry = entry[part]
    del entry[last]


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_without_a_key_is_refused_by_name(store: Store, tmp_path: Path, key: str) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy"))
    content = json.loads((copy / "index.json").read_text())
    without(content["trials"][1], key)
    (copy / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"index.json: trial .* has no '{key}'"):
        Store.open(copy)


@pytest.mark.parametrize("entry", [3, None, "t", []])
def test_an_entry_that_is_no_object_is_refused(store: Store, tmp_path: Path, entry: object) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy"))
    content = json.loads((copy / "index.json").read_text())
    content["trials"][0] = entry
    (copy / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="trial 0 has no 'name'"):
        Store.open(copy)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_table_without_a_column_is_refused(store: Store, tmp_path: Path, column: str) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy"))
    content = json.loads((copy / "index.json").read_text())
    del content["frames"][column]
    (copy / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"lists no frames/{column}.npy"):
        Store.open(copy)


@pytest.mark.parametrize("key", ["rate", "face_size"])
def test_meta_without_a_key_is_refused(store: Store, tmp_path: Path, key: str) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "copy"))
    content = json.loads((copy / "index.json").read_text())
    del content["meta"][key]
    (copy / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"meta has no '{key}'"):
        Store.open(copy)


def test_finding_videos_does_not_list_the_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_of_one(tmp_path / "corpus")
    (tmp_path / "corpus/cropped_aligned/t/t.mp4").write_bytes(b"no video of ours")
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed.append(os.fspath(path)) or scandir(path))
    (trial,) = find_trials(tmp_path / "corpus")
    assert trial.media == tmp_path / "corpus/batch1/t.mp4"
    assert any(path.endswith("batch1") for path in listed)
    assert not [path for path in listed if path.endswith("cropped_aligned/t")]
