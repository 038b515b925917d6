"""ONNX Runtime and OpenVINO give one bundle's numbers: outputs in FP32, CCC in INT8; each alone is no proof of its kernels."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np
import pytest

from sage_edge.calibration.check import check_golden
from sage_edge.calibration.evaluation import Variant, overlap, score, validation
from sage_edge.calibration.offline import Offline, runs
from sage_edge.cli.main import main
from sage_edge.runtime import Bundle, UsageError
from sage_edge.training.data.store import Store

pytestmark = pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


def test_ccc_agrees_in_fp32_and_on_the_int8_graphs(bundle: Bundle, store_path: Path) -> None:
    trials = validation(Store.open(store_path))
    variants = {precision: Variant.all(precision) for precision in ("fp32", "int8-cpu")}
    ccc = {}
    for backend in ("onnxruntime", "openvino"):
        with Offline.of(bundle, backend, 1) as offline:
            found = overlap(offline, trials, variants, bundle.manifest.window, progress=False)
        ccc[backend] = {precision: score(rows, trials) for precision, rows in found.items()}
    for precision, allowed in (("fp32", 1e-3), ("int8-cpu", 2e-3)):
        for name, value in ccc["onnxruntime"][precision].items():
            assert abs(value - ccc["openvino"][precision][name]) <= allowed, (precision, name, ccc)


def test_fp32_agrees_on_every_output(bundle: Bundle) -> None:
    golden = bundle.golden()
    inputs = [golden[name] for name in ("faces", "samples", "visual_mask", "audio_mask")]
    with Offline.of(bundle, "onnxruntime", 1) as one, Offline.of(bundle, "openvino", 1) as other:
        for window in zip(*inputs, strict=True):
            a, b = one.window(*window, "fp32"), other.window(*window, "fp32")
            for name, value in a.items():
                assert np.abs(value - b[name]).max() <= 1e-3 * max(1.0, np.abs(value).max()), name


def test_golden_windows_hold_on_openvino(bundle: Bundle) -> None:
    results = check_golden(bundle, "openvino", progress=False)
    assert list(results) == list(runs(bundle, "openvino")) == ["fp32", "int8-cpu"]
    assert all(result.ok for result in results.values()), results


def test_verify_takes_a_backend_and_a_precision(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle_path), "--backend", "openvino", "--precision", "int8"]) == 0
    assert "int8-cpu" in capsys.readouterr().out
    assert main(["verify", str(bundle_path), "--backend", "openvino", "--precision", "int8-trt"]) == 2
    assert "unknown to openvino; one of fp32, int8, bf16, int8-bf16" in capsys.readouterr().err
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        runs(Bundle.open(bundle_path), "openvin")
