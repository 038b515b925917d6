"""OpenVINO behind `Engine`: results in place in arrays that stay, float32 unless bf16 is asked for, refusals of one line, nothing sent home."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_engine import save

from sage_edge.runtime import Bundle, EngineError, UsageError, open_engine

pytestmark = pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")


def test_runs_in_place_whatever_the_batch(tmp_path: Path) -> None:
    path = save(tmp_path / "g.onnx")
    for batch in (1, 3):
        engine = open_engine(path, "openvino", batch, 1)
        x, y = engine.inputs["x"], engine.outputs["y"]
        assert (x.shape, y.shape, x.dtype, engine.threads) == ((batch, 4), (batch, 4), np.float32, 1)
        assert not x.any()
        place = y.ctypes.data
        for scale in (1, -5):
            x[...] = scale * np.arange(4 * batch).reshape(batch, 4)
            engine.run()
            assert np.array_equal(y, -x)
        assert engine.inputs["x"] is x
        assert engine.outputs["y"] is y
        assert y.ctypes.data == place
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run()


def test_arrays_outlive_the_engine(tmp_path: Path) -> None:
    engine = open_engine(save(tmp_path / "g.onnx"), "openvino", threads=1)
    y = engine.outputs["y"]
    engine.inputs["x"][...] = 2
    engine.run()
    engine.close()
    del engine
    assert np.array_equal(y, np.full((1, 4), -2, np.float32))


def test_int64_and_bool(tmp_path: Path) -> None:
    engine = open_engine(save(tmp_path / "g.onnx", TensorProto.INT64), "openvino")
    assert engine.inputs["x"].dtype == np.int64
    engine = open_engine(save(tmp_path / "b.onnx", TensorProto.BOOL, op="Not"), "openvino")
    engine.run()
    assert engine.outputs["y"].all()


def products(path: Path) -> Path:
    """A graph y = x times 64 weights."""
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_float32_is_float32_until_bf16_is_asked_for(tmp_path: Path) -> None:
    from sage_edge.runtime.engines.openvino import has_bf16

    path = products(tmp_path / "g.onnx")
    values = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)

    def run(backend: str, hint: str | None = None) -> np.ndarray:
        engine = open_engine(path, backend, threads=1, hint=hint)
        engine.inputs["x"][...] = values
        engine.run()
        return engine.outputs["y"]

    wanted = run("onnxruntime")
    scale = np.abs(wanted).max()
    assert np.abs(run("openvino") - wanted).max() <= 1e-5 * scale
    if has_bf16():
        assert 1e-4 * scale < np.abs(run("openvino", "bf16") - wanted).max() < 2e-2 * scale
    else:
        with pytest.raises(EngineError, match="no bf16"):
            run("openvino", "bf16")


def test_threads_are_what_was_asked_for_and_pinned_nowhere(tmp_path: Path) -> None:
    engine = open_engine(products(tmp_path / "g.onnx"), "openvino", threads=2)
    compiled = engine._requests[0].get_compiled_model()  # type: ignore[attr-defined]
    wanted = {"INFERENCE_NUM_THREADS": 2, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False, "ENABLE_CPU_RESERVATION": False}
    assert {name: compiled.get_property(name) for name in wanted} == wanted
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def refusal(path: Path, **options: int) -> str:
    with pytest.raises(EngineError) as caught:
        open_engine(path, "openvino", **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_graphs_that_do_not_load(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    assert "cannot be loaded by openvino 20" in refusal(tmp_path / "bad.onnx")
    assert "only the first size may be open" in refusal(save(tmp_path / "open.onnx", shape=("n", "m")))
    assert "batches of 2, not 1" in refusal(save(tmp_path / "fixed.onnx", shape=(2, 4)))
    assert open_engine(tmp_path / "fixed.onnx", "openvino", batch=2).inputs["x"].shape == (2, 4)


@pytest.mark.parametrize(("backend", "hint", "words"), [("openvino", "cuda", "f32, bf16"), ("onnxruntime", "bf16", "cpu, cuda")])
def test_a_hint_of_another_backend_is_refused(tmp_path: Path, backend: str, hint: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"hint '{hint}' is unknown to {backend}; one of {words}"):
        open_engine(save(tmp_path / "g.onnx"), backend, hint=hint)


def python(code: str, **env: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_missing_openvino_is_one_line_with_the_install(bundle: Bundle) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from sage_edge.runtime import EngineError, open_engine\n"
        f"try: open_engine({str(bundle.graph('fusion', 'fp32'))!r}, 'openvino')\n"
        "except EngineError as error: print(error)"
    )
    said = python(code)
    assert said.startswith("openvino cannot be loaded (")
    assert said.endswith("): pip install 'sage-edge[openvino]'")
    assert "\n" not in said


def test_nothing_is_sent_and_no_identifier_kept(tmp_path: Path, bundle: Bundle) -> None:
    """`import openvino` sends an event and writes ~/intel/openvino_ga_cid by itself; a build server it leaves alone."""
    home = tmp_path / "home"
    home.mkdir()
    graph = str(bundle.graph("fusion", "fp32"))
    code = (
        "import socket, threading, urllib.request\n"
        "tried = []\n"
        "socket.socket.connect = lambda self, address: tried.append(address)\n"
        "urllib.request.urlopen = lambda *a, **k: tried.append(a)\n"
        f"from sage_edge.runtime import open_engine; open_engine({graph!r}, 'openvino').run()\n"
        "print(tried, threading.active_count())"
    )
    assert python(code, HOME=str(home), CI="", TF_BUILD="", JENKINS_URL="") == "[] 1"
    assert list(home.rglob("*")) == []


def test_telemetry_that_somebody_else_has_loaded_is_silenced(tmp_path: Path) -> None:
    if not any((each.metadata["Name"] or "") == "openvino-telemetry" for each in metadata.distributions()):
        pytest.skip("openvino-telemetry is not installed")
    code = (
        "import urllib.request; urllib.request.urlopen = lambda *a, **k: None\n"
        "import openvino, openvino_telemetry\n"
        "from sage_edge.runtime import ov; ov.load()\n"
        "print(openvino_telemetry.Telemetry().consent)"
    )
    assert python(code, HOME=str(tmp_path), CI="", TF_BUILD="", JENKINS_URL="") == "False"
