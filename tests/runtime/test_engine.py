"""One engine: arrays bound once, results in place, clear refusals."""

from __future__ import annotations

import contextlib
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sage_edge.runtime import Bundle, EngineError, UsageError, open_engine
from sage_edge.runtime.engines import default_threads
from sage_edge.runtime.engines.arrays import aligned_zeros
from sage_edge.runtime.engines.onnxruntime import OnnxRuntimeEngine


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


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("graph", ["visual", "fusion"])
def test_the_first_items_of_a_batch_are_as_one_by_one_in_place_and_nothing_grows(bundle: Bundle, backend: str, graph: str) -> None:
    if backend == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    rng = np.random.default_rng(0)
    with (
        contextlib.closing(open_engine(bundle.graph(graph, "fp32"), backend, 4, 1)) as engine,
        contextlib.closing(open_engine(bundle.graph(graph, "fp32"), backend, 1, 1)) as single,
    ):
        for array in engine.inputs.values():
            array[...] = rng.random(array.shape)
        places = {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()}
        for items in (1, 3, None, 2, 4, 1):
            for array in engine.outputs.values():
                array[...] = 7
            engine.run(items)
            for i in range(items or 4):
                for name, array in single.inputs.items():
                    array[0] = engine.inputs[name][i]
                single.run()
                for name, array in single.outputs.items():
                    assert np.abs(engine.outputs[name][i] - array[0]).max() <= 1e-4
        assert {name: array.ctypes.data for name, array in {**engine.inputs, **engine.outputs}.items()} == places
        for items in (0, 5):
            with pytest.raises(EngineError, match=f"runs 1 to 4 items, not {items}; open it with a larger batch"):
                engine.run(items)
        tracemalloc.start()
        try:
            before = tracemalloc.take_snapshot()
            for i in range(200):
                engine.run(1 + i % 4)
            grown = sum(
                max(0, each.size_diff) for each in tracemalloc.take_snapshot().compare_to(before, "filename") if "engines" in str(each.traceback)
            )
        finally:
            tracemalloc.stop()
        assert grown < 1000


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_of_a_fixed_batch_computes_all_of_it(tmp_path: Path, backend: str) -> None:
    if backend == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    engine = open_engine(save(tmp_path / "g.onnx", shape=(3, 4)), backend, batch=3)
    engine.inputs["x"][...] = np.arange(12).reshape(3, 4)
    engine.run(2)
    assert np.array_equal(engine.outputs["y"][:2], -engine.inputs["x"][:2])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_input_is_read_where_somebody_else_has_it(tmp_path: Path, backend: str) -> None:
    if backend == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    with contextlib.closing(open_engine(save(tmp_path / "g.onnx", shape=("n", 16)), backend, batch=3)) as engine:
        own, y, block = engine.inputs["x"], engine.outputs["y"], aligned_zeros((9, 16), np.dtype(np.float32))
        own[...] = 100
        for at in (0, 5, 6, 0):
            engine.read_from("x", block[at : at + 3])
            for items in (3, 1, 2, 3):
                block[...] = np.random.default_rng(at + items).standard_normal(block.shape)
                engine.run(items)
                assert np.array_equal(y[:items], -block[at : at + items]), "what lies there now, not a copy of what lay there"
        engine.read_from("x", own)
        engine.run()
        assert (y == -100).all()
        assert engine.inputs["x"] is own
        assert (own == 100).all()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_no_input_can_be_read_from_is_refused_and_all_is_as_before(tmp_path: Path, backend: str) -> None:
    if backend == "openvino" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    with contextlib.closing(open_engine(save(tmp_path / "g.onnx", shape=("n", 16)), backend, batch=2)) as engine:
        engine.inputs["x"][...] = 3
        block = aligned_zeros((4, 16), np.dtype(np.float32))
        beside = block.reshape(-1)[8:40].reshape(2, 16)
        needs = r"needs float32 \[2, 16\], C-contiguous, from a multiple of 64"
        for wrong in (block, block[:1], block[::2], beside, block[:2].view(np.int32), aligned_zeros((16, 2), np.dtype(np.float32)).T):
            with pytest.raises(EngineError, match=r"g\.onnx cannot read 'x' from .*, " + needs) as caught:
                engine.read_from("x", wrong)
            assert "\n" not in str(caught.value)
        with pytest.raises(EngineError, match=r"g\.onnx has no input 'y'"):
            engine.read_from("y", block[:2])
        engine.run()
        assert (engine.outputs["y"] == -3).all()


def test_what_a_gpu_reads_is_bound_again_for_each_run_for_it_is_copied_when_it_is_bound(tmp_path: Path) -> None:
    with contextlib.closing(open_engine(save(tmp_path / "g.onnx", shape=("n", 16)), batch=2)) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
        bound: list[tuple[object, ...]] = []
        for binding in engine._bindings:
            plain = binding.bind_input
            binding.bind_input = lambda *what, plain=plain: (bound.append(what), plain(*what))
        engine.run()
        assert not bound, "on the CPU it is read where it lies"
        engine._copied = True
        block = aligned_zeros((2, 16), np.dtype(np.float32))
        engine.read_from("x", block)
        bound.clear()
        for items in (2, 1):
            engine.run(items)
            assert bound.pop()[4:] == ((items, 16), block.ctypes.data)
        assert not bound


@pytest.mark.gpu
def test_on_cuda_each_run_reads_what_its_inputs_hold(tmp_path: Path) -> None:
    with contextlib.closing(open_engine(save(tmp_path / "g.onnx", shape=("n", 16)), batch=2, hint="cuda")) as engine:
        block = aligned_zeros((2, 16), np.dtype(np.float32))
        for value, array in ((1, engine.inputs["x"]), (2, engine.inputs["x"]), (3, block), (4, block), (5, engine.inputs["x"])):
            engine.read_from("x", array)
            array[...] = value
            engine.run()
            assert (engine.outputs["y"] == -value).all()


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


def test_int8_trt_graphs_are_simulated_on_a_cpu(tmp_path: Path) -> None:
    """A convolution whose FP16 scales make one of ONNX Runtime's optimizers round its bias to nothing: what the file says of itself prevents that."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(0, 0.05, (8, 4, 3, 3)).astype(np.float16), rng.normal(0, 0.5, 8).astype(np.float16)
    scales = {"xs": np.float16(0.004), "cs": np.float16(0.01), "ws": np.full(8, 0.0012, np.float16)}
    constants = {"w": weights, "b": bias, **scales, "xz": np.int8(0), "wz": np.zeros(8, np.int8)}
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["x16", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=0),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "cs", "xz"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "cs", "xz"], ["y16"]),
        helper.make_node("Cast", ["y16"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["n", 4, 6, 6]), ("y", ["n", 8, 4, 4]))]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = rng.normal(0, 0.2, (1, 4, 6, 6)).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]

    def moved(**metadata: str) -> float:
        del model.metadata_props[:]
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, tmp_path / "g.onnx")
        engine = open_engine(tmp_path / "g.onnx")
        engine.inputs["x"][...] = x
        engine.run()
        return float(np.abs(engine.outputs["y"] - wanted).max() / np.abs(wanted).max())

    assert moved(precision="int8-trt") < 0.02, "one step of the 8 bits at most"
    assert moved() > 0.1, "ONNX Runtime computes it rightly by now: disabled_optimizers is not needed any more"
