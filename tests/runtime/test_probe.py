"""A backend is present when it has run one node, and only then; two ONNX Runtimes over each other are seen."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import numpy as np
import onnx
import pytest

from sage_edge.runtime import EngineError, UsageError, open_engine
from sage_edge.runtime.engines import probe as probing
from sage_edge.runtime.engines.probe import DEVICES, ONE_NODE, Found, available, clash, probe


def test_the_one_node_is_a_valid_graph() -> None:
    model = onnx.load_from_string(ONE_NODE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_what_is_installed_here_is_found_by_running_it() -> None:
    import onnxruntime

    found = {(each.backend, each.device): each for each in available()}
    assert tuple(found) == DEVICES
    assert found["onnxruntime", "cpu"] == Found("onnxruntime", "cpu", onnxruntime.__version__, True)
    for pair, each in found.items():
        assert each.ok or each.why, pair
        assert "\n" not in each.why
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert "no CUDAExecutionProvider" in found["onnxruntime", "cuda"].why
        assert "pip install onnxruntime-gpu" in found["onnxruntime", "cuda"].fix
    if util.find_spec("openvino"):
        assert found["openvino", "cpu"].ok
    if not util.find_spec("tensorrt") and not util.find_spec("tensorrt_bindings"):
        assert "TensorRT is not installed" in found["tensorrt", "cuda"].why


def test_a_library_that_computes_something_else_is_not_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is replaced by one that subtracts: what runs and gives a wrong answer does not count."""
    monkeypatch.setattr(probing, "ONE_NODE", ONE_NODE.replace(b"Add", b"Sub"))
    probe.cache_clear()
    try:
        found = probe("onnxruntime", "cpu")
    finally:
        probe.cache_clear()
    assert not found.ok
    assert found.why == "it computed [0.0, 0.0] for [3.0, -6.0]"
    assert found.version


def test_a_library_that_ends_the_process_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = available([("openvino", "cpu")])
    assert not found.ok
    assert found.why == "its one-node run ended with signal 11"


def test_a_module_that_is_missing_is_named_with_its_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ModuleNotFoundError('No module named openvino')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = available([("openvino", "cpu")])
    assert found == Found("openvino", "cpu", "", False, "No module named openvino", "pip install 'sage-edge[openvino]'")


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(UsageError, match="openvino on cuda is unknown; one of onnxruntime on cpu, "):
        probe("openvino", "cuda")


def test_two_onnxruntimes_over_each_other(tmp_path: Path) -> None:
    """What pip leaves behind when both are installed: the metadata of two, the files of one."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        (folder := tmp_path / f"{name}-1.2.3.dist-info").mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2.3\n")
    code = "from sage_edge.runtime.engines.probe import clash; print(clash())"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip()
    assert said.startswith(
        "onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3 are installed over each other: pip uninstall -y onnxruntime onnxruntime-gpu, then "
    )
    if len([d for d in metadata.distributions() if (d.metadata["Name"] or "").startswith("onnxruntime")]) == 1:
        assert clash() is None


def test_cuda_takes_no_int8_graph_and_is_not_assumed(tmp_path: Path) -> None:
    (tmp_path / "fp32.onnx").write_bytes(ONE_NODE)
    model = onnx.load_from_string(ONE_NODE)
    for precision in ("int8-cpu", "int8-trt"):
        del model.metadata_props[:]
        model.metadata_props.add(key="precision", value=precision)
        onnx.save(model, tmp_path / "int8.onnx")
        with pytest.raises(EngineError, match=f"is an {precision} graph, which is no work for onnxruntime on CUDA; choose precision fp32-cuda"):
            open_engine(tmp_path / "int8.onnx", hint="cuda")
    if not probe("onnxruntime", "cuda").ok:
        with pytest.raises(EngineError, match="CUDA"):
            open_engine(tmp_path / "fp32.onnx", hint="cuda", batch=2)
    else:
        engine = open_engine(tmp_path / "fp32.onnx", hint="cuda", batch=2)
        engine.inputs["x"][...] = [1, 2]
        engine.run()
        assert np.array_equal(engine.outputs["y"], [2, 4])
