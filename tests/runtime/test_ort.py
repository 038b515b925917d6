"""ONNX Runtime leaves nothing in the temporary and cache folders: its telemetry never starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]


def test_a_session_writes_no_identifier(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    # ONNX Runtime keeps quiet by itself on a build server
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS", "TF_BUILD", "XDG_CACHE_HOME"}
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    code = f"from sage_edge.runtime.engines import open_engine; open_engine({str(tmp_path / 'g.onnx')!r}).run()"
    subprocess.run([sys.executable, "-c", code], env={**env, "HOME": str(home), "TMPDIR": str(temporary)}, check=True)
    assert [path for folder in (home, temporary) for path in folder.rglob("*") if path.is_file()] == []


def test_nobody_loads_it_another_way() -> None:
    """`onnxruntime.quantization` may be imported by name where `load` was called before. The same holds for OpenVINO, whose loader is `ov`."""
    elsewhere = re.compile(r"\s*(import|from) (onnxruntime(?!\.quantization)|openvino)\b")
    found = []
    for package in ("runtime", "calibration", "compile", "training", "cli", "benchmarks"):
        for file in (ROOT / package).rglob("*.py"):
            lines = file.read_text(encoding="utf-8").splitlines()
            found += [f"{file.relative_to(ROOT)}: {line.strip()}" for line in lines if elsewhere.match(line)]
    assert sorted(found) == ["runtime/ort.py: import onnxruntime", "runtime/ov.py: import openvino"]


def test_no_test_imports_openvino_to_see_whether_it_is_there() -> None:
    """That import reports by itself; `importlib.util.find_spec` does not."""
    importing = re.compile(r"importorskip\(.openvino|^\s*(import|from) openvino", re.M)
    assert [
        str(file) for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__) and importing.search(file.read_text(encoding="utf-8"))
    ] == []
