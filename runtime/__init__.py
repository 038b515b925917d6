"""Run a compiled SAGE bundle on this device: frames and sound in, valence and arousal out.

`from sage_edge.runtime import Bundle, Session`. The names below are loaded when they are first used: importing this package loads
neither onnxruntime nor cv2 nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import Bundle, Manifest
    from .engines import Engine, open_engine
    from .errors import (
        BundleError,
        CheckpointError,
        CompileError,
        DataError,
        EngineError,
        NativeError,
        SageError,
        SinkError,
        SourceError,
        UsageError,
    )
    from .estimate import Estimate
    from .session import Session

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "CompileError",
    "DataError",
    "Engine",
    "EngineError",
    "Estimate",
    "Manifest",
    "NativeError",
    "SageError",
    "Session",
    "SinkError",
    "SourceError",
    "UsageError",
    "open_engine",
]

_WHERE = {
    "Bundle": "bundle",
    "Manifest": "bundle",
    "Engine": "engines",
    "open_engine": "engines",
    "Estimate": "estimate",
    "Session": "session",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
