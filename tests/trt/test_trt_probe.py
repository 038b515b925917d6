"""TensorRT is present when it has parsed, built, loaded and run one node, here through the stand-in; "auto" races it like any other."""

from __future__ import annotations

import shutil

import host_driver
import numpy as np
import pytest
import standin

from sage_edge.compile.tensorrt import build_bundle
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.engines import probe as probing
from sage_edge.runtime.engines import trt_probe
from sage_edge.runtime.engines.cuda import Cuda
from sage_edge.runtime.errors import EngineError
from sage_edge.runtime.files import cache_folder
from sage_edge.runtime.precision import Choice, choose

X = np.array([1.5, -3.0], np.float32)


@pytest.fixture
def machine(script: standin._Script, monkeypatch: pytest.MonkeyPatch) -> standin._Script:
    monkeypatch.setattr(trt_probe, "open_cuda", host_driver.open_cuda)
    return script


def test_one_node_through_all_of_it(machine: standin._Script) -> None:
    version, y = trt_probe.run_one_node(probing.ONE_NODE, X)
    assert version == standin.__version__
    assert np.array_equal(y, X + X)
    assert len(machine.built) == 1
    assert (machine.live, machine.disorder) == (0, 0), "engine and context are let go, and before the runtime"


def test_each_step_that_fails_is_named(machine: standin._Script) -> None:
    machine.lacks = {"Add"}
    with pytest.raises(EngineError, match="its parser refuses a graph of one node"):
        trt_probe.run_one_node(probing.ONE_NODE, X)
    machine.lacks = set()
    machine.refuse = lambda model: "no kernel fits"
    with pytest.raises(EngineError, match=r"it cannot build a graph of one node .*no kernel fits"):
        trt_probe.run_one_node(probing.ONE_NODE, X)
    machine.starts = False
    with pytest.raises(EngineError, match="its builder does not start"):
        trt_probe.run_one_node(probing.ONE_NODE, X)


def test_nothing_of_tensorrt_outlives_the_gpus_context_when_a_run_fails(machine: standin._Script, monkeypatch: pytest.MonkeyPatch) -> None:
    close, left = Cuda.close, []

    def watched(self: Cuda) -> None:
        left.append(machine.live)
        close(self)

    monkeypatch.setattr(Cuda, "close", watched)
    monkeypatch.setattr(standin.IExecutionContext, "execute_async_v3", lambda self, stream_handle: False)
    with pytest.raises(EngineError, match="it does not run what it has built"):
        trt_probe.run_one_node(probing.ONE_NODE, X)
    assert left == [0]
    assert machine.disorder == 0


def test_a_wrong_result_is_not_present(machine: standin._Script) -> None:
    machine.spoil = lambda model, name, value: value + 1
    probing.probe.cache_clear()
    found = probing.probe("tensorrt", "cuda")
    probing.probe.cache_clear()
    assert not found.ok
    assert found.why == "it computed [4.0, -5.0] for [3.0, -6.0]"
    assert found.version == standin.__version__


def test_a_backend_that_fails_while_it_is_timed_is_refused_and_the_race_goes_on(
    machine: standin._Script, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp32", "int8"):
        build_bundle(bundle, precision=precision, progress=False, say=lambda _: None)
    windows, execute = len(bundle.golden()["samples"]), standin.IExecutionContext.execute_async_v3

    def fails_late(self: standin.IExecutionContext, stream_handle: int) -> bool:
        late = self._runs > windows and self._engine.get_tensor_name(0) == "samples"
        quantized = any(node.op_type == "QuantizeLinear" for node in self._engine._model.graph.node)
        return not (late and quantized) and execute(self, stream_handle)

    monkeypatch.setattr(standin.IExecutionContext, "execute_async_v3", fails_late)
    probing.probe.cache_clear()
    choice = choose(bundle, "auto", "tensorrt")
    probing.probe.cache_clear()
    assert choice.name == "tensorrt fp32"
    assert "it failed to run" in choice.refused["tensorrt int8-trt"]


def test_auto_races_engines_that_were_built_and_looks_again_after_a_build(machine: standin._Script, bundle: Bundle) -> None:
    def race() -> Choice:
        probing.probe.cache_clear()
        return choose(bundle, "auto", "tensorrt")

    with pytest.raises(EngineError, match=r"nothing that was asked for runs by-hand.sage on this machine: tensorrt fp32: .*; tensorrt int8-trt: "):
        race()
    build_bundle(bundle, precision="fp32", progress=False, say=lambda _: None)
    first = race()
    assert (first.name, list(first.seconds), list(first.refused)) == ("tensorrt fp32", ["tensorrt fp32"], ["tensorrt int8-trt"])
    assert race() == first
    build_bundle(bundle, progress=False, say=lambda _: None)
    both = race()
    assert set(both.seconds) == {"tensorrt fp32", "tensorrt int8-trt"}
    machine.spoil = lambda model, name, value: value + 1 if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else value
    shutil.rmtree(cache_folder())
    build_bundle(bundle, precision="fp32", progress=False, say=lambda _: None)
    assert race().name == "tensorrt fp32"
    probing.probe.cache_clear()
