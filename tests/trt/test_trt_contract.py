"""Every TensorRT name and keyword of our sources is in the real bindings of 10.3, 10.13 and 11.4, and so is the stand-in's whole surface.

The bindings come from PyPI (`python tests/trt/fetch.py`) and are imported over stub libraries; one version per process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fetch import PACKAGES, bindings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
USES = re.compile(r"trt\.[A-Z]")
SOURCES = [path for folder in ("compile", "runtime") for path in sorted((ROOT / folder).rglob("*.py")) if USES.search(path.read_text())]

MISTAKES = [
    ("trt_build.py", "config=config)", "cfg=config)", "Builder.build_serialized_network takes"),
    ("trt_build.py", "OnnxParser(network, self._log)", "OnnxParser(network)", "OnnxParser.__init__ takes"),
    ("trt_build.py", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "NetworkDefinitionCreationFlag.STRONG", "has no STRONG"),
    ("trt_build.py", "MemoryPoolType.WORKSPACE", "MemoryPool.WORKSPACE", "trt has no MemoryPool"),
    ("trt_build.py", "engine.num_layers", "engine.nb_layers", "ICudaEngine has no nb_layers"),
    ("trt_build.py", "network.num_inputs", "network.num_input", "INetworkDefinition has no num_input"),
    ("trt_build.py", "config.profiling_verbosity = ", "config.num_optimization_profiles = ", "num_optimization_profiles cannot be set"),
    ("trt_build.py", "network: trt.INetworkDefinition, batches", "network: Any, batches", "num_inputs is used on something of unknown type"),
    ("timing_cache.py", "ignore_mismatch=False", "ignore_mismatches=False", "set_timing_cache takes"),
    ("trt_progress.py", "phase_name: str, step: int", "step: int, phase_name: str", "IProgressMonitor.step_complete is called with"),
    ("trt_progress.py", "trt.IProgressMonitor.__init__(self)", "pass", "does not call IProgressMonitor.__init__"),
    ("tensorrt.py", "execute_async_v3(", "execute_async_v4(", "IExecutionContext has no execute_async_v4"),
    ("trt.py", "trt.ILogger.WARNING", "trt.ILogger.WARN", "ILogger has no WARN"),
]
"""File, what is replaced by what, and what the contract then says."""
GONE = ("trt_build.py", "config.clear_flag(trt.BuilderFlag.TF32)", "config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag has no FP16")
"""Precision flags were deprecated in 10.12 and are gone in 11: only there is this a mistake."""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TensorRT's libraries of both majors, from 20 lines of C."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    folder = tmp_path_factory.mktemp("stubs")
    first = folder / "stub.o"
    subprocess.run([compiler, "-c", "-O1", "-fPIC", "-fvisibility=hidden", str(HERE / "stub.c"), "-o", str(first)], check=True)
    for major in (10, 11):
        for name in ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin"):
            library = f"{name}.so.{major}"
            subprocess.run([compiler, "-shared", f"-Wl,-soname,{library}", str(first), "-o", str(folder / library)], check=True)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Copies of our sources with one mistake each -> what is to be said about it."""
    folder = tmp_path_factory.mktemp("planted")
    written = {}
    for i, (name, right, wrong, says) in enumerate([*MISTAKES, GONE]):
        source = next(path for path in SOURCES if path.name == name).read_text()
        assert right in source, f"{name} does not hold {right!r}, plant another mistake"
        path = folder / f"{i}_{name}"
        path.write_text(source.replace(right, wrong))
        written[path] = says
    return written


@pytest.fixture(scope="module", params=PACKAGES)
def found(request: pytest.FixtureRequest, stubs: Path, planted: dict[Path, str]) -> dict[str, Any]:
    """What contract.py says with the bindings of one version."""
    folder = bindings(request.param)
    if not folder.is_dir():
        text = f"TensorRT bindings {request.param} are not in {folder.relative_to(ROOT)}; python tests/trt/fetch.py fetches them"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    command = [sys.executable, str(HERE / "contract.py"), str(stubs), *map(str, [*SOURCES, *planted])]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["version"] == request.param
    return result


def test_the_sources_that_use_tensorrt_are_all_there() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    builder = {f"compile/{name}.py" for name in ("trt_build", "timing_cache", "trt_progress")}
    assert {*builder, "runtime/trt.py", "runtime/engines/tensorrt.py"} <= names


def test_every_name_and_keyword_of_ours_is_in_the_bindings(found: dict[str, Any]) -> None:
    assert [problem for source in SOURCES for problem in found["problems"][str(source)]] == []
    names = set(found["used"])
    assert {"Builder.build_serialized_network(config, network)", "IOptimizationProfile.set_shape(max, min, opt)"} <= names
    assert {"IExecutionContext.execute_async_v3()", "IExecutionContext.set_tensor_address()", "IProfiler.report_layer_time overridden"} <= names
    assert len(names) > 80


def test_planted_mistakes_are_caught(found: dict[str, Any], planted: dict[Path, str]) -> None:
    for path, says in planted.items():
        told = found["problems"][str(path)]
        if says == GONE[-1] and not found["version"].startswith("11."):
            assert told == []
        else:
            assert any(says in problem for problem in told), f"{path.name}: {told}"


def test_the_stand_in_has_the_surface_of_the_bindings(found: dict[str, Any]) -> None:
    assert found["standin"] == []


def test_our_subclasses_work_on_the_real_base_classes_and_a_builder_that_cannot_start_is_one_line(found: dict[str, Any]) -> None:
    assert found["live"] == []
