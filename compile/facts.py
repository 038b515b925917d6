"""Facts of a model as text in its ONNX files, and facts read back from such files: sizes, operators, share of quantized work.

An ONNX file explains itself: `metadata_props` carry the model, its rates, its window and how a face becomes its input, so that a graph
taken out of its bundle can still be used rightly. Values are strings; lists are JSON.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.faces import MARGIN
from sage_edge.runtime.ticks import SAMPLE_RATE_HZ, window_samples

if TYPE_CHECKING:
    import onnx

    from sage_edge.calibration.ranges import Ranges

HOP = 15
"""Ticks between two estimates of a live session."""
WEIGHTED = ("Conv", "MatMul", "Gemm")
"""Operators that hold trained weights and do nearly all of the arithmetic."""
CONSTANT = "constant/"
"""How the names of initializers begin that are no trained weights: shapes, indices, numbers of the formula."""


def properties(preset: Any, meta: Mapping[str, Any]) -> dict[str, str]:
    """`metadata_props` of a graph of `preset`; `meta` is what its checkpoint says of itself."""
    return {
        "model": "SAGE",
        "preset": str(preset.name),
        "revision": str(meta.get("revision") or "unknown"),
        "reliability": str(preset.reliability),
        "rgf_scale": str(preset.rgf_scale),
        "window": str(preset.window),
        "rate_hz": str(preset.rate_hz),
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "hop": str(min(HOP, preset.window)),
        "samples": str(window_samples(preset.window, preset.rate_hz)),
        "crop_size": str(preset.face_size),
        "input_size": str(preset.input_size),
        "face_margin": str(MARGIN),
        "colour": "rgb",
        "mean": json.dumps(list(preset.mean)),
        "std": json.dumps(list(preset.std)),
        "output_names": json.dumps(["valence", "arousal"]),
        "output_range": json.dumps([-1, 1]),
        "trained_on": json.dumps(meta.get("trained_on") or {}, sort_keys=True),
    }


def check_window(ranges: Ranges, preset: Any) -> None:
    """UsageError when `ranges` were found on windows of another length than a model of `preset` sees; files of version 0.1 do not say."""
    if ranges.clip_set is not None and ranges.clip_set.length != preset.window:
        raise UsageError(
            f"the ranges were found on windows of {ranges.clip_set.length} ticks and this checkpoint was trained on windows of {preset.window}; "
            "run `sage-edge calibrate` on this checkpoint"
        )


def weights_bytes(model: onnx.ModelProto) -> int:
    """Bytes of trained parameters, with the scales and zero points that belong to them; not shapes, indices and numbers of the formula."""
    from onnx import numpy_helper

    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer if not tensor.name.startswith(CONSTANT))


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Operator type -> number of nodes."""
    return Counter(node.op_type for node in model.graph.node)


def quantized_share(model: onnx.ModelProto) -> float:
    """Share of the trained values that are stored as int8, or become it in front of their node; scales and zero points are not counted."""
    from onnx import TensorProto

    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    trained = [t for t in model.graph.initializer if not t.name.startswith(CONSTANT) and not t.name.endswith(("_scale", "_zero_point"))]
    int8 = sum(math.prod(tensor.dims) for tensor in trained if tensor.data_type == TensorProto.INT8 or tensor.name in rounded)
    return float(int8 / max(sum(math.prod(tensor.dims) for tensor in trained), 1))
