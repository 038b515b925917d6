"""What a golden window is compared with: the stored windows of its own precision; for TensorRT FP32's, and what INT8 costs is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.runtime import Bundle
from sage_edge.runtime.bundle import GRAPHS
from sage_edge.runtime.engines import open_engine
from sage_edge.runtime.flavours import Flavour, flavour
from sage_edge.runtime.golden import GoldenPass, cost

SHIFT = 0.4
"""How far the stored INT8 windows are put from FP32's."""


@pytest.mark.parametrize("kind", [flavour("int8", "onnxruntime"), flavour("int8", "tensorrt")], ids=lambda kind: kind.name)
def test_a_finer_engine_passes_for_tensorrt_alone(bundle: Bundle, kind: Flavour) -> None:
    golden = bundle.golden()
    stored = {key: value for key, value in golden.items() if "int8" not in key}
    for key in [key for key in stored if key.endswith("_fp32")]:
        stored[key.replace("fp32", kind.graphs)] = stored[key] + np.float32(SHIFT if key.startswith("estimates") else 0)
    found = GoldenPass(bundle, kind, stored)
    for name in GRAPHS:
        engine = open_engine(bundle.graph(name, "fp32"))
        found.run(name, engine)
        engine.close()
    off = max(found.differences().values())
    if kind.graphs == "int8-trt":
        assert off <= 1e-3
        assert found.allowed == pytest.approx(kind.tolerance(bundle.manifest.tolerance) + SHIFT, abs=1e-6)
        assert cost(stored) == pytest.approx(SHIFT, abs=1e-6)
    else:
        assert off == pytest.approx(SHIFT, abs=1e-3)
        assert found.allowed == kind.tolerance(bundle.manifest.tolerance) < off
