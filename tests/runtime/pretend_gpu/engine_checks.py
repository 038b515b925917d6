"""What holds of TensorRTEngine: a stand-in computes on the pretend GPU, through its streams, and the real bindings of CUDA are in between."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import io
import itertools
import json
import math
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import CAPTURE_UNSUPPORTED, ILLEGAL_ADDRESS, OUT_OF_MEMORY, Fake
from onnx import TensorProto, helper, numpy_helper

sys.path += [str(Path(__file__).resolve().parents[2] / "trt"), str(Path(__file__).resolve().parents[1])]
import standin

from sage_edge.runtime.engines import open_engine, plans
from sage_edge.runtime.engines.arrays import aligned_zeros
from sage_edge.runtime.engines.tensorrt import TensorRTEngine
from sage_edge.runtime.errors import EngineError
from sage_edge.runtime.files import sha256_file

WIDTH, MOST = 37, 4
FOLDER = Path(tempfile.mkdtemp())
_numbers = itertools.count()
_calls: list[Any] = []
_gone: list[str] = []


def set_up(_folder: str) -> None:
    global FOLDER
    FOLDER = Path(_folder)
    os.environ["CACHE_DIRECTORY"] = str(FOLDER / "cache")
    sys.modules["tensorrt"] = standin
    standin._reset()
    run = standin.IExecutionContext.execute_async_v3

    def execute(self: Any, stream_handle: int) -> bool:
        """Put the computation on the stream instead of doing it; a profiler waits for it."""
        if set(self._addresses) != set(self._engine._values) or self.infer_shapes():
            return False
        lib = ctypes.CDLL("libcuda.so.1")
        context = weakref.ref(self)

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def call(_: object) -> None:
            if (alive := context()) is None:
                _gone.append("a context went before its work was done")
            else:
                run(alive, stream_handle)

        _calls.append(call)
        if lib.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), call, None):
            return False
        return self._profiler is None or lib.cuStreamSynchronize(ctypes.c_void_p(stream_handle)) == 0

    def array(self: Any, name: str) -> Any:
        """Device memory: it has to be an allocation's, all of it."""
        shape = tuple(self.get_tensor_shape(name))
        kind = np.dtype(standin.nptype(self._engine.get_tensor_dtype(name)))
        address, size = self._addresses[name], math.prod(shape) * kind.itemsize
        assert address % 256 == 0, "TensorRT wants it aligned"
        view = Fake().lib.fakecuda_view(address, size)
        assert view, f"{name} is not in device memory"
        return np.frombuffer((ctypes.c_byte * size).from_address(view), kind).reshape(shape)

    standin.IExecutionContext.execute_async_v3 = execute
    standin.IExecutionContext._array = array


