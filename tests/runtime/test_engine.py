"""One engine: arrays bound once, results in place, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sage_edge.runtime import Bundle, EngineError, UsageError, open_engine
from sage_edge.runtime.engines import default_threads


def save(path: Path, kind: int = TensorProto.FLOAT, shape: tuple[object, ...] = ("n", 4), op: str = "Neg") -> Path:
    """A graph y = op(x)."""
    x, y = (helper.make_tensor_value_info(name, kind, list(shape)) for name in "xy")
    model = helper.make_model(helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def test_runs_in_place(tmp_path: Path) -> None:
    engine = open_engine(save(tmp_path / "g.onnx"), batch=3)
    x, y = engine.inputs["x"], engine.outputs["y"]
    assert (x.shape, y.shape, x.dtype) == ((3, 4), (3, 4), np.float32)
    assert not x.any()
    for scale in (1, -5):
        x[...] = scale * np.arange(12).reshape(3, 4)
        engine.run()
        assert np.array_equal(y, -x)
    assert engine.inputs["x"] is x
    assert engine.outputs["y"] is y
    assert x.ctypes.data % 64 == y.ctypes.data % 64 == 0
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run()


def test_outputs_keep_their_address(bundle: Bundle) -> None:
    engine = open_engine(bundle.graph("fusion", "fp32"))
    places = {name: array.ctypes.data for name, array in engine.outputs.items()}
    for _ in range(3):
        engine.run()
    assert {name: array.ctypes.data for name, array in engine.outputs.items()} == places
    assert set(places) == {"estimates", "temporal", "modality"}


def test_threads(tmp_path: Path) -> None:
    path = save(tmp_path / "g.onnx")
    assert 1 <= default_threads() <= 4
    assert open_engine(path).threads == default_threads()
    assert open_engine(path, threads=1).threads == 1


def test_int64_and_bool(tmp_path: Path) -> None:
    engine = open_engine(save(tmp_path / "g.onnx", TensorProto.INT64))
    assert engine.inputs["x"].dtype == np.int64
    engine = open_engine(save(tmp_path / "b.onnx", TensorProto.BOOL, op="Not"))
    engine.run()
    assert engine.outputs["y"].all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "onnxrutnime"}, "did you mean 'onnxruntime'"),
        ({"backend": "x"}, "one of onnxruntime"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_use(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_engine(save(tmp_path / "g.onnx"), **options)  # type: ignore[arg-type]


def refusal(path: Path, **options: int) -> str:
    with pytest.raises(EngineError) as caught:
        open_engine(path, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_graphs_that_do_not_load(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    assert "cannot be loaded by onnxruntime" in refusal(tmp_path / "bad.onnx")
    assert "only the first size may be open" in refusal(save(tmp_path / "open.onnx", shape=("n", "m")))
    assert "batches of 2, not 1" in refusal(save(tmp_path / "fixed.onnx", shape=(2, 4)))
    assert open_engine(tmp_path / "fixed.onnx", batch=2).inputs["x"].shape == (2, 4)


def test_graph_that_does_not_fit_the_manifest(bundle: Bundle) -> None:
    import dataclasses

    from sage_edge.runtime.bundle import Dims
    from sage_edge.runtime.graphs import Graphs

    other = Bundle(bundle.path, dataclasses.replace(bundle.manifest, dims=Dims(8, 5)))
    with pytest.raises(EngineError, match=r"audio.fp32.onnx: its outputs are audio float32 \[1, 300, 4\] and its manifest needs .*\[1, 300, 5\]"):
        Graphs(other, "fp32")
