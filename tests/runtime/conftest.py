"""A bundle with small hand-made graphs, made once per run of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from sage_edge.runtime.bundle import Bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: copy it before changing anything."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "by-hand.sage")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(scope="session")
def temporal_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundles") / "temporal.sage", "temporal"))


@pytest.fixture
def copy_of(bundle_path: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the bundle that may be damaged."""
    import shutil

    def copy() -> Path:
        return Path(shutil.copytree(bundle_path, tmp_path / "copy.sage"))

    return copy
