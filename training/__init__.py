"""SAGE in PyTorch: presets, model, training, evaluation. Names load when they are used, so importing this package loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import presets
    from .evaluation import evaluate
    from .loop import train
    from .model import SAGE

__all__ = ["SAGE", "evaluate", "presets", "train"]

_HOME = {"SAGE": "model", "evaluate": "evaluation", "train": "loop"}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return importlib.import_module(".presets", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
