"""The squared error of 8 bits, told from a histogram, against rounding the values themselves; the range of least error against a search of all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_edge.calibration import rounding
from sage_edge.calibration.observe import Histogram
from sage_edge.calibration.ranges import AUTO, METHODS, choose

SEEDS = range(8)


def draw(seed: int) -> NDArray[np.float32]:
    """Values of one of the shapes that activations have: bell, behind a ReLU, behind a GELU, with outliers, far from zero, few values."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=5_000) * 10.0 ** rng.uniform(-3, 3)
    shapes = [
        x,
        np.maximum(x, 0),
        np.where(x > 0, x, 0.05 * x),
        np.concatenate([x, 30 * x[:5]]),
        x + 20 * np.abs(x).max(),
        x - 20 * np.abs(x).max(),
        rng.choice([0.0, 1.0], 1000),
        rng.laplace(size=5_000),
    ]
    return shapes[seed % len(shapes)].astype(np.float32)


def histogram(x: NDArray[np.float32]) -> Histogram:
    found = Histogram(float(x.min()), float(x.max()))
    found.add(x)
    return found


def rounded(x: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Mean squared errors of uint8 and int8, by rounding each value."""
    x = x.astype(np.float64)
    low, high = min(low, 0), max(high, 0)
    step, wide = (high - low) / 255, max(-low, high) / 127
    zero = np.rint(-low / step)
    unsigned = (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step
    signed = np.clip(np.rint(x / wide), -128, 127) * wide
    return float(np.mean((x - unsigned) ** 2)), float(np.mean((x - signed) ** 2))


@pytest.mark.parametrize("seed", [0, 2, 3, 7])
def test_errors_from_the_histogram_are_those_of_the_values(seed: int) -> None:
    x = draw(seed)
    for share in (1.0, 0.5, 0.1):
        low, high = x.min() * share, x.max() * share
        told = rounding.errors(histogram(x), np.array([low]), np.array([high]))
        for value, true in zip(told, rounded(x, low, high), strict=True):
            assert value[0] == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_least_is_least_and_within_the_data(seed: int) -> None:
    """Never worse than the whole span, and within 0.1 dB of the best of a grid over both ends."""
    found = histogram(draw(seed))
    low, high = rounding.least(found)
    assert found.low <= low <= high <= found.high
    least = rounding.loss(found, np.array([low]), np.array([high]))[0]
    assert least <= rounding.loss(found, np.array([found.low]), np.array([found.high]))[0]
    shares = np.linspace(0.05, 1, 20)
    lows, highs = (each.ravel() for each in np.meshgrid(np.minimum(found.low, 0) * shares, np.maximum(found.high, 0) * shares))
    assert least <= rounding.loss(found, lows, highs).min() + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_auto_is_never_worse_than_any_method(seed: int) -> None:
    found = histogram(draw(seed))
    chosen = choose(found, AUTO)
    assert chosen.method in METHODS
    assert choose(found, chosen.method) == chosen
    ways = [choose(found, method) for method in METHODS]
    losses = rounding.loss(found, np.array([each.low for each in ways]), np.array([each.high for each in ways]))
    assert rounding.loss(found, np.array([chosen.low]), np.array([chosen.high]))[0] == pytest.approx(losses.min(), abs=1e-9)


def test_outliers_are_cut_off_and_even_spreads_are_not() -> None:
    rng = np.random.default_rng(0)
    even = histogram(rng.uniform(-1, 1, 100_000).astype(np.float32))
    assert choose(even, AUTO)[:2] == pytest.approx((-1, 1), abs=0.01)
    spoilt = np.concatenate([rng.normal(size=1_000_000), [15.0]]).astype(np.float32)
    assert choose(histogram(spoilt), "mse").high < 10


def test_a_range_means_the_same_in_any_unit() -> None:
    x = draw(3)
    one, other = rounding.least(histogram(x)), rounding.least(histogram(x * np.float32(1024)))
    assert np.allclose(np.array(one) * 1024, other, rtol=1e-6)
