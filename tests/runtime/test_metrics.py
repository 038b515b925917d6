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


@pytest.mark.parametrize("value", [0.0, 0.1, -0.7])
def test_with_labels_that_are_all_equal_it_is_undefined_whatever_is_predicted(value: float) -> None:
    truth = np.full((50, 2), value, np.float32)
    truth[:, 1] = np.linspace(-1, 1, 50)
    for guess in (np.random.default_rng(0).uniform(-1, 1, (50, 2)), truth, np.zeros((50, 2))):
        score = metrics.affect_ccc(guess, truth)
        assert math.isnan(score["valence"])
        assert math.isnan(score["mean"])
        assert math.isfinite(score["arousal"])
    assert [metrics.why_undefined(truth[:, i]) for i in range(2)] == ["all labels equal", None]
    assert metrics.why_undefined(truth[:0, 0]) == "no valid frame"
    # other videos define it
    assert math.isfinite(metrics.pooled_ccc([truth, truth], [truth, truth + 0.1])["mean"])


@pytest.mark.filterwarnings("error")
def test_the_interval_leaves_undefined_draws_out() -> None:
    rng = np.random.default_rng(3)
    varies, still = rng.uniform(-1, 1, (40, 2)), np.full((40, 2), 0.2)
    low, high = metrics.bootstrap_ccc([varies, still], [varies, still], draws=50)["valence"]
    assert low <= high <= 1.0
    assert all(math.isnan(bound) for bound in metrics.bootstrap_ccc([still], [still], draws=5)["mean"])


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
