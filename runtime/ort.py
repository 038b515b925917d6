"""ONNX Runtime, loaded with its telemetry off: what runs on the device stays on the device.

Official builds since 1.29, the Linux wheels too, report models and machine to their maker and keep an identifier in the user's cache
folder, unless this variable is set before they are loaded (ONNX Runtime's Privacy.md). Nothing in this package imports onnxruntime but through here.
"""

from __future__ import annotations

import os
from typing import Any


def load() -> Any:
    """The module `onnxruntime`. Raises ImportError when it is not installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    # the variable comes too late where somebody else has loaded it before
    onnxruntime.disable_telemetry_events()
    return onnxruntime