def graph_file(kind: int = TensorProto.FLOAT) -> Path:
    """y = 2 a + b, z = a - b, all [n, WIDTH]; a file of its own each time."""
    names = {name: helper.make_tensor_value_info(name, kind, ["n", WIDTH]) for name in "abyz"}
    two = numpy_helper.from_array(np.array(2, helper.tensor_dtype_to_np_dtype(kind)), "two")
    nodes = [
        helper.make_node("Mul", ["a", "two"], ["aa"], name="double"),
        helper.make_node("Add", ["aa", "b"], ["y"], name="sum"),
        helper.make_node("Sub", ["a", "b"], ["z"], name="difference"),
    ]
    graph = helper.make_graph(nodes, f"g{next(_numbers)}", [names["a"], names["b"]], [names["y"], names["z"]], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = FOLDER / f"a.sage/onnx/{graph.name}.int8-trt.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def build(path: Path, most: int = MOST) -> bytes:
    """The stand-in's plan of an ONNX file for batches of 1 to `most`."""
    log = plans_logger()
    builder = standin.Builder(log)
    network = builder.create_network(1 << standin.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    parser = standin.OnnxParser(network, log)  # it has to stay until the network is built
    assert parser.parse_from_file(str(path))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = [(size, *tuple(tensor.shape)[1:]) for size in (1, 1, most)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return bytes(plan)


def plans_logger() -> Any:
    from sage_edge.runtime import trt

    return trt.logger(standin)


def key_of(path: Path) -> plans.Key:
    return plans.Key(sha256_file(path), standin.__version__, "8.7", "Orin")


def built(path: Path | None = None) -> Path:
    """An ONNX file with its plan in the cache."""
    path = path or graph_file()
    plans.store(key_of(path), build(path), {"rung": "fp32"})
    return path


@contextlib.contextmanager
def opened(path: Path | None = None, batch: int = 1, beside: TensorRTEngine | None = None) -> Iterator[TensorRTEngine]:
    engine = TensorRTEngine(path or built(), batch, beside)
    try:
        yield engine
    finally:
        engine.close()
        engine.close()
    assert not _gone, _gone


def compute(engine: TensorRTEngine, seed: int) -> bool:
    """Run on random input; whether the outputs are right."""
    rng = np.random.default_rng(seed)
    a, b = engine.inputs["a"], engine.inputs["b"]
    a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    engine.run()
    return np.array_equal(engine.outputs["y"], 2 * a + b) and np.array_equal(engine.outputs["z"], a - b)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(EngineError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_runs_are_right_in_place_and_allocate_once(fake: Fake) -> None:
    with opened(batch=3) as engine:
        made = fake.made()
        assert made == {"device": 2, "pinned": 2, "stream": 1, "context": 1}
        places = {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()}
        assert {array.shape for array in engine.inputs.values()} == {(3, WIDTH)}
        assert all(array.dtype == np.float32 and not array.any() for array in engine.inputs.values())
        assert all(compute(engine, seed) for seed in range(6))
        assert {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()} == places
        assert fake.made() == {**made, "graph": 1, "exec": 1}
        assert fake.pageable() == 0


def check_what_is_read_from_elsewhere_is_copied_to_where_the_device_reads(fake: Fake) -> None:
    with opened(batch=3) as engine:
        assert compute(engine, 0)
        a, b, made = engine.inputs["a"], engine.inputs["b"].copy(), fake.made()
        block = aligned_zeros((5, WIDTH), np.dtype(np.float32))
        for seed in range(4):
            block[...] = np.random.default_rng(seed).standard_normal(block.shape)
            engine.read_from("a", block[:3])
            engine.run()
            assert np.array_equal(engine.outputs["y"], 2 * block[:3] + b)
        engine.read_from("a", a)
        assert compute(engine, 5)
        assert fake.made() == {**made, "graph": 1, "exec": 1}
        assert fake.pageable() == 0
        assert "cannot read 'a' from float32 [2" in refused(lambda: engine.read_from("a", block[:2]))
        assert "has no input 'y'" in refused(lambda: engine.read_from("y", block[:3]))


def check_the_graph_is_captured_once_after_a_run_without(fake: Fake) -> None:
    with opened() as engine:
        assert compute(engine, 0)
        assert fake.calls("cuGraphLaunch") == 0
        copies = fake.calls("cuMemcpyHtoDAsync_v2"), fake.calls("cuMemcpyDtoHAsync_v2")
        assert copies == (2, 2), "one block each way: the run, and the capture"
        for seed in range(4):
            assert compute(engine, seed)
        assert fake.calls("cuStreamBeginCapture_v2") == 1
        assert fake.calls("cuGraphLaunch") == 4
        calls = fake.calls()
        engine.run()
        assert fake.calls() - calls == 4, "context on, launch, wait, context off"
        assert (fake.calls("cuMemcpyHtoDAsync_v2"), fake.calls("cuMemcpyDtoHAsync_v2")) == copies
        assert fake.calls("cuStreamSynchronize") == 6


def check_the_first_items_are_right_and_the_graph_is_captured_again_when_their_number_changes(fake: Fake) -> None:
    with opened(batch=3) as engine:
        rng, captures = np.random.default_rng(0), 0
        made = {name: count for name, count in fake.made().items() if name not in ("graph", "exec")}
        places = {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()}
        for items in (2, 2, 2, 1, 1, 3, None, 3, 2, 2):
            a, b = engine.inputs["a"], engine.inputs["b"]
            a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
            engine.run(items)
            assert np.array_equal(engine.outputs["y"][:items], (2 * a + b)[:items])
            assert np.array_equal(engine.outputs["z"][:items], (a - b)[:items])
        captures = fake.calls("cuStreamBeginCapture_v2")
        assert captures == 4, "2, 1, 3, 2: whole is 3"
        assert fake.calls("cuGraphLaunch") == 6
        assert fake.live()["exec"] == 1
        assert {name: count for name, count in fake.made().items() if name not in ("graph", "exec")} == made
        assert {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()} == places
        for items in (0, 4):
            assert "runs 1 to 3 items, not" in refused(lambda items=items: engine.run(items))


def check_three_share_a_stream_whoever_closes_first(fake: Fake) -> None:
    for order in itertools.permutations(range(3)):
        first = TensorRTEngine(built(), 1)
        engines = [first, *(TensorRTEngine(built(), 1, first) for _ in range(2))]
        assert (fake.made()["stream"], fake.made()["context"]) == (1, 1)
        assert all(compute(engine, seed) for seed in range(3) for engine in engines)
        for i in order:
            engines[i].close()
            assert all(compute(engine, 1) for engine in engines if engine.inputs)
            left = sum(1 for engine in engines if engine.inputs)
            assert (fake.live().get("device", 0), fake.live().get("exec", 0)) == (2 * left, left)
        assert not fake.live()
        fake.reset()


def check_without_graphs_it_says_so_once_and_is_right(fake: Fake) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said, opened() as first, opened(beside=first) as other:
        fake.fail("cuStreamBeginCapture_v2", 0, CAPTURE_UNSUPPORTED)
        assert all(compute(engine, seed) for seed in range(3) for engine in (first, other))
        assert fake.calls("cuStreamBeginCapture_v2") == 2
        assert "exec" not in fake.made()
    (line,) = said.getvalue().splitlines()
    assert "runs without a CUDA graph" in line
    assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in line


def check_an_engine_that_cannot_be_captured_runs_on(fake: Fake) -> None:
    """It allocates in every run: the capture is lost, the run is not."""
    plain = standin.IExecutionContext.execute_async_v3

    def execute(self: Any, stream_handle: int) -> bool:
        address = ctypes.c_ulonglong()
        if not fake.lib.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(64)):
            fake.lib.cuMemFree_v2(address)
        return bool(plain(self, stream_handle))

    standin.IExecutionContext.execute_async_v3 = execute
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said, opened() as engine:
            assert all(compute(engine, seed) for seed in range(3))
        assert "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" in said.getvalue()
    finally:
        standin.IExecutionContext.execute_async_v3 = plain


def check_layers_are_timed_and_runs_go_on_as_before(fake: Fake) -> None:
    with opened() as engine:
        for _ in range(2):
            layers = engine.profile(3)
            assert [layer.name for layer in layers] == ["double", "sum", "difference"]
            assert {layer.ms for layer in layers} == {0.5}
            assert compute(engine, 1)
        assert fake.made()["device"] == 2
        assert standin._script.live == 1
    assert standin._script.live == 0


def check_arrays_outlive_the_engine(fake: Fake) -> None:
    with opened() as engine:
        compute(engine, 0)
        y, expected = engine.outputs["y"], engine.outputs["y"].copy()
    assert np.array_equal(y, expected)
    assert fake.live() == {"pinned": 1, "context": 1}
    del y
    assert not fake.live()
    assert engine.inputs == engine.outputs == {}
    assert "was closed; open it again" in refused(engine.run)
    assert "was closed" in refused(lambda: engine.profile())


def check_engines_of_another_version_or_gpu_are_not_opened(fake: Fake) -> None:
    path = graph_file()
    assert refused(lambda: TensorRTEngine(path, 1)) == (
        f"no engine of {path.name} for TensorRT 10.3.0 on Orin (SM 8.7); build it with `sage-edge compile a.sage --target tensorrt`"
    )
    for change in ({"tensorrt": "10.13.3"}, {"gpu": "Thor"}, {"sm": "11.0"}):
        plans.store(dataclasses.replace(key_of(path), **change), build(path), {})
    text = refused(lambda: TensorRTEngine(path, 1))
    assert "only for TensorRT 10.13.3 on Orin (SM 8.7) and TensorRT 10.3.0 on Orin (SM 11.0) and TensorRT 10.3.0 on Thor (SM 8.7); build" in text
    assert standin._script.live == 0


def check_what_tensorrt_refuses_to_load_is_a_line(fake: Fake) -> None:
    path = graph_file()
    plans.store(key_of(path), b"not a plan", {})
    text = refused(lambda: TensorRTEngine(path, 1))
    assert "its engine cannot be loaded (Serialization assertion" in text
    assert text.endswith("with TensorRT 10.3.0; build it again with `sage-edge compile a.sage --target tensorrt`")
    path = built()
    standin._script.starts = False
    try:
        assert "its engine cannot be loaded (CUDA initialization failure" in refused(lambda: TensorRTEngine(path, 1))
    finally:
        standin._script.starts = True


def check_a_batch_that_was_not_built_and_types_that_are_not_passed(fake: Fake) -> None:
    path = built()
    text = refused(lambda: TensorRTEngine(path, MOST + 1))
    assert f"its engine takes a of [1, {WIDTH}] to [{MOST}, {WIDTH}], not [{MOST + 1}, {WIDTH}] with TensorRT 10.3.0; build it again" in text
    half = built(graph_file(TensorProto.FLOAT16))
    assert "only float32 is passed in and out" in refused(lambda: TensorRTEngine(half, 1))


def check_no_room_for_a_context_is_a_line(fake: Fake) -> None:
    plain = standin.ICudaEngine.create_execution_context

    def refuse(self: Any) -> None:
        plans_logger().log(standin.ILogger.ERROR, "CUDA error 2 allocating\n8-byte buffer")

    standin.ICudaEngine.create_execution_context = refuse
    try:
        text = refused(lambda: TensorRTEngine(built(), 1))
    finally:
        standin.ICudaEngine.create_execution_context = plain
    assert "no room on the GPU to run it (CUDA error 2 allocating 8-byte buffer) with TensorRT 10.3.0; close what else uses" in text


def check_an_error_that_is_kept_keeps_nothing_of_the_gpu(fake: Fake) -> None:
    with pytest.raises(EngineError) as unopened:
        TensorRTEngine(built(), MOST + 1)
    assert set(fake.live()) <= {"pinned", "context"}, "but for arrays"
    assert standin._script.live == 0
    engine = TensorRTEngine(built(), 1)
    for work in (engine.run, engine.profile):
        fake.fail("cuLaunchHostFunc", 1, OUT_OF_MEMORY)
        with pytest.raises(EngineError, match="it failed to run") as caught:
            work()
        assert standin._script.live == 1
    engine.close()
    assert standin._script.live == 0
    assert unopened.tb
    assert caught.tb


def check_an_error_on_the_gpu_is_a_line_and_everything_is_freed(fake: Fake) -> None:
    with contextlib.redirect_stderr(io.StringIO()), opened() as engine:
        compute(engine, 0)
        fake.fail("cuStreamSynchronize", 1, ILLEGAL_ADDRESS)
        assert refused(engine.run).startswith("cannot wait for the GPU: cuStreamSynchronize says CUDA_ERROR_ILLEGAL_ADDRESS")


def check_open_engine_gives_it(fake: Fake) -> None:
    engine = open_engine(built(), "tensorrt", batch=2)
    other = open_engine(built(), "tensorrt", beside=engine)
    assert isinstance(engine, TensorRTEngine)
    assert isinstance(other, TensorRTEngine)
    assert engine.threads == 1
    assert compute(engine, 0)
    assert compute(other, 0)
    assert fake.made()["stream"] == 1
    engine.close()
    other.close()


def whole_bundle() -> Any:
    """A bundle made by hand whose fp32 graphs have plans."""
    from tiny_bundle import make_bundle

    from sage_edge.runtime.bundle import GRAPHS, Bundle

    path = FOLDER / "b.sage"
    bundle = Bundle.open(path if path.exists() else make_bundle(path))
    for name in GRAPHS:
        file = bundle.graph(name, "fp32")
        plans.store(key_of(file), build(file), {"rung": "fp32"})
    return bundle


def check_graphs_of_a_bundle_are_those_of_onnxruntime_and_share_a_stream(fake: Fake) -> None:
    from sage_edge.runtime.bundle import GRAPHS
    from sage_edge.runtime.graphs import Graphs

    bundle, rng = whole_bundle(), np.random.default_rng(0)
    with Graphs(bundle, "fp32", "tensorrt") as ours, Graphs(bundle, "fp32", "onnxruntime", 1) as theirs:
        ours.warm_up()
        assert (fake.made()["stream"], fake.made()["exec"], fake.made()["device"]) == (1, 3, 6)
        for name in GRAPHS:
            mine, reference = getattr(ours, name), getattr(theirs, name)
            for key, array in mine.inputs.items():
                array[...] = reference.inputs[key][...] = rng.random(array.shape, np.float32)
            mine.run()
            reference.run()
            for key, array in mine.outputs.items():
                assert np.allclose(array, reference.outputs[key], atol=1e-6), (name, key)
        del array, mine
    assert fake.pageable() == 0


def check_profile_lists_the_layers_of_each_engine(fake: Fake) -> None:
    from sage_edge.cli.main import main

    bundle = whole_bundle()
    arguments = ["profile", str(bundle.path), "--layers", "--precision", "fp32"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*arguments, "--backend", "tensorrt", "--json"]) == 0
    graphs = json.loads(said.getvalue())["graphs"]
    assert set(graphs) == {"visual", "audio", "fusion"}
    for name, graph in graphs.items():
        assert graph["key"] == "TensorRT 10.3.0 on Orin (SM 8.7)"
        assert graph["rung"] == "fp32"
        assert graph["run_ms"] > 0
        assert sum(ms for _, ms in graph["layers"]) == 0.5 * len(onnx.load(bundle.graph(name, "fp32")).graph.node)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["profile", str(bundle.path), "--layers", "--precision", "auto", "--backend", "tensorrt"]) == 0
    assert said.getvalue().splitlines()[0].startswith("visual as fp32, TensorRT 10.3.0 on Orin (SM 8.7): ")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(arguments) == 2
    assert said.getvalue() == "error: --layers is for engines of TensorRT, not of onnxruntime; add --backend tensorrt\n"


def check_the_golden_windows_of_a_bundle_pass(fake: Fake) -> None:
    from sage_edge.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        assert main(["verify", str(whole_bundle().path), "--backend", "tensorrt", "--precision", "fp32"]) == 0, said.getvalue()
    assert fake.calls("cuGraphLaunch") >= 2
    assert fake.pageable() == 0


def check_a_session_gives_what_it_gives_on_onnxruntime(fake: Fake) -> None:
    from sage_edge.cli.main import main
    from sage_edge.runtime.clip import write_clip

    bundle, clip = whole_bundle(), FOLDER / "clip.mp4"
    write_clip(clip, 3.0, (160, 120))
    estimates = {}
    for backend in ("onnxruntime", "tensorrt"):
        out = FOLDER / f"{backend}.jsonl"
        arguments = ["run", str(bundle.path), "--video", str(clip), "--precision", "fp32", "--backend", backend, "--out", f"jsonl:{out}"]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            assert main(arguments) == 0, said.getvalue()
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        estimates[backend] = np.array([[line["valence"], line["arousal"]] for line in lines if "valence" in line])
    assert len(estimates["tensorrt"]) > 3
    assert np.abs(estimates["tensorrt"] - estimates["onnxruntime"]).max() <= 1e-4
    assert (fake.made()["stream"], fake.made()["exec"], fake.pageable()) == (1, 3, 0)


def check_several_faces_and_hops_in_a_thread_are_those_of_onnxruntime(fake: Fake) -> None:
    from sage_edge.runtime import Session, ticks

    rng = np.random.default_rng(0)
    faces, sound = rng.integers(0, 255, (3, 48, 48, 3), np.uint8), (0.1 * rng.standard_normal(40_000)).astype(np.float32)
    outcomes = []
    for backend in ("onnxruntime", "tensorrt"):
        with Session(whole_bundle(), backend, "fp32", t0_ns=0, follow="all", most_faces=3, hop_thread=True) as session:
            if backend == "tensorrt":
                assert fake.made()["stream"] == 2, "one for each thread"
            for k in range(60):
                for track in range(1 + k // 10 % 3):
                    session.push_face(np.roll(faces[track], k, axis=0), ticks.tick_time_ns(k), track=track)
                session.push_audio(sound[k * 533 : k * 533 + 533], k * 533 * 62_500)
            session.finish()
            outcomes.append(session.poll())
    (reference, ours) = outcomes
    assert [(e.t_ns, e.face, e.age_ms) for e in ours] == [(e.t_ns, e.face, e.age_ms) for e in reference]
    assert len({e.t_ns for e in ours}) < len(ours)
    assert max(np.abs(np.subtract(a.trail, b.trail)).max() for a, b in zip(ours, reference, strict=True)) <= 1e-4
    assert fake.pageable() == 0


def check_the_probe_runs_its_node_and_no_failing_call_leaks(fake: Fake) -> None:
    from sage_edge.runtime.engines.probe import probe

    probe.cache_clear()
    found = probe("tensorrt", "cuda")
    assert (found.ok, found.version, found.why) == (True, "10.3.0", ""), found
    for n in range(1, fake.calls() + 1):
        fake.reset()
        fake.fail("", n, OUT_OF_MEMORY)
        probe.cache_clear()
        with contextlib.redirect_stderr(io.StringIO()):
            found = probe("tensorrt", "cuda")
        assert found.ok == (not found.why)
        assert "\n" not in found.why
        assert standin._script.live == 0, n
        assert not _gone, (n, _gone)
        unfreed = set(fake.live()) - ({"stream", "device", "context"} if "context" in found.why else set())
        assert not unfreed, (n, found, fake.live())


def everything(path: Path) -> None:
    with opened(path) as first, opened(path, beside=first) as other:
        for seed in range(2):
            assert compute(first, seed)
            assert compute(other, seed)
        first.profile(1)


def check_no_failing_call_leaks(fake: Fake) -> None:
    """The n-th call fails, for each n: an EngineError of one line or right results, and nothing is left."""
    path = built()
    everything(path)
    calls, refusals = fake.calls(), 0
    assert calls > 80
    for n in range(1, calls + 1):
        fake.reset()
        fake.fail("", n, OUT_OF_MEMORY)
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                everything(path)
            except EngineError as error:
                assert "\n" not in str(error)  # noqa: PT017 - not every n is refused
                refusals += 1
        assert not fake.live(), (n, fake.live())
        assert not fake.misuse(), (n, fake.misuse())
        assert standin._script.live == 0, n
        assert not _gone, (n, _gone)
    assert refusals > calls / 3
