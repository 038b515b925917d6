"""What compile refuses before it begins: folders that are no bundles, settings that could only fail later. And how an ONNX file explains itself."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from sage_edge.calibration.clips import ClipSet
from sage_edge.calibration.ranges import Ranges
from sage_edge.cli.main import main
from sage_edge.compile import bundle_writer, calibrated, compile_bundle, search
from sage_edge.compile.calibrated import export_graphs
from sage_edge.compile.groups import FLOAT, check_names, groups
from sage_edge.runtime.bundle import SEARCH, SEARCH_PLOT
from sage_edge.runtime.errors import CheckpointError, CompileError, UsageError
from sage_edge.runtime.faces import MARGIN
from sage_edge.training import presets


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the export began")

    monkeypatch.setattr(bundle_writer, "_graphs", work)


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").write_text("dear")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(photos)
    for name, says in (("photos", "is no bundle"), ("file", "is no folder"), ("link", "is no folder")):
        assert main(["compile", "CKPT", "--data", "STORE", "--out", str(tmp_path / name), "--force"]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
    assert (photos / "1.jpg").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "photos"]


def test_an_empty_folder_or_a_bundle_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.sage").mkdir()
    (tmp_path / "old.sage" / "manifest.json").write_text("{}")
    for name in ("empty", "old.sage", "new.sage"):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            compile_bundle(tmp_path / "none", tmp_path, tmp_path / name, replace=True, progress=False)


def test_no_clips_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 clips are too few"):
        compile_bundle(tmp_path / "none", tmp_path / "none", tmp_path / "x.sage", count=0, progress=False)


def test_modelopt_that_is_not_installed_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(CompileError, match=r"nvidia-modelopt is not installed; pip install 'sage-edge\[modelopt\]'"):
        compile_bundle(tmp_path / "none", tmp_path / "none", tmp_path / "x.sage", by_modelopt=True, progress=False)


def test_an_unknown_group_is_refused_before_the_export(checkpoint_path: Path, store_path: Path, tmp_path: Path, no_work: None) -> None:
    for group in ("audio.nonsense", "audio.attention.1"):
        with pytest.raises(UsageError, match=f"no group '{group}'"):
            compile_bundle(checkpoint_path, store_path, tmp_path / "x.sage", float_groups=(*FLOAT, group), progress=False)
    assert not list(tmp_path.iterdir())


def test_ranges_of_another_window_are_refused_before_the_export(checkpoint_path: Path, store_path: Path, tmp_path: Path, no_work: None) -> None:
    other = ClipSet("train", 300, "0" * 64, ())
    with pytest.raises(UsageError, match="windows of 300 ticks and this checkpoint was trained on windows of 60; run `sage-edge calibrate`"):
        compile_bundle(checkpoint_path, store_path, tmp_path / "x.sage", ranges=Ranges.of("minmax", other, {}), progress=False)
    assert not list(tmp_path.iterdir())
    of_this_one = Ranges.of("minmax", ClipSet("train", 60, "0" * 64, ()), {})
    with pytest.raises(AssertionError, match="the export began"):
        compile_bundle(checkpoint_path, store_path, tmp_path / "x.sage", ranges=of_this_one, progress=False)


def test_a_search_of_another_model_is_refused_before_the_export(checkpoint_path: Path, store_path: Path, tmp_path: Path, no_work: None) -> None:
    searched = Ranges("minmax", "0" * 64, 1, {}, search={"float_groups": ["audio.attention.7"]})
    with pytest.raises(UsageError, match=r"no group 'audio.attention.7'"):
        compile_bundle(checkpoint_path, store_path, tmp_path / "x.sage", ranges=searched, progress=False)
    assert not list(tmp_path.iterdir())


def test_ranges_leave_nothing_to_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb = ["compile", "CKPT", "--data", "STORE", "--out", str(tmp_path / "x.sage"), "--ranges", "ranges.json"]
    for option in (["--method", "mse"], ["--clips", "3"]):
        assert main([*verb, *option]) == 2
        assert capsys.readouterr().err.splitlines() == [
            f"error: {option[0]} says how to find ranges, and --ranges gives some; leave one of the two out"
        ]


def test_a_drop_that_is_no_number_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-drop is nan"):
        compile_bundle(tmp_path / "none", tmp_path / "none", tmp_path / "x.sage", max_drop=float("nan"), progress=False)


def test_a_search_that_cannot_be_drawn_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    searched = Ranges("minmax", "0" * 64, 1, {}, search={"float_groups": []})
    with pytest.raises(UsageError, match="drawn with matplotlib, which is not installed"):
        compile_bundle(tmp_path / "none", tmp_path / "none", tmp_path / "x.sage", ranges=searched, progress=False)


@pytest.mark.parametrize("verb", ["compile", "calibrate", "search"])
def test_clips_without_a_face_are_refused_before_the_export(
    verb: str, checkpoint_path: Path, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (calibrated, search, bundle_writer):
        monkeypatch.setattr(module, "export_graphs", None)
    shutil.copytree(store_path, tmp_path / "store")
    np.load(tmp_path / "store" / "frames" / "frame_face.npy", mmap_mode="r+")[:] = -1
    options = {"compile": ["--out", str(tmp_path / "x.sage")], "calibrate": ["--out", str(tmp_path / "x.json")]}
    options["search"] = [*options["calibrate"], "--search"]
    assert main([verb.replace("search", "calibrate"), str(checkpoint_path), "--data", str(tmp_path / "store"), *options[verb]]) == 1
    assert "calibration clips shows a face; prepare a corpus with faces" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_search_is_kept_without_the_names_of_videos(tmp_path: Path) -> None:
    def quality(drop: float) -> dict[str, object]:
        return {"sqnr_db": dict.fromkeys(("visual", "audio", "fusion"), 20.0), "drop": {"valence": drop, "arousal": drop}}

    found = {
        "precision": "int8-cpu",
        "max_drop": 0.005,
        "float_groups": ["fusion.head"],
        "rows": [{"group": "fusion.head", "graph": "fusion", "left_float": quality(0.0), "alone_int8": quality(0.1)}],
        "all_int8": quality(0.1),
        "chosen": {"quality": quality(0.0), "hop_ms": {}},
        "float_hop_ms": {},
        "windows": 3,
        "videos": {"anna": 500, "björn": 400},
        "threads": 2,
        "machine": {"cpu": "a cpu"},
    }
    bundle_writer._keep_search(tmp_path, found)
    kept = json.loads((tmp_path / SEARCH).read_text())
    assert kept == {**found, "videos": [400, 500]}
    for path in (tmp_path / SEARCH, tmp_path / SEARCH_PLOT):
        assert "anna" not in path.read_text()


def test_every_group_of_a_model_is_known_and_its_files_explain_themselves(model, tmp_path: Path) -> None:
    paths = export_graphs(model, {"trained_on": {}}, tmp_path, "{graph}.onnx", False)
    graphs = [onnx.load(path) for path in paths.values()]
    names = {group for graph in graphs for group in groups(graph)}
    assert {"visual.layer4", "audio.attention.0", "fusion.tcn_audio"} <= names
    check_names(names, model.preset)
    for graph in graphs:
        props = {prop.key: prop.value for prop in graph.metadata_props}
        assert (props["hop"], float(props["face_margin"])) == ("15", MARGIN)


def test_groups_are_counted_by_layers() -> None:
    base = presets.get("base")
    check_names(["audio.attention.11", "fusion.feed_forward.3", *FLOAT], base)
    with pytest.raises(UsageError, match=r"audio\.attention\.12"):
        check_names(["audio.attention.12"], base)
