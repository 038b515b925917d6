"""A machine with a stand-in for TensorRT, a GPU that is the host's memory, an empty cache folder, and a bundle."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import host_driver
import pytest
import standin

from sage_edge.runtime.bundle import Bundle


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> standin._Script:
    """What the stand-in does, for this test; it is installed as `tensorrt`."""
    monkeypatch.setitem(sys.modules, "tensorrt", standin)
    for name in host_driver.modules():
        monkeypatch.setattr(importlib.import_module(name), "open_cuda", host_driver.open_cuda)
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return standin._reset()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Read-only: fp32, int8-cpu and int8-trt graphs made by hand."""
    import trt_bundle

    return Bundle.open(trt_bundle.make(tmp_path_factory.mktemp("trt") / "by-hand.sage"))
