"""The calibration set: spread over people, with silence and missing faces in it, always the same, one window in memory at a time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sage_edge.calibration import clips
from sage_edge.calibration.feeds import calibrate
from sage_edge.runtime.bundle import FaceInfo
from sage_edge.runtime.errors import DataError, UsageError
from sage_edge.training.data.store import Store

LENGTH = 30


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people; the first trial loses its face in one place, the second falls silent in one."""
    from sage_edge.training.data.store import array_path, prepare
    from sage_edge.training.data.synthetic import synthesise

    folder = tmp_path_factory.mktemp("clips")
    synthesise(folder / "corpus", seed=5, train=4, val=1, seconds=6.0, workers=1, progress=False)
    prepare(folder / "corpus", folder / "store", workers=1, progress=False)
    entries = json.loads((folder / "store" / "index.json").read_text())["trials"]
    names = [entry["name"] for entry in entries if entry["split"] == "train"]
    first, second = (next(entry for entry in entries if entry["name"] == name) for name in names[:2])
    faces = np.load(folder / "store" / "frames" / "frame_face.npy", mmap_mode="r+")
    faces[first["first_row"] + 70 : first["first_row"] + 85] = -1
    sound = np.load(array_path(folder / "store", second, "audio"), mmap_mode="r+")
    sound[16000 * 3 : 16000 * 4 + 4000] = 0
    return folder / "store"


def test_every_person_silence_and_missing_faces_are_in_it(store_path: Path) -> None:
    store = Store.open(store_path)
    trials = {trial.name: trial for trial in store.trials("train")}
    chosen = clips.pick(store, count=12, length=LENGTH)
    assert len(chosen.clips) == 12
    assert len({(clip.trial, clip.newest) for clip in chosen.clips}) == 12, "no clip twice"
    people = [trials[clip.trial].subject for clip in chosen.clips]
    assert set(people) == {trial.subject for trial in trials.values()}
    assert max(people.count(person) for person in people) <= 4
    faceless = [clip for clip in chosen.clips if clip.why == "no-face"]
    silent = [clip for clip in chosen.clips if clip.why == "silence"]
    assert len(faceless) == len(silent) == 1
    assert (trials[faceless[0].trial].tick_face[faceless[0].newest - LENGTH + 1 : faceless[0].newest + 1] < 0).any()
    start = (silent[0].newest - LENGTH + 1) * 16000 // 30
    second = np.abs(trials[silent[0].trial].samples(start, 16000))
    assert second.max() == 0


def test_the_choice_is_fixed_and_its_hash_tells_it_from_others(store_path: Path) -> None:
    store = Store.open(store_path)
    chosen = clips.pick(store, count=8, length=LENGTH)
    assert clips.pick(Store.open(store_path), count=8, length=LENGTH) == chosen
    others = [
        clips.pick(store, count=7, length=LENGTH),
        clips.pick(store, count=8, length=LENGTH - 1),
        clips.pick(store, count=8, split="val", length=LENGTH),
        dataclasses.replace(chosen, store_digest="0"),
        dataclasses.replace(chosen, clips=chosen.clips[::-1]),
    ]
    assert len({chosen.sha256, *(other.sha256 for other in others)}) == 6


