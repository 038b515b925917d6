"""Fixtures over the toy store of `conftest_toy.py`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest_toy import QUICK, TINY_SETTINGS, write_store

from sage_edge.training import presets
from sage_edge.training.config import TrainConfig
from sage_edge.training.data.store import Store


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose a lot by it where other programs run."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("toy") / "store")


@pytest.fixture
def toy(toy_path) -> Store:
    return Store.open(toy_path)


@pytest.fixture
def toy_preset() -> presets.Preset:
    return presets.get("tiny", TINY_SETTINGS)


@pytest.fixture
def quick() -> TrainConfig:
    return QUICK
