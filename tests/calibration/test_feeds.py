"""Clips that cannot calibrate a model are refused before any graph runs, in one line that names them; constant ones can."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sage_edge.calibration import clips
from sage_edge.calibration.feeds import calibrate, equalise
from sage_edge.calibration.ranges import AUTO, Ranges
from sage_edge.compile import quantize_cpu
from sage_edge.runtime.bundle import FaceInfo
from sage_edge.runtime.errors import CompileError, DataError
from sage_edge.training.data.store import Trial

WINDOW, SAMPLES = 30, 16_000
FACE = FaceInfo(48, 40, 0.25, "rgb", (0.5,) * 3, (0.5,) * 3, 150.0)
METADATA = {"window": str(WINDOW), "rate_hz": "30"}


def trial(name: str, sound: float | None = None, face: int | None = None) -> Trial:
    """Two seconds with random content, or the same sample and pixel value throughout. Sound is float, so that it can be NaN."""
    rng, ticks = np.random.default_rng(len(name)), 60
    faces = rng.integers(0, 256, (ticks, 48, 48, 3), dtype=np.uint8) if face is None else np.full((ticks, 48, 48, 3), face, np.uint8)
    audio = rng.normal(size=2 * SAMPLES) * 3000 if sound is None else np.full(2 * SAMPLES, sound)
    rows = np.arange(ticks)
    return Trial(
        name, "train", f"{name}.mp4", name, rows * 1_000_000_000 // 30, rows.astype(np.int32), faces,
        np.zeros((ticks, 2), np.float32), np.ones(ticks, bool), audio.astype(np.float32), 30,
    )  # fmt: skip


def store_of(*trials: Trial, rate: int | str = 30) -> SimpleNamespace:
    """What the calibration asks of a store, over trials in memory."""
    return SimpleNamespace(path=Path("store"), digest="0" * 64, meta={"rate": rate}, trials=lambda split: list(trials))


def save(path: Path, inputs: dict[str, list], nodes: list, weights: dict[str, np.ndarray], output: str) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, path.stem, values, [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in {**METADATA, "graph": path.stem}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A convolution over faces, a matrix over sound, a matrix over both: the least that has the interface of a model."""
    folder, rng = tmp_path_factory.mktemp("graphs"), np.random.default_rng(0)
    made = {
        "visual": save(
            folder / "visual.onnx",
            {"faces": ["n", 3, 40, 40]},
            [
                helper.make_node("Conv", ["faces", "w"], ["c"], name="layer1.conv", strides=[8, 8]),
                helper.make_node("Relu", ["c"], ["r"]),
                helper.make_node("ReduceMean", ["r", "axes"], ["visual"], keepdims=0),
            ],
            {"w": rng.normal(size=(4, 3, 8, 8)).astype(np.float32), "axes": np.array([2, 3])},
            "visual",
        ),
        "audio": save(
            folder / "audio.onnx",
            {"samples": ["n", SAMPLES]},
            [
                helper.make_node("Slice", ["samples", "start", "end", "axis"], ["cut"]),
                helper.make_node("Reshape", ["cut", "shape"], ["rows"]),
                helper.make_node("MatMul", ["rows", "w"], ["audio"], name="matmul"),
            ],
            {
                "start": np.array([0]),
                "end": np.array([15_990]),
                "axis": np.array([1]),
                "shape": np.array([-1, WINDOW, 533]),
                "w": rng.normal(size=(533, 4)).astype(np.float32),
            },
            "audio",
        ),
        "fusion": save(
            folder / "fusion.onnx",
            {"visual": ["n", WINDOW, 4], "audio": ["n", WINDOW, 4], "visual_mask": ["n", WINDOW], "audio_mask": ["n", WINDOW]},
            [helper.make_node("Add", ["visual", "audio"], ["both"]), helper.make_node("MatMul", ["both", "w"], ["estimates"], name="matmul")],
            {"w": rng.normal(size=(4, 2)).astype(np.float32)},
            "estimates",
        ),
    }
    return made


def ranges_of(graphs: dict[str, Path], store: SimpleNamespace, length: int = WINDOW, method: str = AUTO) -> Ranges:
    tensors = {name: quantize_cpu.tensors(onnx.load(path), ()) for name, path in graphs.items()}
    return calibrate(graphs, store, clips.pick(store, 8, length=length), tensors, FACE, method, progress=False)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse", AUTO])
