"""A bundle that is not as it was compiled: every verb that takes one refuses it in one line, before anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_edge.cli.main import main
from sage_edge.runtime.bundle import digest_of

GRAPH = "onnx/fusion.fp32.onnx"


def flipped_byte(path: Path) -> None:
    data = bytearray((path / GRAPH).read_bytes())
    data[len(data) // 2] ^= 1
    (path / GRAPH).write_bytes(data)


def missing_file(path: Path) -> None:
    (path / GRAPH).unlink()


def _edit(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads((path / "manifest.json").read_text())
    change(value)
    value["digest"] = digest_of(value)
    (path / "manifest.json").write_text(json.dumps(value))


def path_that_leaves(path: Path) -> None:
    (path.parent / "outside.onnx").write_bytes((path / GRAPH).read_bytes())
    _edit(path, lambda value: value["files"].update({"../outside.onnx": value["files"][GRAPH]}))


def newer_schema(path: Path) -> None:
    _edit(path, lambda value: value.update(schema=2))


def line_break_in_a_key(path: Path) -> None:
    _edit(path, lambda value: value.update({"a\nb": 1}))


def number_too_large(path: Path) -> None:
    _edit(path, lambda value: value["face"].update(margin=10**400))


@pytest.mark.parametrize("verb", ["run", "verify", "inspect", "profile"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flipped_byte, "sha256"),
        (missing_file, "lacks"),
        (path_that_leaves, "not a plain path inside"),
        (newer_schema, "schema"),
        (line_break_in_a_key, "unknown"),
        (number_too_large, "face.margin"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_in_one_line(
    verb: str, damage: Callable[[Path], None], says: str, copy_of: Callable[[], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy_of()
    damage(path)
    (tmp_path / "x.mp4").write_bytes(b"never opened")
    before = sorted(tmp_path.rglob("*"))
    outputs = ["--out", f"csv:{tmp_path}/x.csv", "--out", f"jsonl:{tmp_path}/x.jsonl"]
    more = {"run": ["--video", f"{tmp_path}/x.mp4", *outputs], "profile": ["--seconds", "1"]}
    assert main([verb, str(path), *more.get(verb, [])]) == 1
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert "copy.sage" in line
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
