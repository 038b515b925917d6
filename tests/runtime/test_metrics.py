"""CCC: equal to its definition, invariant where it must be, undefined said as NaN."""

import math

import numpy as np
import pytest

from sage_edge.runtime import metrics


def test_ccc_equals_the_textbook_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.1, 0.4, 500), rng.normal(-0.2, 0.6, 500)
    rho = np.corrcoef(x, y)[0, 1]
    expected = 2 * rho * x.std() * y.std() / (x.std() ** 2 + y.std() ** 2 + (x.mean() - y.mean()) ** 2)
    assert metrics.ccc(x, y) == pytest.approx(expected, abs=1e-12)
    assert metrics.ccc(y, x) == pytest.approx(expected, abs=1e-12)


def test_ccc_punishes_shift_and_scale_where_correlation_does_not() -> None:
    x = np.linspace(-1, 1, 100)
    assert metrics.ccc(x, x) == pytest.approx(1.0)
    assert metrics.ccc(-x, x) == pytest.approx(-1.0)
    assert metrics.ccc(0.5 * x, x) == pytest.approx(0.8)
    assert metrics.ccc(x + 1, x) < 0.5


def test_undefined_is_nan_and_a_constant_prediction_is_zero() -> None:
    assert math.isnan(metrics.ccc([], []))
    assert math.isnan(metrics.ccc([0.5, 0.5], [0.5, 0.5]))
    assert metrics.ccc([0.1, 0.1, 0.1], [0.0, 0.5, 1.0]) == 0.0
    with pytest.raises(ValueError, match="one length"):
        metrics.ccc([1.0], [1.0, 2.0])


def test_pooled_weighs_frames_not_videos() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.uniform(-1, 1, (n, 2)) for n in (5, 400)]
    noisy = [p + rng.normal(0, s, p.shape) for p, s in zip(parts, (2.0, 0.1), strict=True)]
    assert metrics.pooled_ccc(noisy, parts) == metrics.affect_ccc(np.concatenate(noisy), np.concatenate(parts))
    assert math.isnan(metrics.pooled_ccc([], [])["mean"])


def test_bootstrap_interval_holds_the_estimate_and_repeats_by_seed() -> None:
    rng = np.random.default_rng(2)
    truths = [rng.uniform(-1, 1, (100, 2)) for _ in range(12)]
    predictions = [t + rng.normal(0, 0.3 + 0.05 * i, t.shape) for i, t in enumerate(truths)]
    interval = metrics.bootstrap_ccc(predictions, truths, draws=200, seed=7)
    for name, value in metrics.pooled_ccc(predictions, truths).items():
        low, high = interval[name]
        assert low < value < high
    assert interval == metrics.bootstrap_ccc(predictions, truths, draws=200, seed=7)
