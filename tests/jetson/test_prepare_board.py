"""A version is made ready by its real commands, over the hand-made bundle; TensorRT alone, which is not here, has a stand-in."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from micro_release import micro_release, sealed
from released import make_release, make_system

from sage_edge.jetson import service
from sage_edge.jetson.layout import PREPARED, Layout
from sage_edge.jetson.prepare import prepare
from sage_edge.jetson.release_file import Release
from sage_edge.jetson.service import stale
from sage_edge.jetson.unpack import unpack
from sage_edge.runtime.engines import plans, probe
from sage_edge.runtime.engines.probe import Found
from sage_edge.runtime.errors import BoardError, BundleError, UsageError

DEMO = {"SAGE_EDGE_ALLOW_DEMO": "yes", "SAGE_EDGE_OPTIONS": "--backend onnxruntime"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_release(tmp_path_factory.mktemp("made") / "release")


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return Path(shutil.copytree(made, tmp_path / "release"))


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "CACHE_DIRECTORY": str(tmp_path / "cache"), **DEMO, **more}


def spoil_golden_windows(folder: Path) -> None:
    """What the bundle says that should come out, it never does."""
    from tiny_bundle import write_manifest

    model = folder / "model/by-hand.sage"
    with np.load(model / "golden.npz") as golden:
        changed = {name: array + np.float32(0.01) if name.startswith("estimates") else array for name, array in golden.items()}
    np.savez_compressed(model / "golden.npz", **changed)
    write_manifest(model)
    sealed(folder)


@pytest.mark.slow
def test_a_version_is_ready_once_its_golden_windows_are_right_and_the_fastest_is_known(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = prepare(folder, environ(tmp_path), said.append)
    cache = tmp_path / "cache"
    assert json.loads((cache / PREPARED).read_text()) == found
    assert found["choice"]["precision"] in ("fp32", "int8-cpu")
    assert found["version"] == "1"
    assert any("golden" in line for line in said)
    kept = {path.name: path.stat().st_mtime_ns for path in cache.glob("precision-*")}
    prepare(folder, environ(tmp_path), said.append)
    assert kept == {path.name: path.stat().st_mtime_ns for path in cache.glob("precision-*")}


def test_a_model_of_synthetic_data_is_refused_unless_the_owner_allows_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"by-hand.sage was trained on synthetic data .*SAGE_EDGE_ALLOW_DEMO=yes"):
        prepare(folder, environ(tmp_path, SAGE_EDGE_ALLOW_DEMO="no"), lambda _: None)
    assert not (tmp_path / "cache" / PREPARED).exists()


@pytest.mark.slow
def test_a_board_that_computes_something_else_is_not_ready(folder: Path, tmp_path: Path) -> None:
    spoil_golden_windows(folder)
    said: list[str] = []
    with pytest.raises(BoardError, match=r"by-hand.sage does not compute its golden windows on this board"):
        prepare(folder, environ(tmp_path), said.append)
    assert not (tmp_path / "cache" / PREPARED).exists()


def test_a_damaged_model_is_not_even_tried(folder: Path, tmp_path: Path) -> None:
    with open(folder / "model/by-hand.sage/golden.npz", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError):
        prepare(folder, environ(tmp_path), lambda _: None)


@pytest.fixture
def laid_in(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The version where a board has it, beside another one."""
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache/pycache"))
    unpack(make_release(tmp_path, {"model/tiny.sage/visual.onnx": "graph"}, version="0"), Layout(make_system(tmp_path)))
    folder = Path(shutil.copytree(made, Layout(tmp_path).versions / "1"))
    stand_in(folder, tmp_path / "log", compiles=True)
    return folder


def test_what_versions_before_left_is_removed_before_room_is_asked_for(laid_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Release.read(laid_in.with_name("0")).files["model/tiny.sage/visual.onnx"].sha256
    gone, kept = (plans.store(plans.Key(sha256, "10.3.0", "8.7", "Orin"), bytes(3_000_000), {}) for sha256 in ("0" * 64, other))
    compiled = tmp_path / "cache/pycache" / laid_in.with_name("gone").relative_to("/")
    compiled.mkdir(parents=True)
    usage, said = shutil.disk_usage(tmp_path), list[str]()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0) if gone.path.exists() else usage)
    prepare(laid_in, environ(tmp_path), said.append)
    assert f"3 MB of versions that are gone removed from {tmp_path / 'cache'}" in said
    assert (gone.path.exists(), kept.path.exists(), compiled.exists()) == (False, True, False)


