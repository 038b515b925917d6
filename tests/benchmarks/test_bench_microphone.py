"""The microphone benchmark runs both callbacks on one microphone and counts what is missing; what it measured is not asserted here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "runtime"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import microphone

    yield microphone
    del sys.modules["microphone"]


@pytest.mark.slow
def test_both_callbacks_have_all_that_was_played(bench) -> None:
    from pulse import MISSING, NEEDED

    if MISSING:
        pytest.skip(NEEDED)
    found = bench.run(n=50)
    for phase in ("free", "held"):
        assert found["notes"]["losses"][phase]["samples_played"] == 16_000
        assert found["notes"]["losses"][phase]["libsage"]["samples_missing"] == 0
        assert min(found["variants"][name][phase]["n"] for name in ("libsage", "python")) >= 50
        assert found["ratios"][f"{phase}_libsage_over_python"] > 0


def test_what_is_missing_is_counted(bench) -> None:
    played = np.random.default_rng(0).integers(-32_768, 32_768, 32_000).astype(np.int16)
    recorded = np.concatenate([np.zeros(777), played / 32_768]).astype(np.float32)
    assert bench._missing(played, recorded) == 0
    recorded[2_000:2_100] = 0
    assert bench._missing(played, recorded) == 100
    assert bench._missing(played, np.zeros(10_000, np.float32)) == len(played)
