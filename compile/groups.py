"""Named groups of a SAGE graph's weighted nodes: the unit in which work is left in floating point.

A group holds the `Conv`, `MatMul` and `Gemm` nodes with trained weights below one part of the model, found by node name. Softmax,
norms, masks and products of two activations hold no weights: they stay in floating point and are in no group.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from sage_edge.runtime.errors import UsageError

from .facts import WEIGHTED

if TYPE_CHECKING:
    import onnx

    from sage_edge.training.presets import Preset

_RULES = tuple(
    (graph, re.compile(pattern), group)
    for graph, pattern, group in (
        ("visual", r"(conv1|bn1)/", r"visual.stem"),
        ("visual", r"(layer\d+)\.", r"visual.\1"),
        ("audio", r"wavlm\.feature_extractor\.", r"audio.conv_stack"),
        ("audio", r"wavlm\.encoder\.pos_conv_embed\.", r"audio.pos_conv"),
        ("audio", r"wavlm\.feature_projection\.", r"audio.projection"),
        ("audio", r"wavlm\.encoder\.layers\.\d+\.attention\.gru_rel_pos_linear/", r"audio.position_gate"),
        ("audio", r"wavlm\.encoder\.layers\.(\d+)\.attention\.", r"audio.attention.\1"),
        ("audio", r"wavlm\.encoder\.layers\.(\d+)\.feed_forward\.", r"audio.feed_forward.\1"),
        ("fusion", r"(tcn_visual|tcn_audio)\.", r"fusion.\1"),
        ("fusion", r"core\.(temporal/|modality\.)", r"fusion.reliability"),
        ("fusion", r"core\.refine\.project/", r"fusion.project"),
        ("fusion", r"core\.refine\.layers\.(\d+)\.linear\d/", r"fusion.feed_forward.\1"),
        ("fusion", r"core\.refine\.layers\.(\d+)\.", r"fusion.attention.\1"),
        ("fusion", r"(hidden|out)/", r"fusion.head"),
    )
)
OTHER = "other"

FLOAT = ("visual.stem", "audio.conv_stack", "audio.pos_conv", "audio.position_gate", "fusion.reliability", "fusion.project", "fusion.head")
"""Left in floating point unless asked otherwise. WavLM's convolutions collapse in 8 bits (measured: 4 dB against 31 dB signal to
quantization noise). The others hold few weights and much of the error (measured on a trained `tiny`): rounding in the stem is half of the
visual error, the projection takes features that reliability has spread over a wide range, and gate, reliability and head decide what all
others worked out."""


def group_of(graph: str, node: str) -> str:
    """Group of the node called `node` in the graph called `graph` ("visual", "audio", "fusion")."""
    for where, pattern, group in _RULES:
        if where == graph and (match := pattern.match(node)):
            return match.expand(group)
    return f"{graph}.{OTHER}"


def groups(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Group -> names of its nodes, in graph order."""
    graph = graph_name(model)
    found: dict[str, list[str]] = {}
    for node in weighted(model):
        found.setdefault(group_of(graph, node.name), []).append(node.name)
    return found


def weighted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply by a trained weight, in graph order."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in initializers]


def graph_name(model: onnx.ModelProto) -> str:
    """Which of the three graphs `model` is, as its metadata says; "" when it does not."""
    return next((prop.value for prop in model.metadata_props if prop.key == "graph"), "")


def check_names(names: Iterable[str], preset: Preset) -> None:
    """UsageError for a name that no model of `preset` can have a group of; needs no graph, so it can come before any work."""
    count = {"audio": preset.wavlm_layers, "fusion": preset.fusion_layers}
    known = {f"{graph}.{OTHER}" for graph in ("visual", "audio", "fusion")}
    for graph, pattern, group in _RULES:
        parts: Iterable[object] = ()
        if r"(\d+)" in pattern.pattern:
            parts = range(count[graph])
        elif r"(layer\d+)" in pattern.pattern:
            parts = [f"layer{i + 1}" for i in range(len(preset.resnet_blocks))]
        elif "(tcn_visual|tcn_audio)" in pattern.pattern:
            parts = ("tcn_visual", "tcn_audio")
        known |= {group.replace(r"\1", str(part)) for part in parts} or {group}
    check_groups(names, known)


def check_groups(names: Iterable[str], known: Collection[str]) -> None:
    """UsageError naming the groups there are, when one of `names` is not `known`."""
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(f"there is no group {unknown[0]!r} in this model; its groups: {', '.join(sorted(known))}")
