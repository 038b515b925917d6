"""Fixtures over the toy store of `conftest_toy.py`."""

from pathlib import Path

import pytest
from conftest_toy import QUICK, TINY_SETTINGS, write_store

from sage_edge.training import presets
from sage_edge.training.config import TrainConfig
from sage_edge.training.data.store import Store


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