def test_constant_faces_and_silent_sound_give_usable_graphs(graphs: dict[str, Path], method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = ranges_of(graphs, store_of(trial("a", 0.0, 90), trial("bb", 0.0, 90)), method=method)
    low, high = found.graphs["visual"]["faces"]
    assert low == high != 0
    shown = capsys.readouterr().err.splitlines()
    assert "warning: visual: 1 of 4 tensors never change on the calibration clips, first 'faces'" in shown[0]
    assert "warning: audio: 1 of 1 tensors never change" in shown[1]
    assert found.graphs["audio"]["rows"] == (0, 0)
    for graph, path in graphs.items():
        emitted = quantize_cpu.emit(path, found.graphs[graph], ())
        scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in emitted.graph.initializer}
        quantizers = [node for node in emitted.graph.node if node.op_type == "QuantizeLinear"]
        assert quantizers
        assert all(scales[node.input[1]].min() > 0 and np.isfinite(scales[node.input[1]]).all() for node in quantizers)


def test_a_clip_with_nan_is_named_before_any_graph_runs(graphs: dict[str, Path], tmp_path: Path) -> None:
    spoilt = trial("anna")
    audio = spoilt.audio.copy()
    audio[20_000] = np.nan
    spoilt = dataclasses.replace(spoilt, audio=audio)
    unreadable = {name: tmp_path / f"{name}.onnx" for name in graphs}
    for path in unreadable.values():
        path.write_bytes(b"")
    store = store_of(trial("bb"), spoilt)
    with pytest.raises(
        DataError, match=r"^store: the clip of trial 'anna' that ends at tick 59 has NaN or infinite sound, the audio graph"
    ) as caught:
        calibrate(unreadable, store, clips.pick(store, 8, length=WINDOW), {name: ["x"] for name in graphs}, FACE, progress=False)
    assert "\n" not in str(caught.value)


def test_a_model_that_overflows_names_graph_and_clip(graphs: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["audio"])
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((533, 4), 3e38, np.float32), "w"))
    onnx.save(model, tmp_path / "audio.onnx")
    with pytest.raises(CompileError, match=r"^fusion: its input 'audio' is not finite in the clip of trial 'a' that ends at tick 59; "):
        ranges_of({**graphs, "audio": tmp_path / "audio.onnx"}, store_of(trial("a"), trial("bb")))


def test_a_store_of_another_rate_and_clips_of_another_length_are_refused(graphs: dict[str, Path]) -> None:
    for rate in (25, "native"):
        with pytest.raises(DataError, match=f"prepared with --rate {rate}, the model ticks at 30 Hz"):
            ranges_of(graphs, store_of(trial("a"), rate=rate))
    with pytest.raises(DataError, match="the clips are 20 ticks long, the window of the model 30"):
        ranges_of(graphs, store_of(trial("a")), length=20)


def test_one_clip_works_and_is_warned_of(graphs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(trial("a"), trial("bb"))
    tensors = {name: quantize_cpu.tensors(onnx.load(path), ()) for name, path in graphs.items()}
    found = calibrate(graphs, store, clips.pick(store, 1, length=WINDOW), tensors, FACE, progress=False)
    assert found.clips == 1
    assert all(low < high for tensors in found.graphs.values() for low, high in tensors.values())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("warning: ranges from one clip are narrow")
    assert shown.err.count("\n") == 1
    calibrate(graphs, store, clips.pick(store, 2, length=WINDOW), tensors, FACE, progress=False)
    assert capsys.readouterr().err == ""


def test_the_file_holds_the_clips_and_how_each_range_was_found(graphs: dict[str, Path], tmp_path: Path) -> None:
    store = store_of(trial("a"), trial("bb"))
    found = ranges_of(graphs, store)
    found.save(tmp_path / "ranges.json")
    again = Ranges.load(tmp_path / "ranges.json")
    assert again.clip_set == clips.pick(store, 8, length=WINDOW)
    assert again.set_sha256 == again.clip_set.sha256
    for graph, tensors in again.graphs.items():
        assert {again.method_of(graph, name) for name in tensors} <= {"minmax", "entropy", "percentile", "mse"}
        assert all(bounds == pytest.approx(found.graphs[graph][name]) for name, bounds in tensors.items())


def test_graphs_are_equalised_on_the_same_clips(graphs: dict[str, Path], tmp_path: Path) -> None:
    store = store_of(trial("a"), trial("bb"))
    chosen = clips.pick(store, 8, length=WINDOW)
    tensors = {name: quantize_cpu.tensors(onnx.load(path), ()) for name, path in graphs.items()}
    gains = equalise(graphs, tmp_path, store, chosen, tensors, lambda path, found: quantize_cpu.emit(path, found, ()), FACE, progress=False)
    assert gains == {"visual": [], "audio": [], "fusion": []}, "these have no place for it"
    for name, path in graphs.items():
        assert onnx.load(tmp_path / f"{name}.onnx") == onnx.load(path)
