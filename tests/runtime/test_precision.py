"""What `precision=` means, and that "auto" measures once per machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from tiny_bundle import write_manifest

from sage_edge.runtime import Bundle, Session, UsageError
from sage_edge.runtime.precision import cache_folder, resolve, time_hops


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/sage-edge"


def test_names(bundle: Bundle) -> None:
    assert resolve(bundle, "fp32", "onnxruntime") == "fp32"
    assert resolve(bundle, "int8", "onnxruntime") == "int8-cpu"
    assert resolve(bundle, "int8-cpu", "onnxruntime") == "int8-cpu"
    for wrong in ("int4", "int8-trt", ""):
        with pytest.raises(UsageError, match="one of fp32, int8, auto"):
            resolve(bundle, wrong, "onnxruntime")


def test_missing_precision_says_what_there_is(copy_of: Callable[[], Path]) -> None:
    path = copy_of()
    (path / "onnx/visual.int8-cpu.onnx").unlink()
    write_manifest(path)
    bundle = Bundle.open(path)
    with pytest.raises(UsageError, match="holds no int8-cpu graphs, only fp32"):
        Session(bundle)
    assert resolve(bundle, "auto", "onnxruntime") == "fp32"


def test_auto_takes_the_faster_and_keeps_the_answer(bundle: Bundle, cache: Path) -> None:
    chosen = resolve(bundle, "auto", "onnxruntime", 1)
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    assert set(kept["seconds_per_hop"]) == {"fp32", "int8-cpu"}
    assert chosen == kept["fastest"] == min(kept["seconds_per_hop"], key=kept["seconds_per_hop"].get)
    assert kept["bundle"] == bundle.manifest.digest
    other = ({"fp32", "int8-cpu"} - {chosen}).pop()
    file.write_text(json.dumps({**kept, "fastest": other}))
    assert resolve(bundle, "auto", "onnxruntime", 1) == other
    for damaged in ("", "[]", '{"fastest": "int4"}'):
        file.write_text(damaged)
        assert resolve(bundle, "auto", "onnxruntime", 1) in ("fp32", "int8-cpu")
        assert json.loads(file.read_text())["bundle"] == bundle.manifest.digest
    resolve(bundle, "auto", "onnxruntime", 2)
    assert len(list(cache.iterdir())) == 2


def test_auto_without_a_writable_home(bundle: Bundle, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with Session(bundle, precision="auto", t0_ns=0) as session:
        assert session.precision in ("fp32", "int8-cpu")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nowhere")
    assert cache_folder() == Path("/nowhere/.cache/sage-edge")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/x")
    assert cache_folder() == Path("/var/cache/x")


def test_time_hops(bundle: Bundle) -> None:
    seconds = time_hops(bundle, ["fp32", "int8-cpu"], "onnxruntime", 1, runs=2)
    assert all(value > 0 for value in seconds.values())


def test_auto_under_another_name_of_the_wheel(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert resolve(bundle, "auto", "onnxruntime", 1) in ("fp32", "int8-cpu")
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["version"] == onnxruntime.__version__
