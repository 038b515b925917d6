"""One graph, one plan: what TensorRT is asked for, what becomes of its errors, its phases and its timing cache."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import onnx
import pytest
import standin
from onnx import TensorProto, helper

from sage_edge.compile.trt_build import Batches, BuildError, Built, PlanBuilder, precisions_of
from sage_edge.compile.trt_progress import Phases, monitor
from sage_edge.runtime.files import atomic_file
from sage_edge.runtime.progress import Progress


def graph(*shape: int | str, count: int = 1) -> bytes:
    """`count` Tanh nodes in a row over an input of `shape`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", f"t{count}")]
    nodes = [helper.make_node("Tanh", [f"t{i}" if i else "x"], [f"t{i + 1}"], f"tanh{i}") for i in range(count)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


class Made:
    """A builder, and the lines it said."""

    def __init__(self, cache: Path | None = None, **options: object) -> None:
        self.said: list[str] = []
        self.builder = PlanBuilder(standin, cache=cache, progress=False, say=self.said.append, **options)  # type: ignore[arg-type]

    def build(self, source: Path | bytes = b"", batches: Batches | None = None) -> Built:
        return self.builder.build(source or graph("n", 4), batches or Batches(), "test")


def test_a_network_is_strongly_typed_with_a_bounded_workspace_true_fp32_and_layers_that_can_be_profiled(script: standin._Script) -> None:
    built = Made(workspace_mb=256).build(graph("n", 4), Batches(1, 1, 32))
    config = script.configs[-1]
    assert script.built[-1]._flags == 1 << standin.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert config._pools == {standin.MemoryPoolType.WORKSPACE: 256 << 20}
    assert config._flags == set()
    assert config._verbosity == standin.ProfilingVerbosity.DETAILED
    assert config._profiles[0]._shapes == {"x": [(1, 4), (1, 4), (32, 4)]}
    assert (built.layers, built.precisions) == (1, {"fp32": 1})
    assert built.seconds >= 0


def test_a_graph_of_one_size_needs_no_profile(script: standin._Script) -> None:
    Made().build(graph(1, 4))
    assert script.configs[-1]._profiles == []


def test_only_the_first_size_may_be_open(script: standin._Script) -> None:
    with pytest.raises(BuildError, match=r"input x has the shape \[-1, -1\], only its first size may be open"):
        Made().build(graph("n", "t"))


def test_a_file_and_its_bytes_give_the_same_plan(script: standin._Script, tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(graph("n", 4))
    assert Made().build(path).plan == Made().build(path.read_bytes()).plan


def test_every_error_of_the_parser_is_in_the_line(script: standin._Script) -> None:
    script.lacks = {"Tanh"}
    with pytest.raises(BuildError) as caught:
        Made().build(graph("n", 4, count=2))
    text = str(caught.value)
    assert text.count("No importer registered") == 2
    assert "Tanh 'tanh0'" in text
    assert "Tanh 'tanh1'" in text
    assert "\n" not in text


def test_a_file_that_is_no_onnx_is_one_line(script: standin._Script) -> None:
    with pytest.raises(BuildError, match=r"^Failed to parse the ONNX model\.$"):
        Made().build(b"no graph at all")


def test_a_build_that_gives_nothing_says_why_as_far_as_tensorrt_does(script: standin._Script) -> None:
    script.refuse = lambda model: "[defaultAllocator] out of memory\n(requested 8589934592 bytes)"
    with pytest.raises(BuildError, match=r"^\[defaultAllocator\] out of memory \(requested 8589934592 bytes\)$"):
        Made().build()
    script.refuse = lambda model: ""
    with pytest.raises(BuildError, match="no engine and no reason"):
        Made().build()


@pytest.mark.parametrize("error", [RuntimeError("Unsupported"), MemoryError(), ValueError("Shape values")])
def test_what_a_build_raises_is_a_build_error(script: standin._Script, error: Exception) -> None:
    script.raises = lambda model: error
    with pytest.raises(BuildError, match=str(error) or "MemoryError"):
        Made().build()


def test_warnings_are_kept_once_and_those_of_one_build_are_not_anothers(script: standin._Script) -> None:
    made = Made()
    script.warnings = ["weights are\nsubnormal", "weights are\nsubnormal"]
    assert made.build().warnings == ("weights are subnormal",)
    script.warnings = []
    assert made.build().warnings == ()


def test_a_plan_that_cannot_be_loaded_is_no_plan(script: standin._Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin.Runtime, "deserialize_cuda_engine", lambda *_: None)
    with pytest.raises(BuildError, match="the engine was built and cannot be loaded"):
        Made().build()


def test_precisions_are_read_however_a_version_writes_them() -> None:
    texts = [
        "Int8",
        "Thirty-two wide channel vectorized row major Int8 format",
        "Half",
        "Row major linear FP16 format",
        "Float",
        "BFloat16",
        "Int32",
        "",
    ]
    rows = ",".join(f'{{"Name": "l", "Outputs": [{{"Format/Datatype": "{text}"}}]}}' for text in texts)
    assert precisions_of(f'{{"Layers": [{rows}]}}') == {"bf16": 1, "fp16": 2, "fp32": 1, "int8": 2, "integer": 1, "other": 1}
    assert precisions_of('{"Layers": ["only", "names"]}') == {}
    assert precisions_of("no JSON") == {}
    assert precisions_of('{"Layers": [{"Name": "no outputs"}]}') == {"other": 1}


# ---- progress


def test_the_bar_never_goes_back_names_the_phase_and_ends_whole(script: standin._Script) -> None:
    bar = Progress("test", 100, "%", stream=io.StringIO())
    seen: list[tuple[int, str]] = []
    step = bar.step

    def watched(n: int = 1, note: str | None = None) -> None:
        step(n, note)
        seen.append((bar.done, note or ""))

    bar.step = watched  # type: ignore[method-assign]
    phases = Phases(bar)
    script.steps = 10
    standin._phases(monitor(standin, phases))
    percents = [percent for percent, _ in seen]
    assert percents == sorted(percents)
    assert next(percent for percent, note in seen if note == "Building Engine 1/2") == 50
    assert max(percents) < 100
    assert {"Timing graph nodes 4/10", "Serializing plan 10/10", "Building Engine 1/2"} <= {note for _, note in seen}
    phases.finish()
    assert seen[-1] == (100, "")


def test_phases_of_any_order_and_from_any_thread_raise_nothing(script: standin._Script) -> None:
    phases = Phases(Progress("test", 100, shown=False))
    watch = monitor(standin, phases)
    watch.step_complete("never begun", 3)
    watch.phase_finish("never begun")
    watch.phase_start("its own parent", "its own parent", 0)
    watch.phase_start("child of nobody", "gone", 2)
    watch.step_complete("child of nobody", 7)

    def some(name: str) -> None:
        for i in range(200):
            watch.phase_start(name, None, 3)
            watch.step_complete(name, i % 3)
            watch.phase_finish(name)

    threads = [threading.Thread(target=some, args=(f"phase {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- timing cache


def test_the_second_build_measures_nothing(script: standin._Script, tmp_path: Path) -> None:
    cache = tmp_path / "new folder" / "timing.cache"
    Made(cache).build(graph("n", 4, count=5))
    assert script.measured == 5
    Made(cache).build(graph("n", 4, count=7))
    assert script.measured == 7
    assert list(cache.parent.iterdir()) == [cache]


def test_no_file_is_written_where_none_is_asked_for(script: standin._Script, tmp_path: Path) -> None:
    made = Made(None)
    made.build()
    assert (list(tmp_path.iterdir()), made.said) == ([], [])


@pytest.mark.parametrize(
    "content", [b"garbage", standin.ITimingCache._MAGIC + b'["10.13.3 Orin", {}]', standin.ITimingCache._MAGIC + b'["10.3.0 Thor", {}]']
)
def test_a_damaged_cache_or_one_of_another_tensorrt_or_gpu_costs_a_line_and_is_replaced(
    script: standin._Script, tmp_path: Path, content: bytes
) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(content)
    made = Made(cache)
    made.build()
    assert len(made.said) == 1
    assert "timing.cache is no timing cache of this TensorRT and GPU" in made.said[0]
    again = Made(cache)
    again.build()
    assert (script.measured, again.said) == (1, [])


def test_what_another_build_wrote_meanwhile_is_kept(script: standin._Script, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"

    def meanwhile(phase: str, step: int) -> None:
        script.at_step = lambda *_: None
        Made(cache).build(graph("n", 4, count=3))

    script.at_step = meanwhile
    Made(cache).build(graph("n", 8, count=6))
    measured = script.measured
    Made(cache).build(graph("n", 4, count=6))
    assert script.measured == measured


def test_a_cache_that_cannot_be_written_costs_a_line(script: standin._Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path) -> None:
        raise OSError(28, "No space left on device")

    from sage_edge.compile import timing_cache

    assert timing_cache.atomic_file is atomic_file
    monkeypatch.setattr(timing_cache, "atomic_file", full)
    made = Made(tmp_path / "timing.cache")
    assert made.build().plan
    assert made.said == [f"{tmp_path}/timing.cache cannot be written (No space left on device); the next build measures its kernels again"]


def test_the_stand_in_refuses_what_the_real_bindings_refuse(script: standin._Script) -> None:
    class Silent(standin.ILogger):
        def __init__(self) -> None: ...

    with pytest.raises(TypeError, match="__init__"):
        standin.Builder(Silent())
    assert isinstance(onnx.load_from_string(graph("n", 4)), onnx.ModelProto)
