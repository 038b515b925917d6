"""INT8 on x86 without VNNI, really: a Haswell that QEMU emulates, where sums of two products saturate and the engine's way out makes them exact."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

QEMU = shutil.which("qemu-x86_64")

CODE = """
import json, sys
import numpy as np
from sage_edge.runtime import cpu, open_engine
moved = {}
for bits in ("8", "7"):
    x = np.load(f"{bits}.npz")
    for told, found in ((True, {"avx2"}), (False, {"avx2", "avx512_vnni"})):  # /proc/cpuinfo is that of the machine around
        cpu.features = lambda: frozenset(found)
        engine = open_engine(f"{bits}.onnx", threads=1)
        engine.inputs["x"][...] = x["x"]
        engine.run()
        moved[f"{bits} bits, {told}"] = float(np.abs(engine.outputs["y"] - x["y"]).max() / np.abs(x["y"]).max())
print(json.dumps(moved))
"""


def _emulates_avx2() -> bool:
    if QEMU is None or platform.machine() != "x86_64":
        return False
    said = re.search(r"version (\d+)\.(\d+)", subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False).stdout)
    return said is not None and (int(said[1]), int(said[2])) >= (7, 2)


def save(path: Path, most: int) -> None:
    """y = x W in 8 bits, uint8 by int8, with many products near the greatest; weights up to `most`. The numbers it has to give lie beside it."""
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((32, 16)) < 0.5, most, rng.integers(-most, most + 1, (32, 16))).astype(np.int8)
    constants = {"xs": np.float32(1 / 255), "xz": np.uint8(0), "w": weights, "ws": np.full(16, 0.01, np.float32), "wz": np.zeros(16, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, size]) for name, size in (("x", 32), ("y", 16))]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.ones((1, 8, 32), np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=ReferenceEvaluator(model).run(None, {"x": x})[0])
    onnx.save(model, path)


@pytest.mark.skipif(not _emulates_avx2(), reason="no qemu-x86_64 of 7.2 or newer on an x86-64 machine")
def test_sums_saturate_unless_the_engine_is_told_or_weights_have_7_bits(tmp_path: Path) -> None:
    for bits, most in ((8, 127), (7, 63)):
        save(tmp_path / f"{bits}.onnx", most)
    done = subprocess.run([str(QEMU), "-cpu", "Haswell", sys.executable, "-c", CODE], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    moved = json.loads(done.stdout)
    assert moved.pop("8 bits, False") > 0.1
    assert max(moved.values()) < 1e-5, moved
