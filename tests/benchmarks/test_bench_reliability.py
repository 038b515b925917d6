"""benchmarks/reliability.py: its tables are means over seeds of what the suite gave, and its attention is the model's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sage_edge.training import presets
from sage_edge.training.data.corruption import CELLS
from sage_edge.training.encoders.wavlm import position_buckets
from sage_edge.training.fusion.refine import BUCKETS, MAX_DISTANCE, RefinementLayer

ARMS = ("modality", "concat")


@pytest.fixture(scope="module")
def reliability() -> ModuleType:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("reliability")
    finally:
        sys.path.remove(folder)


def result(shift: float) -> dict:
    def cell(number: int, arm: str) -> dict:
        value = 0.1 + 0.01 * number + shift + (0.05 if arm == "modality" else 0.0)
        weight = 0.3 if arm == "modality" else None
        return {"valence": value, "arousal": value, "mean": value, "weight_visual": weight, "weight_audio": weight}

    cells = {arm: {name: cell(number, arm) for number, name in enumerate(CELLS)} for arm in ARMS}
    scale = {arm: {when: {"gated_over_time": 1.0} for when in ("initial", "trained")} for arm in ARMS}
    return {"cells": cells, "scale": scale}


def test_means_deviations_and_the_difference_are_over_seeds(reliability) -> None:
    results = [result(shift) for shift in (0.0, 0.1, 0.2)]
    table = reliability.over_seeds(results, ARMS)
    assert table["clean"]["concat"]["mean"] == {"mean": pytest.approx(0.2), "deviation": pytest.approx(0.1)}
    assert table["snr0"]["modality_minus_concat"] == {"mean": pytest.approx(0.05), "deviation": pytest.approx(0.0)}
    assert table["snr0"]["modality"]["weight_of_spoiled"]["mean"] == pytest.approx(0.3)
    assert "weight_of_spoiled" not in table["snr0"]["concat"]
    assert "weight_of_spoiled" not in table["clean"]["modality"]
    spoiled = table["corrupted, unmasked"]
    assert "noface" not in spoiled["cells"]
    assert len(spoiled["cells"]) == 10
    assert spoiled["modality_minus_concat"]["mean"] == pytest.approx(0.05)
    lines = reliability.show(table, results, ARMS)
    assert all(any(line.startswith(name) for line in lines) for name in CELLS)


def test_the_attention_it_looks_at_is_the_layers_own(reliability) -> None:
    torch.manual_seed(0)
    layer = RefinementLayer(presets.get("tiny", {"fusion_dim": 16, "fusion_ff": 16})).eval()
    torch.nn.init.normal_(layer.distance.weight)
    x, off = torch.randn(2, 9, 16), torch.zeros(2, 1, 1, 9)
    off[0, ..., :3] = -1e4
    buckets = position_buckets(9, BUCKETS, MAX_DISTANCE)
    with torch.no_grad():
        attention = reliability.first_attention(layer, x, buckets, off)
        layer.linear2.weight.zero_()
        layer.linear2.bias.zero_()
        value = layer._split(layer.v_proj(layer.norm1(x)))
        torch.testing.assert_close(x + layer.out_proj((attention @ value).transpose(1, 2).reshape(x.shape)), layer(x, buckets, off))
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 2, 9))
    assert not attention[0, ..., :3].any()


def test_every_arm_is_a_preset(reliability) -> None:
    kinds = {arm: presets.get("tiny", changes) for arm, changes in reliability.ARMS.items()}
    assert len({(p.fusion, p.reliability, p.rgf_scale) for p in kinds.values()}) == len(kinds)