def test_a_small_corpus_gives_what_it_has(store_path: Path) -> None:
    store = Store.open(store_path)
    chosen = clips.pick(store, count=1000, length=LENGTH)
    total = sum(-(-trial.n_ticks // LENGTH) for trial in store.trials("train"))
    assert len(chosen.clips) == total
    assert len(clips.pick(store, count=1, length=10_000).clips) == 1


def test_prefixes_are_spread_over_each_trial(store_path: Path) -> None:
    """Of one person's windows, the first three are not neighbours."""
    store = Store.open(store_path)
    person = store.trials("train")[2].name
    ends = sorted(clip.newest for clip in clips.pick(store, count=12, length=LENGTH // 2).clips if clip.trial == person)
    assert len(ends) >= 3
    assert max(np.diff(ends)) > LENGTH // 2


def test_windows_come_one_at_a_time(store_path: Path) -> None:
    store = Store.open(store_path)
    chosen = clips.pick(store, count=6, length=LENGTH)
    stream = clips.windows(store, dataclasses.replace(chosen, clips=(chosen.clips[0], clips.Clip("nobody", 40, "person"))))
    assert next(stream).samples.shape == (16000,)
    with pytest.raises(DataError, match="no trial 'nobody'"):
        next(stream)


def test_an_empty_split_is_refused(store_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        clips.pick(Store.open(store_path), count=0)
    with pytest.raises(DataError, match="test"):
        clips.pick(Store.open(store_path), split="test")


def test_a_corpus_without_faces_cannot_calibrate(store_path: Path, tmp_path: Path) -> None:
    import shutil

    import onnx
    from onnx import TensorProto, helper

    shutil.copytree(store_path, tmp_path / "store")
    np.load(tmp_path / "store" / "frames" / "frame_face.npy", mmap_mode="r+")[:] = -1
    faces, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 40, 40]) for name in ("faces", "visual"))
    model = helper.make_graph([helper.make_node("Relu", ["faces"], ["visual"])], "g", [faces], [out])
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "visual.onnx")
    store = Store.open(tmp_path / "store")
    face = FaceInfo(48, 40, 0.25, "rgb", (0.5,) * 3, (0.5,) * 3, 150.0)
    chosen = clips.pick(store, count=4, length=LENGTH)
    assert {clip.why for clip in chosen.clips} == {"person", "silence"}
    with pytest.raises(DataError, match="shows a face"):
        calibrate({"visual": tmp_path / "visual.onnx"}, store, chosen, {"visual": ["faces"]}, face, "minmax", progress=False)


@pytest.mark.parametrize("count", [3, 5, 8, 16])
def test_from_three_clips_on_there_is_silence_and_a_missing_face(store_path: Path, count: int) -> None:
    chosen = clips.pick(Store.open(store_path), count=count, length=LENGTH)
    why = [clip.why for clip in chosen.clips]
    assert len(why) == count
    assert {"person", "no-face", "silence"} == set(why)
    assert why.count("no-face") == 1, "there is one in the store"
    assert why.count("silence") == max(count // 8, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_clips_are_of_people(store_path: Path, count: int) -> None:
    chosen = clips.pick(Store.open(store_path), count=count, length=LENGTH)
    assert [clip.why for clip in chosen.clips] == ["person"] * count
    assert len({clip.trial for clip in chosen.clips}) == count


def test_every_window_is_looked_at_for_a_missing_face(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "_LOOK_AT", 2)
    assert "no-face" in {clip.why for clip in clips.pick(Store.open(store_path), count=8, length=LENGTH).clips}


def test_stretches_are_of_as_many_people_as_have_some(store_path: Path, tmp_path: Path) -> None:
    """One person lacks a face in every window, another once: both are in."""
    import shutil

    shutil.copytree(store_path, tmp_path / "store")
    entries = [e for e in json.loads((tmp_path / "store" / "index.json").read_text())["trials"] if e["split"] == "train"]
    faces = np.load(tmp_path / "store" / "frames" / "frame_face.npy", mmap_mode="r+")
    for start in range(0, entries[2]["counts"]["frames"], 20):
        faces[entries[2]["first_row"] + start : entries[2]["first_row"] + start + 19] = -1
    store = Store.open(tmp_path / "store")
    faceless = [clip for clip in clips.pick(store, count=16, length=LENGTH).clips if clip.why == "no-face"]
    assert {clip.trial for clip in faceless} == {entries[0]["name"], entries[2]["name"]}


def test_silence_is_recorded_silence(store_path: Path) -> None:
    """What lies in front of a clip is no sound: a window that reaches there is not more silent for it."""
    store = Store.open(store_path)
    chosen = clips.pick(store, count=3, length=150)
    silent = next(clip for clip in chosen.clips if clip.why == "silence")
    trials = {trial.name: trial for trial in store.trials("train")}
    recorded = trials[silent.trial].samples(0, len(trials[silent.trial].audio))
    assert (np.convolve(np.abs(recorded[::100]), np.ones(160), "valid") == 0).any(), "one second of zeros"
