"""Which backends work on this machine: each runs a graph of one node for real, and only a right result counts.

    for found in available(): print(found.backend, found.device, found.ok, found.why)
    python -m sage_edge.runtime.engines.probe onnxruntime cuda      # one of them, as JSON

A library that imports may still lack its driver, its plugins or its GPU. `available` tries each in a process of its own, since a broken driver
may end it; `probe` tries here, once per process.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from ..errors import EngineError, UsageError
from .arrays import one_line

DEVICES = (("onnxruntime", "cpu"), ("onnxruntime", "cuda"), ("openvino", "cpu"), ("tensorrt", "cuda"))
FIXES = {  # TensorRT's and CUDA's errors say what to do themselves
    ("onnxruntime", "cpu"): "pip install onnxruntime",
    ("onnxruntime", "cuda"): "with an NVIDIA GPU, unless it is a Jetson's, for which PyPI has no build: "
    "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
    ("openvino", "cpu"): "pip install 'sage-edge[openvino]'",
    ("tensorrt", "cuda"): "",
}
ONE_NODE = (
    b"\x08\x08\x12\x00:5\n\x0e\n\x01x\n\x01x\x12\x01y\x22\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\x11"
)
"""An ONNX file, opset 17: y = x + x, float32 [2]."""
_X = np.array([1.5, -3.0], np.float32)
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Found:
    """One backend on one device. `version` is "" when it cannot be loaded; `why` is why it does not work, and `fix` what to do, else both ""."""

    backend: str
    device: str
    version: str
    ok: bool
    why: str = ""
    fix: str = ""


def available(devices: Sequence[tuple[str, str]] = DEVICES) -> list[Found]:
    """Try every backend on every device it may run on, each in a process of its own."""
    return [_apart(backend, device) for backend, device in devices]


def installed(backend: str) -> str:
    """The version of a backend whose Python module loads, "" otherwise; whether it works is another question."""
    from .. import ort, ov, trt

    try:
        if backend == "openvino":
            return ov.version()
        return str((trt if backend == "tensorrt" else ort).load().__version__)
    except (ImportError, EngineError):
        return ""


@cache
def probe(backend: str, device: str) -> Found:
    """Run the one node on `backend` and `device` in this process; the answer is kept. Raises UsageError for a pair not in `DEVICES`."""
    if (backend, device) not in DEVICES:
        raise UsageError(f"{backend} on {device} is unknown; one of {', '.join(' on '.join(pair) for pair in DEVICES)}")
    try:
        version, y = _RUNS[backend](device)
        if not np.array_equal(y, _X + _X):
            raise EngineError(f"it computed {y.tolist()} for {(_X + _X).tolist()}")
    except ImportError as error:
        return Found(backend, device, "", False, one_line(error), FIXES[backend, device])
    except Exception as error:  # each library has its own classes
        return Found(backend, device, installed(backend), False, one_line(error, 400), FIXES[backend, device])
    return Found(backend, device, version, True)


def clash() -> str | None:
    """The line for onnxruntime and onnxruntime-gpu installed over each other: they share a folder, and what lies there is a mixture."""
    found = {name: version for name in ("onnxruntime", "onnxruntime-gpu") if (version := _distribution(name))}
    if len(found) < 2:
        return None
    both = " and ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{both} are installed over each other: pip uninstall -y onnxruntime onnxruntime-gpu, "
        "then pip install onnxruntime-gpu (with an NVIDIA GPU) or pip install onnxruntime"
    )


def _apart(backend: str, device: str) -> Found:
    command = [sys.executable, "-m", __name__, backend, device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Found(backend, device, "", False, f"its one-node run did not end within {_TIMEOUT_S:.0f} s", FIXES[backend, device])
    try:
        return Found(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Found(backend, device, "", False, f"its one-node run ended with {how}", FIXES[backend, device])


def _onnxruntime(device: str) -> tuple[str, Any]:
    from ..ort import load

    ort = load()
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if wanted not in ort.get_available_providers():
        raise EngineError(f"this build has {', '.join(ort.get_available_providers())} and no {wanted}")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ONE_NODE, options, providers=[wanted])
    if session.get_providers()[0] != wanted:
        raise EngineError(f"{wanted} found no usable device, {session.get_providers()[0]} ran instead")
    return str(ort.__version__), session.run(None, {"x": _X})[0]


def _openvino(_device: str) -> tuple[str, Any]:
    from .. import ov

    core = ov.core()
    compiled = core.compile_model(core.read_model(ONE_NODE), "CPU", {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    return ov.version(), compiled([_X])[0]


def _tensorrt(_device: str) -> tuple[str, Any]:
    from .trt_probe import run_one_node

    return run_one_node(ONE_NODE, _X)


_RUNS = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tensorrt": _tensorrt}


def _distribution(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    print(json.dumps(asdict(probe(sys.argv[1], sys.argv[2]))))
