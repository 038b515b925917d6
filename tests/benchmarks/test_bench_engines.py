"""engines and precision on a minuscule model: every variant that can run is there, ratios are of medians, a specimen is made once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MICRO = {
    "window": 30, "resnet_width": 8, "resnet_blocks": (1, 1, 1, 1), "wavlm_conv_dims": (8, 8, 8, 8, 8, 8, 16), "wavlm_dim": 16, "wavlm_layers": 1,
    "wavlm_heads": 2, "wavlm_ff": 32, "wavlm_pos_kernel": 8, "wavlm_pos_groups": 4, "tcn_visual": (16, 8), "tcn_audio": (8, 8), "fusion_dim": 16,
    "fusion_layers": 1, "fusion_heads": 2, "fusion_ff": 32, "head_dim": 8,
}  # fmt: skip
pytestmark = pytest.mark.slow
MODULES = ("engines", "precision", "together", "specimen", "timing")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory):
    """The two modules, their specimen a micro model on two people of three seconds, kept in a folder of its own."""
    import dataclasses
    import tempfile

    import torch

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        import engines
        import precision
        import specimen

        from sage_edge.training import presets

        patch.setitem(presets.PRESETS, "micro", dataclasses.replace(presets.get("tiny", MICRO), name="micro"))
        patch.setattr(specimen, "PEOPLE", {"train": 1, "val": 1, "seconds": 3.0})
        patch.setattr(specimen, "CLIPS", 2)
        for module in (engines, precision):
            patch.setattr(module, "THREADS", 1)
        yield engines, precision
        for name in MODULES:
            sys.modules.pop(name, None)
    torch.set_num_threads(threads)


def test_every_graph_is_timed_on_every_backend_against_both_references(bench) -> None:
    engines, _ = bench
    found = engines.run(n=1, preset="micro")
    for graph in ("visual", "audio", "fusion"):
        names = {name for name in found["variants"] if name.startswith(graph)}
        assert {f"{graph}_torch_fp32", f"{graph}_onnxruntime_fp32", f"{graph}_onnxruntime_int8"} <= names
        openvino = {f"{graph}_openvino_{kind}" for kind in ("fp32", "int8", "bf16", "int8-bf16")}
        assert openvino <= names | found["notes"]["left out"].keys()
    for name, ratio in found["ratios"].items():
        over, _, reference = name.partition("_over_")
        assert over.split("_")[0] == reference.split("_")[0]
        assert ratio == pytest.approx(found["variants"][reference]["median"] / found["variants"][over]["median"], abs=0.01)
    assert "visual_onnxruntime_int8_over_visual_onnxruntime_fp32" in found["ratios"]
    assert set(found["notes"]["specimen"]["seconds"]) == {"export", "calibrate", "emit"}


def test_precision_says_what_each_output_loses(bench, capfd) -> None:
    _, precision = bench
    found = precision.run(preset="micro")
    assert "using" in capfd.readouterr().err, "the specimen of the other test is used again"
    for graph, outputs in (("visual", {"visual"}), ("audio", {"audio"}), ("fusion", {"estimates", "temporal", "modality"})):
        rows = found["variants"][graph]
        assert {"onnxruntime_int8", "int8-trt_simulated"} <= rows.keys()
        assert "onnxruntime_fp32" not in rows, "the reference is not compared with itself"
        for name, row in rows.items():
            assert row.keys() == outputs
            assert min(row.values()) > (80 if name == "openvino_fp32" else 5), f"{graph} {name}: {row}"


def test_faces_together_give_what_they_give_one_by_one(bench) -> None:
    import together

    found = together.run(n=1, preset="micro")
    assert set(found["variants"]) == set(found["notes"]["largest_difference"]) == {"fp32", "int8-cpu"}
    for precision, rows in found["variants"].items():
        assert found["notes"]["largest_difference"][precision] <= 1e-6
        for count in (1, 4, 10, 15):
            ratio = rows[f"{count}_apart"]["median"] / rows[f"{count}_together"]["median"]
            assert found["ratios"][f"{precision}_{count}_together_over_apart"] == pytest.approx(ratio, abs=0.01)


def test_sqnr_is_the_share_of_the_error(bench) -> None:
    _, precision = bench
    signal = np.ones(1000, np.float32)
    assert precision.sqnr_db(signal, signal * np.float32(1.01)) == pytest.approx(40, abs=0.01)
    assert precision.sqnr_db(signal, signal) == float("inf")
    assert precision.sqnr_db(np.zeros(4, np.float32), signal[:4]) < -1000


def test_a_checkpoint_needs_its_data(bench) -> None:
    _, precision = bench
    with pytest.raises(SystemExit, match="go together"):
        precision.run(checkpoint=Path("ckpt"))
