"""From a training checkpoint to a checked bundle: export, calibrate, quantize, evaluate, write.

`from sage_edge.compile import compile_bundle`. Loaded when it is used: importing this package loads neither torch nor onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle_writer import compile_bundle

__all__ = ["compile_bundle"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.bundle_writer"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
