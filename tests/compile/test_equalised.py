"""Equalised channels on exported graphs: every place that there is, by factors however uneven, leaves the float outputs as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from sage_edge.calibration import equalise
from sage_edge.runtime import ort

onnxruntime = ort.load()
PLACES = {"visual": ("Conv", 8), "audio": ("LayerNormalization", 1), "fusion": ("LayerNormalization", 3)}
"""graph -> kind of maker, least number of them in a `micro` model."""


def feed_of(preset, graph: str) -> dict[str, NDArray]:
    rng = np.random.default_rng(0)
    ticks = (1, preset.window)
    if graph == "visual":
        return {"faces": rng.normal(size=(4, 3, preset.input_size, preset.input_size)).astype(np.float32)}
    if graph == "audio":
        return {"samples": (0.1 * rng.normal(size=(1, preset.samples))).astype(np.float32)}
    features = {name: rng.normal(size=(*ticks, dim)).astype(np.float32) for name, dim in (("visual", preset.visual_dim), ("audio", preset.audio_dim))}
    return {**features, **{name: (rng.random(ticks) < 0.8).astype(np.float32) for name in ("visual_mask", "audio_mask")}}


def run(model: onnx.ModelProto, feed: dict[str, NDArray]) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


@pytest.mark.parametrize("graph", PLACES)
def test_every_place_of_an_exported_graph_can_be_equalised(model, bundle_path: Path, graph: str) -> None:
    before = onnx.load(bundle_path / "onnx" / f"{graph}.fp32.onnx")
    after, rng = onnx.load(bundle_path / "onnx" / f"{graph}.fp32.onnx"), np.random.default_rng(1)
    places = equalise.candidates(after)
    kinds = {node.name: node.op_type for node in after.graph.node}
    kind, count = PLACES[graph]
    assert sum(kinds[place.maker] == kind for place in places) >= count
    widths = {tensor.name: tensor.dims[0] for tensor in after.graph.initializer if tensor.dims}
    makers = {node.name: node for node in after.graph.node}
    table = {place.tensor: rng.integers(-8, 9, widths[makers[place.maker].input[1]]).tolist() for place in places}
    assert equalise.apply(after, table) == list(table)
    feed = feed_of(model.preset, graph)
    for a, b in zip(run(before, feed), run(after, feed), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