def test_what_cannot_be_removed_is_said_and_no_more(laid_in: Path, tmp_path: Path) -> None:
    stray = tmp_path / "cache/pycache" / laid_in.with_name("gone").relative_to("/")
    stray.parent.mkdir(parents=True)
    stray.write_text("a file in the place of a folder")
    said: list[str] = []
    prepare(laid_in, environ(tmp_path), said.append)
    assert f"warning: {stray}: what versions that are gone have left cannot be removed (Not a directory)" in said


def test_outside_of_a_board_nothing_is_removed(folder: Path, tmp_path: Path) -> None:
    plan = plans.store(plans.Key("0" * 64, "10.3.0", "8.7", "Orin"), b"x", {})
    stand_in(folder, tmp_path / "log", compiles=True)
    prepare(folder, environ(tmp_path), lambda _: None)
    assert plan.path.exists()


def stand_in(folder: Path, log: Path, *, compiles: bool) -> None:
    """A `sage-edge` that writes down what it was asked for."""
    (folder / "bin/sage-edge").write_text(f'#!/bin/sh\necho "$1" >> "{log}"\necho "line of $1"\n[ "$1" != compile ] || exit {0 if compiles else 1}\n')


@pytest.mark.parametrize("compiles", [pytest.param(True, marks=pytest.mark.slow), False])
def test_engines_are_built_where_there_is_tensorrt_and_a_failure_is_survived(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiles: bool
) -> None:
    monkeypatch.setattr(probe, "available", lambda devices: [Found("tensorrt", "cuda", "10.3.0", True)])
    stand_in(folder, tmp_path / "log", compiles=compiles)
    said: list[str] = []
    options = {"SAGE_EDGE_OPTIONS": "--precision int8"}
    found = prepare(folder, environ(tmp_path, **options), said.append)
    assert (tmp_path / "log").read_text().split() == ["compile", "verify"]
    assert found["engines"] == ("built" if compiles else "failed")
    assert "  line of compile" in said
    options["SAGE_EDGE_OPTIONS"] += " --backend tensorrt"
    if not compiles:
        with pytest.raises(BoardError, match="engines could not be built"):
            prepare(folder, environ(tmp_path, **options), said.append)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_what_the_owner_named_is_checked_against_the_golden_windows_too(folder: Path, tmp_path: Path) -> None:
    stand_in(folder, tmp_path / "log", compiles=True)  # its `verify` finds nothing wrong
    said: list[str] = []
    options = {"SAGE_EDGE_OPTIONS": "--backend openvino --precision fp32"}
    prepare(folder, environ(tmp_path, **options), said.append)
    assert "golden check of openvino fp32: ok" in said
    spoil_golden_windows(folder)
    stand_in(folder, tmp_path / "log", compiles=True)
    with pytest.raises(BoardError, match=r"by openvino fp32 by-hand.sage moves its golden windows by 0.01 on this board"):
        prepare(folder, environ(tmp_path, **options), said.append)


def test_another_tensorrt_than_at_first_boot_is_said_when_the_service_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale(tmp_path) is None
    for before, now in (("10.3.0", "10.3.0"), ("", ""), ("10.3.0", "10.16.2"), ("10.3.0", ""), ("", "10.3.0")):
        (tmp_path / PREPARED).write_text(json.dumps({"tensorrt": before}))
        monkeypatch.setattr(service, "tensorrt_version", lambda now=now: now)
        line = stale(tmp_path)
        assert (line is None) == (before == now)
        assert line is None or "sudo sage-edge-first-boot" in line


def test_tensorrt_that_was_asked_for_and_is_missing_is_said_with_its_cure(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "available", lambda devices: [Found("tensorrt", "cuda", "", False, "TensorRT is not installed")])
    with pytest.raises(BoardError, match="--backend tensorrt in SAGE_EDGE_OPTIONS, and it does not work here: TensorRT is not installed"):
        prepare(folder, environ(tmp_path, SAGE_EDGE_OPTIONS="--backend tensorrt"), lambda _: None)
