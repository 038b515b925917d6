"""A whole bundle made by hand: three small ONNX graphs with random weights, 300 ticks, fp32 and int8 weights, golden windows.

Every output depends on every valid input and on nothing under an off mask; `offline` runs the graphs on one window without any of the
runtime's code, as a reference.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sage_edge.runtime import ticks
from sage_edge.runtime.bundle import (
    CalibrationInfo,
    Ccc,
    Dims,
    FaceInfo,
    FileInfo,
    Manifest,
    ModelInfo,
    OutputInfo,
    TrainedOn,
    graph_path,
)

WINDOW, HOP, SIDE, SAMPLES, D_V, D_A = 300, 15, 40, 160_000, 8, 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Graph:
    """Nodes and weights; with `int8`, weights are int8 with one scale, dequantized in the graph."""

    def __init__(self, int8: bool, seed: int) -> None:
        self.int8, self.rng = int8, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int, scale: float) -> str:
        value = (scale * self.rng.standard_normal(shape)).astype(np.float32)
        if not self.int8:
            return self.constant(value)
        step = np.float32(np.abs(value).max() / 127)
        return self.op("DequantizeLinear", self.constant(np.round(value / step).astype(np.int8)), self.constant(step))

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> None:
        def values(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

        graph = helper.make_graph(self.nodes, path.stem, values(inputs), values(outputs), self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)


def _visual(path: Path, int8: bool) -> None:
    g = _Graph(int8, 1)
    flat = g.op("Flatten", "faces", axis=1)
    g.op("Tanh", g.op("MatMul", flat, g.weight(3 * SIDE * SIDE, D_V, scale=0.01)), out="visual")
    g.save(path, {"faces": ["n", 3, SIDE, SIDE]}, {"visual": ["n", D_V]})


def _audio(path: Path, int8: bool) -> None:
    g = _Graph(int8, 2)
    signal = g.op("Unsqueeze", "samples", g.constant(np.array([1], np.int64)))
    tokens = g.op("Transpose", g.op("Conv", signal, g.weight(D_A, 1, 400, scale=0.3), strides=[320]), perm=[0, 2, 1])
    count = (SAMPLES - 400) // 320 + 1
    lower, share = ticks.token_weights(count, WINDOW)
    below, above = (g.op("Gather", tokens, g.constant(index), axis=1) for index in (lower, lower + 1))
    g.op("Tanh", g.op("Add", below, g.op("Mul", g.op("Sub", above, below), g.constant(share[:, None]))), out="audio")
    g.save(path, {"samples": ["n", SAMPLES]}, {"audio": ["n", WINDOW, D_A]})


def _fusion(path: Path, int8: bool, modality: bool) -> None:
    g = _Graph(int8, 3)
    last = g.constant(np.array([-1], np.int64))
    masks = {name: g.op("Unsqueeze", f"{name}_mask", last) for name in ("visual", "audio")}
    joint = g.op("Concat", *(g.op("Mul", name, masks[name]) for name in ("visual", "audio")), axis=2)
    any_mask = g.op("Max", "visual_mask", "audio_mask")
    far = g.constant(np.float32(-1e4))
    off = g.op("Sub", g.constant(np.float32(1)), any_mask)
    logits = g.op("Squeeze", g.op("MatMul", joint, g.weight(D_V + D_A, 1, scale=0.4)), last)
    r = g.op("Softmax", g.op("Add", logits, g.op("Mul", off, far)), axis=1)
    n = g.op("ReduceSum", any_mask, g.constant(np.array([1], np.int64)), keepdims=1)
    g.op("Mul", r, n, out="temporal")
    gated = g.op("Mul", joint, g.op("Unsqueeze", "temporal", last))
    context = g.op("ReduceMean", gated, g.constant(np.array([1], np.int64)), keepdims=1)
    width = D_V + D_A
    own = g.op("MatMul", gated, g.weight(width, 2, scale=0.2))
    shared = g.op("MatMul", context, g.weight(width, 2, scale=0.5))
    g.op("Tanh", g.op("Add", own, shared), out="estimates")
    outputs: dict[str, list[Any]] = {"estimates": ["n", WINDOW, 2], "temporal": ["n", WINDOW]}
    if modality:
        both = g.op("Concat", masks["visual"], masks["audio"], axis=2)
        dead = g.op("Mul", g.op("Sub", g.constant(np.float32(1)), both), far)
        g.op("Softmax", g.op("Add", g.op("MatMul", joint, g.weight(width, 2, scale=0.5)), dead), axis=2, out="modality")
        outputs["modality"] = ["n", WINDOW, 2]
    inputs = {"visual": ["n", WINDOW, D_V], "audio": ["n", WINDOW, D_A], "visual_mask": ["n", WINDOW], "audio_mask": ["n", WINDOW]}
    g.save(path, inputs, outputs)


class Offline:
    """The three graphs of one precision, run straight from their files, with none of the runtime's code."""

    def __init__(self, path: Path, precision: str = "fp32") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._run = {
            name: onnxruntime.InferenceSession(str(path / graph_path(name, precision)), options, providers=["CPUExecutionProvider"])
            for name in ("visual", "audio", "fusion")
        }

    def features(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The visual row of one 48 x 48 crop: its centre, normalised."""
        centre = crop[4:-4, 4:-4].astype(np.float32) / np.float32(255)
        faces = ((centre - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None].astype(np.float32)
        row: NDArray[np.float32] = self._run["visual"].run(None, {"faces": faces})[0][0]
        return row

    def window(
        self, visual: NDArray[np.float32], samples: NDArray[np.float32], visual_mask: NDArray[Any], audio_mask: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Outputs of one window: visual [W, d], samples [S], masks [W]."""
        audio = self._run["audio"].run(None, {"samples": samples[None]})[0]
        feeds = {
            "visual": visual[None].astype(np.float32),
            "audio": audio,
            "visual_mask": visual_mask[None].astype(np.float32),
            "audio_mask": audio_mask[None].astype(np.float32),
        }
        fusion = self._run["fusion"]
        return {out.name: value[0] for out, value in zip(fusion.get_outputs(), fusion.run(None, feeds), strict=True)}


def _golden(path: Path, precisions: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    crop = rng.integers(0, 255, (6, 48, 48, 3), np.uint8)
    faces = crop[np.arange(2 * WINDOW).reshape(2, WINDOW) // 100]
    samples = np.sin(np.arange(2 * SAMPLES) / 9.0).astype(np.float32).reshape(2, SAMPLES) / 4
    visual_mask = np.ones((2, WINDOW), bool)
    visual_mask[1, 40:80] = False
    audio_mask = np.ones((2, WINDOW), bool)
    audio_mask[0, :30] = False
    samples[0, : ticks.first_sample(30)] = 0
    faces[~visual_mask] = 0
    golden: dict[str, NDArray[Any]] = {"faces": faces, "samples": samples, "visual_mask": visual_mask, "audio_mask": audio_mask}
    for precision in precisions:
        model = Offline(path, precision)
        rows = [np.stack([model.features(face) for face in clip]) for clip in faces]
        outputs = [model.window(rows[i] * visual_mask[i][:, None], samples[i], visual_mask[i], audio_mask[i]) for i in range(2)]
        for name in outputs[0]:
            golden[f"{name}_{precision}"] = np.stack([output[name] for output in outputs])
    return golden


def write_manifest(path: Path, **changes: Any) -> Manifest:
    """Write `manifest.json` for the files that lie in the folder; `changes` replace fields of the Manifest."""
    files = {
        file.relative_to(path).as_posix(): FileInfo(file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }
    ccc = Ccc(0.5, 0.4, 0.45)
    fields: dict[str, Any] = {
        "schema": 1,
        "model": ModelInfo("tiny-by-hand", "tiny", "0000000", "modality", "length"),
        "window": WINDOW,
        "hop": HOP,
        "rate_hz": 30,
        "sample_rate_hz": 16_000,
        "samples": SAMPLES,
        "face": FaceInfo(48, SIDE, 0.25, "rgb", MEAN, STD, 150.0),
        "dims": Dims(D_V, D_A),
        "output": OutputInfo(("valence", "arousal"), (-1.0, 1.0)),
        "calibration": CalibrationInfo("minmax", "0" * 64, 1),
        "trained_on": TrainedOn("synthetic", True, {"seed": 0}),
        "weights_bytes": {"fp32": 1000, "int8-cpu": 260},
        "ccc": {"overlap": {"fp32": ccc, "int8-cpu": ccc}, "live": {"fp32": ccc, "int8-cpu": ccc}},
        "tolerance": {"fp32": 1e-4, "int8-cpu": 1e-4},
        "files": files,
    }
    manifest = Manifest(**{**fields, **changes})
    (path / "manifest.json").write_text(manifest.to_json())
    return manifest


def make_bundle(path: Path, reliability: str = "modality") -> Path:
    """Write the whole bundle at `path`, which must not exist yet; returns `path`."""
    for precision in ("fp32", "int8-cpu"):
        int8 = precision != "fp32"
        _visual(path / graph_path("visual", precision), int8)
        _audio(path / graph_path("audio", precision), int8)
        _fusion(path / graph_path("fusion", precision), int8, reliability == "modality")
    np.savez_compressed(path / "golden.npz", **_golden(path, ("fp32", "int8-cpu")))  # type: ignore[arg-type]
    write_manifest(path, model=ModelInfo("tiny-by-hand", "tiny", "0000000", reliability, "length"))
    return path
