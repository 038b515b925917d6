"""Calibration clips, activation ranges, and the check of quantized graphs against float ones.

`from sage_edge.calibration import verify`. Loaded when it is used; `verify` itself needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .check import verify

__all__ = ["verify"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.check"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
