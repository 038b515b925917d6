"""An ONNX file's metadata, read without onnx: the same as onnx reads, nothing from what is no ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from sage_edge.runtime import Bundle
from sage_edge.runtime.engines.probe import ONE_NODE
from sage_edge.runtime.onnx_file import metadata


def test_same_as_onnx(tmp_path: Path, bundle: Bundle) -> None:
    assert metadata(bundle.graph("visual", "fp32")) == {}
    model = onnx.load(bundle.graph("visual", "fp32"))
    props = {"precision": "int8-cpu", "empty": "", "long": "x" * 100_000, "words": "Wärme, 热"}
    for key, value in props.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "g.onnx")
    assert metadata(tmp_path / "g.onnx") == props


def test_whatever_is_no_onnx_file_has_none(tmp_path: Path) -> None:
    file = tmp_path / "g.onnx"
    for content in (b"", b"not a graph", b"\xff" * 64, b"\x72\xff\xff\xff\xff\x0f", b"\x72", b"\x0f"):
        file.write_bytes(content)
        assert metadata(file) == {}
    with pytest.raises(FileNotFoundError):
        metadata(tmp_path / "none.onnx")


def test_every_cut_of_a_file_is_survived(tmp_path: Path) -> None:
    model = onnx.load_from_string(ONE_NODE)
    model.metadata_props.add(key="precision", value="int8-trt")
    whole = model.SerializeToString()
    for size in range(len(whole)):
        (tmp_path / "g.onnx").write_bytes(whole[:size])
        assert metadata(tmp_path / "g.onnx") in ({}, {"precision": "int8-trt"})
    (tmp_path / "g.onnx").write_bytes(whole)
    assert metadata(tmp_path / "g.onnx") == {"precision": "int8-trt"}
