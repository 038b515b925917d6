"""The cache benchmark compares the same numbers: on a small model its two epochs have the same features and losses, or nothing is printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SMALL = {"cpu": {"ticks": 320, "val_ticks": 310, "windows": 2, "batch": 1}}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import cache

    monkeypatch.setattr(cache, "SIZES", dict.fromkeys(("cpu", "cuda"), SMALL["cpu"]))
    yield cache
    del sys.modules["cache"]


def test_both_epochs_have_the_same_features_and_losses(bench):
    found = bench.run(n=1, preset="tiny")
    assert {"cached", "uncached", "fill"} == set(found["variants"])
    assert max(found["notes"]["largest relative difference"].values()) < bench.AGREE
    assert found["ratios"]["cached_over_uncached"] > 0


@pytest.mark.parametrize(("preset", "fewer"), [("base", 8.0), pytest.param("large", 14.0, marks=[pytest.mark.slow, pytest.mark.nightly])])
def test_a_training_window_takes_so_many_times_fewer_operations_with_cached_features(bench, preset, fewer):
    counted = bench.operations(preset)
    assert counted["ratio"] > fewer
    assert counted["encoders"] > counted["rest"] > 0


def test_other_numbers_are_not_measured(bench, monkeypatch):
    computing = bench._computing

    def wrong(*args):
        batch = computing(*args)

        def read(*picked):
            made = batch(*picked)
            made.visual.mul_(-3.0)
            return made

        return read

    monkeypatch.setattr(bench, "_computing", wrong)
    with pytest.raises(SystemExit, match="cached and computed features differ"):
        bench.run(n=1, preset="tiny")
