"""TensorRTEngine over a stand-in for TensorRT that computes on a pretend GPU; on a real one, over what `compile --target tensorrt` built."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from sage_edge.compile.trt_build import Batches, PlanBuilder
from sage_edge.runtime import EngineError, open_engine, trt
from sage_edge.runtime.engines import plans
from sage_edge.runtime.engines.cuda import open_cuda
from sage_edge.runtime.engines.tensorrt import TensorRTEngine
from sage_edge.runtime.files import sha256_file

sys.path.insert(0, str(Path(__file__).parent / "pretend_gpu"))
from fake_cuda import build, checks_of, report


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    pytest.importorskip("cuda.bindings")
    folder = tmp_path_factory.mktemp("fake")
    return report("engine_checks", build(folder), str(folder), environment={"FAKECUDA_NAME": "Orin"})


@pytest.mark.parametrize("check", checks_of("engine_checks"))
def test_over_the_pretend_driver(reports: dict[str, str], check: str) -> None:
    assert reports[check] == ""


@pytest.mark.gpu
def test_on_a_gpu_it_computes_what_onnxruntime_does_with_and_without_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx, helper = pytest.importorskip("onnx"), pytest.importorskip("onnx.helper")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *sizes]) for name, sizes in (("x", [8, 16, 16]), ("y", [4, 14, 14])))
    weight = onnx.numpy_helper.from_array(rng.standard_normal((4, 8, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"), helper.make_node("Tanh", ["c"], ["y"], name="tanh")]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "g.fp32.onnx"
    onnx.save(model, path)

    tensorrt = trt.load()
    plan = PlanBuilder(tensorrt, progress=False).build(path, Batches(1, 1, 4), "g").plan
    with contextlib.closing(open_cuda()) as cuda:
        key = plans.Key(sha256_file(path), str(tensorrt.__version__), cuda.device.sm, cuda.device.name)
    plans.store(key, plan, {})
    with contextlib.closing(TensorRTEngine(path, 3)) as engine, contextlib.closing(open_engine(path, batch=3)) as reference:
        for _ in range(3):  # the first without a graph, the others by launching it
            engine.inputs["x"][...] = reference.inputs["x"][...] = rng.standard_normal((3, 8, 16, 16))
            engine.run()
            reference.run()
            assert np.abs(engine.outputs["y"] - reference.outputs["y"]).max() < 1e-4
        assert engine.profile(3)
        with pytest.raises(EngineError, match=r"takes x of \[1, 8, 16, 16\] to \[4, 8, 16, 16\]"):
            TensorRTEngine(path, 5, engine)
