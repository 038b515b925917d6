"""What versions that are gone left in the cache goes; what a version on the board needs stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from released import make_release, make_system

from sage_edge.jetson.layout import Layout
from sage_edge.jetson.leftovers import remove_leftovers
from sage_edge.jetson.release_file import Release
from sage_edge.jetson.unpack import unpack
from sage_edge.runtime.engines import plans

GRAPH = "model/tiny.sage/onnx/visual.onnx"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Versions 1 and 2 of two models."""
    made = Layout(make_system(tmp_path / "root"))
    monkeypatch.setenv("CACHE_DIRECTORY", str(made.cache))
    for version in ("1", "2"):
        unpack(make_release(tmp_path, {GRAPH: f"graph of {version}"}, version=version), made)
    return made


def plan_of(sha256: str) -> plans.Plan:
    return plans.store(plans.Key(sha256, "10.3.0", "8.7", "Orin"), b"x" * 1000, {})


def compiled(layout: Layout, version: str) -> Path:
    """As Python lays it: below PYTHONPYCACHEPREFIX by the whole path of the source."""
    path = layout.cache / "pycache" / (layout.versions / version / "site/one.cpython-310.pyc").relative_to("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"y" * 500)
    return path


def test_engines_and_compiled_python_stay_as_long_as_their_version(layout: Layout) -> None:
    needed = [plan_of(Release.read(layout.versions / version).files[GRAPH].sha256) for version in ("1", "2")]
    other, code = plan_of("0" * 64), [compiled(layout, version) for version in ("0", "1", "2")]
    size = other.path.with_suffix(".json").stat().st_size
    assert remove_leftovers(layout.versions, layout.cache / "pycache") == 1000 + size + 500
    assert [plan.path.exists() for plan in (*needed, other)] == [True, True, False]
    assert [path.exists() for path in code] == [False, True, True]
    assert remove_leftovers(layout.versions, layout.cache / "pycache") == 0


def test_a_version_whose_description_is_damaged_keeps_everything(layout: Layout) -> None:
    code, plan = compiled(layout, "1"), plan_of(Release.read(layout.versions / "1").files[GRAPH].sha256)
    for damage in ("{", None):
        (layout.versions / "1/release.json").unlink() if damage is None else (layout.versions / "1/release.json").write_text(damage)
        assert remove_leftovers(layout.versions, layout.cache / "pycache") == 0
        assert code.exists()
        assert plan.path.exists()


def test_an_empty_cache_and_python_without_a_folder_of_its_own_are_nothing_to_do(layout: Layout) -> None:
    assert remove_leftovers(layout.versions, None) == 0
    assert remove_leftovers(layout.versions, layout.cache / "pycache") == 0
