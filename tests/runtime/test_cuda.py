"""The CUDA layer through the real bindings: over a pretend driver that counts what leaks, and over the real one where there is a GPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sage_edge.runtime import EngineError, UsageError
from sage_edge.runtime.engines.cuda import BINDINGS, Cuda, open_cuda

sys.path.insert(0, str(Path(__file__).parent / "pretend_gpu"))
from fake_cuda import build, checks_of, report

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module", params=BINDINGS)
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = importlib.util.find_spec(BINDINGS[request.param].split(".")[0])
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    missing = next(Path(str(found.origin)).parent.glob("_driver*.so")) if request.param == "pycuda" else None
    return report("cuda_checks", build(tmp_path_factory.mktemp("fake"), missing), request.param)


@needs_compiler
@pytest.mark.parametrize("check", checks_of("cuda_checks"))
def test_over_the_pretend_driver(reports: dict[str, str], check: str) -> None:
    assert reports[check] == ""


def opened_elsewhere(environment: dict[str, str]) -> str:
    """What a fresh process says of opening a GPU."""
    code = (
        "from sage_edge.runtime import SageError; from sage_edge.runtime.engines.cuda import open_cuda\n"
        "try: print(open_cuda('cuda-python').device)\nexcept SageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@needs_compiler
def test_a_machine_without_a_gpu_or_a_driver_is_a_line(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings")
    driver = {"LD_LIBRARY_PATH": str(build(tmp_path).parent)}
    assert opened_elsewhere({**driver, "FAKECUDA_NAME": "Orin", "FAKECUDA_SM": "8.7"}).startswith("Device(name='Orin', sm='8.7', driver='13.0'")
    assert opened_elsewhere({**driver, "FAKECUDA_NO_DEVICE": "1"}) == (
        "cannot find a GPU: cuDeviceGet says CUDA_ERROR_INVALID_DEVICE; check that a GPU is visible (CUDA_VISIBLE_DEVICES)"
    )
    assert opened_elsewhere({**driver, "FAKECUDA_FAIL": "cuInit:1:100"}).startswith("cannot start CUDA: cuInit says CUDA_ERROR_NO_DEVICE; check that")
    (tmp_path / "libcuda.so.1").write_bytes(b"")
    assert "\n" not in opened_elsewhere(driver)


def test_a_binding_that_is_unknown_or_missing_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no binding to CUDA is called 'cuda'; one of cuda-python, pycuda, auto"):
        open_cuda("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"none of cuda-python, pycuda is installed, CUDA is out of reach: pip install 'sage-edge\[tensorrt\]'"):
        open_cuda()
    with pytest.raises(EngineError, match="pycuda is not installed: pip install pycuda"):
        open_cuda("pycuda")


@pytest.fixture(params=BINDINGS)
def real(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    cuda = open_cuda(request.param)
    yield cuda
    cuda.close()


@pytest.mark.gpu
def test_round_trips_on_a_gpu_are_equal(real: Cuda) -> None:
    rng = np.random.default_rng(0)
    with real.current():
        stream = real.stream()
        for size in (1, 4097, 1 << 26):
            memory, there, back = real.alloc(size), real.pinned(size), real.pinned(size)
            there[...] = rng.integers(1, 256, size, np.uint8)
            start, end = real.event(), real.event()
            start.record(stream)
            real.copy_in(memory.address, there, stream)
            real.copy_out(back, memory.address, stream)
            end.record(stream)
            stream.synchronise()
            assert np.array_equal(there, back)
            assert end.ms_since(start) > 0


@pytest.mark.gpu
def test_a_graph_on_a_gpu_replays_its_copies() -> None:
    cuda = open_cuda("cuda-python")
    with cuda.current():
        stream, memory, host, back = cuda.stream(), cuda.alloc(4096), cuda.pinned(4096), cuda.pinned(4096)

        def work() -> None:
            cuda.copy_in(memory.address, host, stream)
            cuda.copy_out(back, memory.address, stream)

        graph = cuda.capture(stream, work)
        for value in (3, 5):
            host[...] = value
            graph.launch(stream)
            stream.synchronise()
            assert (back == value).all()
    cuda.close()


@pytest.mark.gpu
def test_memory_of_a_gpu_comes_back() -> None:
    """As much as fits is taken and given back three times over."""
    cuda = open_cuda()
    with cuda.current():
        for _ in range(3):
            half = cuda.alloc(cuda.device.memory_bytes * 3 // 5)
            with pytest.raises(EngineError, match="cannot allocate"):
                cuda.alloc(cuda.device.memory_bytes * 3 // 5)
            half.close()
    cuda.close()
