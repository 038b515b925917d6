"""The ladder int8 -> partly int8 -> fp16 -> fp32: the first rung that builds and computes the golden windows is kept, and every reason."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import onnx
import pytest
import standin

from sage_edge.compile import tensorrt
from sage_edge.compile.ladder import rungs
from sage_edge.compile.quantize_trt import strip
from sage_edge.compile.tensorrt import build_bundle
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.engines import open_engine, plans
from sage_edge.runtime.errors import BundleError, CompileError, EngineError, UsageError

HALF = onnx.TensorProto.FLOAT16


def pairs(model: onnx.ModelProto) -> int:
    """Quantized tensors of a graph."""
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def is_half(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == HALF for tensor in model.graph.initializer)


def of(model: onnx.ModelProto) -> str:
    """Which graph a model is."""
    return next(prop.value for prop in model.metadata_props if prop.key == "graph")


def built(bundle: Bundle, **options: object) -> tuple[dict[str, object], list[str]]:
    """graph -> what was built, and the lines that were said."""
    said: list[str] = []
    rows = build_bundle(bundle, progress=False, say=said.append, **options)  # type: ignore[arg-type]
    return {row.graph: row for row in rows}, said


def files() -> list[str]:
    return sorted(path.name for path in plans.folder().iterdir()) if plans.folder().is_dir() else []


def test_int8_is_kept_where_it_builds_and_computes_the_golden_windows(bundle: Bundle, script: standin._Script) -> None:
    rows, said = built(bundle)
    assert [(row.rung, row.reused, row.failed) for row in rows.values()] == [("int8", False, ())] * 3
    assert said == []
    assert all(0 < row.difference <= row.allowed for row in rows.values())
    assert rows["fusion"].precisions["int8"] == 4
    # one plan and one description each, one timing cache, nothing else
    assert sorted(name.rpartition(".")[2] for name in files()) == ["cache", "engine", "engine", "engine", "json", "json", "json"]
    for row in rows.values():
        kept = json.loads(Path(row.path).with_suffix(".json").read_text())
        assert kept["facts"]["rung"] == "int8"
        assert kept["facts"]["layers"] == row.layers > 0
    assert (script.live, script.disorder) == (0, 0)


def test_the_engines_run_through_the_runtime_and_a_second_call_builds_nothing(bundle: Bundle, script: standin._Script) -> None:
    first, _ = built(bundle)
    engine = open_engine(bundle.graph("visual", "int8-trt"), "tensorrt", batch=32)
    engine.inputs["faces"][...] = 0.5
    engine.run()
    assert engine.outputs["visual"].shape == (32, 8)
    engine.close()
    count = len(script.built)
    again, said = built(bundle)
    assert len(script.built) == count
    assert said == []
    assert [dataclasses.replace(row, reused=False) for row in again.values()] == list(first.values())
    assert all(row.reused for row in again.values())
    assert not any(row.reused for row in built(bundle, rebuild=True)[0].values())


def test_each_rung_that_does_not_build_gives_way_to_the_next_and_its_reason_is_kept(bundle: Bundle, script: standin._Script) -> None:
    script.refuse = lambda model: "Could not infer output types for operation: dequantize" if pairs(model) else None
    rows, said = built(bundle)
    assert {graph: row.rung for graph, row in rows.items()} == {"visual": "fp16", "audio": "fp16", "fusion": "fp16"}
    # the products of visual and audio are no transformer's: for them there is nothing between int8 and fp16
    assert [failure.rung for failure in rows["visual"].failed] == ["int8"]
    assert [failure.rung for failure in rows["fusion"].failed] == ["int8", "partly int8"]
    assert all("dequantize" in failure.why for row in rows.values() for failure in row.failed)
    assert said[0].startswith("visual: int8 failed: Could not infer output types")
    kept = json.loads(Path(rows["fusion"].path).with_suffix(".json").read_text())["facts"]
    assert [failure["rung"] for failure in kept["failed"]] == ["int8", "partly int8"]
    assert set(rows["fusion"].precisions) == {"fp16"}


def test_partly_int8_leaves_the_transformers_products_in_fp16(bundle: Bundle, script: standin._Script) -> None:
    whole = pairs(onnx.load(bundle.graph("fusion", "int8-trt")))
    script.refuse = lambda model: "no" if pairs(model) == whole else None
    rows, _ = built(bundle)
    assert rows["fusion"].rung == "partly int8"
    assert rows["fusion"].precisions["int8"] == 1
    model = script.built[-1]._model
    assert 0 < pairs(model) < whole
    readers = [node for node in model.graph.node if any("dequantized" in name for name in node.input)]
    assert [node.name.split(".")[0] for node in readers] == ["tcn_visual"]


def test_a_graph_with_nothing_in_int8_is_not_built_twice(bundle: Bundle, tmp_path: Path) -> None:
    onnx.save(strip(onnx.load(bundle.graph("visual", "int8-trt")), None), path := tmp_path / "visual.int8-trt.onnx")
    sources = {rung.name: rung.source() for rung in rungs(path, bundle.graph("visual", "fp32"))}
    assert {name for name, source in sources.items() if source is not None} == {"int8", "fp32"}


def test_a_builder_that_takes_no_fp16_gets_int8_with_float32_around_it(bundle: Bundle, script: standin._Script) -> None:
    script.refuse = lambda model: "Could not infer output types" if is_half(model) else None
    rows, _ = built(bundle)
    assert {row.rung for row in rows.values()} == {"int8 in fp32"}
    assert rows["fusion"].precisions["int8"] == 4
    assert "fp16" not in rows["fusion"].precisions


def test_fp32_is_the_last_resort(bundle: Bundle, script: standin._Script) -> None:
    script.refuse = lambda model: "Internal Error (Myelin)" if is_half(model) or pairs(model) else None
    rows, _ = built(bundle)
    assert {row.rung for row in rows.values()} == {"fp32"}
    assert all(row.allowed == pytest.approx(1e-3) and row.difference < 1e-3 for row in rows.values())
    # the runtime finds them under the graph that was asked for
    open_engine(bundle.graph("audio", "int8-trt"), "tensorrt").close()


def test_in_a_race_the_fastest_that_computes_the_golden_windows_is_kept_whatever_its_number_format(
    bundle: Bundle, script: standin._Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ["fp16", "partly int8", "int8", "int8 in fp32"]
    monkeypatch.setattr(tensorrt, "race", lambda onnx, key, plans: {name: 1.0 + order.index(name) for name in plans})
    script.refuse = lambda model: "no" if of(model) == "visual" and pairs(model) == 0 else None
    rows, _ = built(bundle, fastest=True)
    assert {graph: row.rung for graph, row in rows.items()} == {"visual": "int8", "audio": "fp16", "fusion": "fp16"}
    assert rows["fusion"].ms == {"fp16": 1.0, "partly int8": 2.0, "int8": 3.0, "int8 in fp32": 4.0}
    assert [failure.rung for failure in rows["visual"].failed] == ["fp16"]
    assert all(is_half(network._model) or pairs(network._model) for network in script.built), "FP32 is the last resort"
    # a later call without the race takes what the race chose; one with it does not race again
    assert {row.rung for row in built(bundle)[0].values()} == {"int8", "fp16"}
    assert all(row.reused for row in built(bundle, fastest=True)[0].values())


def test_engines_that_were_not_raced_are_built_again_for_a_race_in_which_they_take_turns(
    bundle: Bundle, script: standin._Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(bundle)
    turns: list[int] = []
    golden = script.spoil
    monkeypatch.setattr(tensorrt, "_TURNS", 4)
    raced = tensorrt.race

    def watched(*given: object) -> dict[str, float]:
        turns.clear()
        script.spoil = lambda model, name, value: (turns.append(pairs(model)), value)[1]
        found = raced(*given)  # type: ignore[arg-type]
        script.spoil = golden
        return found

    monkeypatch.setattr(tensorrt, "race", watched)
    rows, _ = built(bundle, fastest=True)
    assert not any(row.reused for row in rows.values())
    assert set(rows["audio"].ms) == {"int8", "fp16", "int8 in fp32"}
    per_run = len({"estimates", "temporal", "modality"})
    whole, partly = sorted(set(turns) - {0}, reverse=True)
    once = [count for count in (whole, partly, 0, whole) for _ in range(per_run)]
    assert turns == once * (len(turns) // len(once)), "the engines of fusion did not take turns"
    assert len(turns) >= 4 * len(once)


def test_an_engine_that_computes_something_else_is_not_kept(bundle: Bundle, script: standin._Script) -> None:
    def spoil(model: onnx.ModelProto, name: str, value: object) -> object:
        return value * 0.5 if pairs(model) and of(model) == "audio" else value  # type: ignore[operator]

    script.spoil = spoil
    rows, said = built(bundle)
    assert {graph: row.rung for graph, row in rows.items()} == {"visual": "int8", "audio": "fp16", "fusion": "int8"}
    assert "moves the golden windows by" in rows["audio"].failed[0].why
    assert said == [f"audio: int8 failed: {rows['audio'].failed[0].why}"]
    assert len(files()) == 7


def test_nan_is_no_result(bundle: Bundle, script: standin._Script) -> None:
    script.spoil = lambda model, name, value: value * float("nan") if pairs(model) else value
    rows, _ = built(bundle)
    assert {row.rung for row in rows.values()} == {"fp16"}


def test_when_all_rungs_fail_every_reason_is_in_one_line_and_nothing_is_written(bundle: Bundle, script: standin._Script) -> None:
    script.refuse = lambda model: "out of memory\n  while timing" if is_half(model) else "other"
    with pytest.raises(CompileError) as caught:
        built(bundle)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("visual: no rung could be built: int8: out of memory while timing; fp16: out of memory while timing; int8 in fp32: other")
    assert "--workspace-mb" in text
    assert not [name for name in files() if not name.endswith(".cache")]


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(bundle: Bundle, script: standin._Script) -> None:
    script.lacks = {"Tanh"}
    with pytest.raises(CompileError, match=r"int8: Tanh 'layer1\.0/Tanh_2': No importer registered for op: Tanh\. Attempting") as caught:
        built(bundle)
    assert f"sage-edge inspect {bundle.path.name} --target trt10.3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files() == []


def test_without_the_package_onnx_the_ladder_goes_on_to_fp32(bundle: Bundle, script: standin._Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.refuse = lambda model: "no" if pairs(model) else None
    monkeypatch.setitem(sys.modules, "onnx", None)
    rows, _ = built(bundle)
    assert {row.rung for row in rows.values()} == {"fp32"}
    assert "pip install onnx" in rows["visual"].failed[-1].why


@pytest.mark.parametrize(("version", "gpu"), [("10.16.2", "Orin"), ("10.3.0", "Thor")])
def test_an_engine_of_another_version_or_gpu_is_left_alone_and_a_new_one_built(
    bundle: Bundle, script: standin._Script, version: str, gpu: str
) -> None:
    before, _ = built(bundle)
    old = {path: path.read_bytes() for path in plans.folder().glob("*.engine")}
    now = standin._reset(version)
    now.gpu = gpu
    with pytest.raises(EngineError, match=r"only for TensorRT 10\.3\.0 on Orin"):
        open_engine(bundle.graph("visual", "int8-trt"), "tensorrt")
    rows, said = built(bundle)
    assert len(now.built) == 3
    assert len(said) == 3
    assert all(f"for TensorRT {version} on {gpu}" in line and "only for TensorRT 10.3.0 on Orin" in line and "building it" in line for line in said)
    assert {path: path.read_bytes() for path in old} == old
    assert not {row.path for row in rows.values()} & {row.path for row in before.values()}


def test_a_damaged_engine_is_told_of_and_built_again(bundle: Bundle, script: standin._Script) -> None:
    rows, _ = built(bundle)
    path = Path(rows["audio"].path)
    path.write_bytes(path.read_bytes()[:-1])
    again, said = built(bundle)
    assert [row.reused for row in again.values()] == [True, False, True]
    assert any("is passed over" in line for line in said)
    assert [row.reused for row in built(bundle)[0].values()] == [True] * 3


def test_a_description_of_another_version_of_ours_is_told_of_and_built_again(bundle: Bundle, script: standin._Script) -> None:
    rows, _ = built(bundle)
    path = Path(rows["fusion"].path).with_suffix(".json")
    about = json.loads(path.read_text())
    del about["facts"]["rung"]
    path.write_text(json.dumps(about))
    again, said = built(bundle)
    assert [row.reused for row in again.values()] == [True, True, False]
    assert "another version of sage-edge" in said[0]


def test_other_settings_make_other_engines(bundle: Bundle, script: standin._Script) -> None:
    built(bundle)
    rows, said = built(bundle, workspace_mb=64)
    assert not any(row.reused for row in rows.values())
    assert all("other settings" in line for line in said)
    assert {config._pools[standin.MemoryPoolType.WORKSPACE] for config in script.configs} == {1024 << 20, 64 << 20}


def test_fp32_can_be_asked_for(bundle: Bundle, script: standin._Script) -> None:
    rows, _ = built(bundle, precision="fp32")
    assert {row.rung for row in rows.values()} == {"fp32"}
    open_engine(bundle.graph("fusion", "fp32"), "tensorrt").close()
    with pytest.raises(EngineError, match=r"no engine of visual\.int8-trt\.onnx"):
        open_engine(bundle.graph("visual", "int8-trt"), "tensorrt")


def test_ctrl_c_ends_the_build_with_its_step_and_leaves_whole_engines_only(bundle: Bundle, script: standin._Script) -> None:
    steps: list[str] = []

    def interrupt(phase: str, step: int) -> None:
        steps.append(phase)
        if len(script.built) == 2:  # the audio graph
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):  # a step of TensorRT's goes on until it is done, whatever the user wants
                time.sleep(0.01)
                if not script.configs[-1]._monitor.step_complete("", 0):
                    return

    script.at_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        built(bundle)
    assert script.cancelled == 1
    assert len(script.built) == 2
    assert steps.count("Timing graph nodes") == script.steps + 1, "the build went on after the step at which it was interrupted"
    assert sorted(name.rpartition(".")[2] for name in files()) == ["cache", "engine", "json"]
    script.at_step = lambda phase, step: None
    rows, _ = built(bundle)
    assert [row.reused for row in rows.values()] == [True, False, False]


def test_a_full_disk_is_one_line_and_nothing_half_written(bundle: Bundle, script: standin._Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CompileError, match="No space left on device; free some space"):
        built(bundle)
    assert files() == []


def test_a_machine_without_a_gpu_is_told_in_one_line(bundle: Bundle, script: standin._Script) -> None:
    script.starts = False
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0 cannot start its builder \(CUDA initialization failure with error: 35\.\)"):
        built(bundle)


def test_a_missing_tensorrt_is_told_with_the_way_to_install_it(bundle: Bundle, script: standin._Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"TensorRT is not installed.*apt install python3-libnvinfer"):
        built(bundle)


def test_what_cannot_be_built_is_refused_before_anything_starts(bundle: Bundle, script: standin._Script, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no precision 'bf16'"):
        built(bundle, precision="bf16")
    with pytest.raises(UsageError, match="workspace of 0 MB"):
        built(bundle, workspace_mb=0)
    without = Path(shutil.copytree(bundle.path, tmp_path / "old.sage"))
    from trt_bundle import write_manifest

    for path in (without / "onnx").glob("*.int8-trt.onnx"):
        path.unlink()
    write_manifest(without)
    with pytest.raises(BundleError, match="no int8-trt graphs"):
        built(Bundle.open(without))
    assert script.built == []
