"""`import sage_edge.runtime` is light, and its names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sage_edge.runtime as runtime

HEAVY = ("torch", "cv2", "onnxruntime", "openvino", "tensorrt", "cuda", "pycuda", "av", "soxr", "sounddevice", "onnx")


@pytest.mark.parametrize(
    "line", ["import sage_edge.runtime", "from sage_edge.runtime import *", "from sage_edge.runtime import Bundle, Session, open_engine"]
)
def test_loads_nothing_heavy(line: str) -> None:
    code = f"{line}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name).__name__ == name
    assert set(runtime.__all__) <= set(dir(runtime))
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        runtime.Sesion  # noqa: B018
