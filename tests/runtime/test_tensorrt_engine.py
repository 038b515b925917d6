"""TensorRTEngine over a stand-in for TensorRT that computes on a pretend GPU; on a real one, over what `compile --target tensorrt` built."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
from fake_cuda import build, checks_of, report


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    pytest.importorskip("cuda.bindings")
    folder = tmp_path_factory.mktemp("fake")
    return report("engine_checks", build(folder), str(folder), environment={"FAKECUDA_NAME": "Orin"})


@pytest.mark.parametrize("check", checks_of("engine_checks"))
def test_over_the_pretend_driver(reports: dict[str, str], check: str) -> None:
    assert reports[check] == ""
