"""The releases that the emulated board is updated to: as whole as any other, and broken where they are meant to be."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "jetson"))
from made import LOOP, crash
from released import make_release, make_system
from releases import altered

from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import Release
from sage_edge.jetson.unpack import unpack

ROOT = Path(__file__).resolve().parents[2]


def test_an_altered_release_is_whole_under_its_own_version(tmp_path: Path) -> None:
    first = make_release(tmp_path, {"site/other.py": "1\n", "site/changed.py": "1\n"})
    second = altered(first, tmp_path, "1.0.changed", {"site/changed.py": lambda code: code + b"2\n"})
    folder = unpack(second, Layout(make_system(tmp_path / "root")))
    assert folder.name == "1.0.changed"
    assert (folder / "site/changed.py").read_text() == "1\n2\n"
    assert (folder / "site/other.py").read_text() == "1\n"
    assert Release.read(second).files.keys() == Release.read(first).files.keys()


def test_what_an_altered_release_leaves_out_is_not_in_its_list_either(tmp_path: Path) -> None:
    first = make_release(tmp_path, {"site/av/left.py": "1\n", "site/average.py": "1\n"})
    folder = unpack(altered(first, tmp_path, "1.0.less", {}, ("site/av/",)), Layout(make_system(tmp_path / "root")))
    assert sorted(path.name for path in (folder / "site").iterdir()) == ["average.py"]
    Release.read(folder).verify(folder)


def test_the_loop_as_it_is_can_be_made_to_crash() -> None:
    code = (ROOT / LOOP.removeprefix("site/sage_edge/")).read_bytes()
    compile(crash(code), LOOP, "exec")
    assert b"abort()" in crash(code)


def test_a_loop_that_emits_elsewhere_is_refused_by_name() -> None:
    from report import Failure

    with pytest.raises(Failure, match=r"tests/vm/made\.py"):
        crash(b"def other(): ...\n")
