"""The loss is 1 - CCC as the metric computes it, and finite for whatever a corpus holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.metrics import ccc
from sage_edge.training.loss import affect_loss, masked_ccc


def batch(n: int = 3, ticks: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.uniform(-1, 1, (n, ticks, 2)).astype(np.float32))
    guess = (0.7 * truth + torch.from_numpy(rng.normal(0.1, 0.3, (n, ticks, 2)).astype(np.float32))).clamp(-1, 1)
    valid = torch.from_numpy(rng.random((n, ticks)) > 0.3)
    return guess, truth, valid


def test_perfect_is_zero_and_opposite_is_two():
    _, truth, valid = batch()
    truth = truth - truth.mean((0, 1))
    assert affect_loss(truth, truth, valid).item() == pytest.approx(0.0, abs=1e-6)
    everywhere = torch.ones_like(valid)
    assert affect_loss(-truth, truth, everywhere).item() == pytest.approx(2.0, abs=1e-5)


def test_batch_reduction_is_the_pooled_metric():
    guess, truth, valid = batch()
    pooled = [ccc(guess[valid][:, i].numpy(), truth[valid][:, i].numpy()) for i in range(2)]
    assert affect_loss(guess, truth, valid).item() == pytest.approx(1 - sum(pooled) / 2, abs=1e-5)


def test_sequence_reduction_is_the_mean_over_sequences():
    guess, truth, valid = batch()
    each = [ccc(guess[i][valid[i]][:, k].numpy(), truth[i][valid[i]][:, k].numpy()) for i in range(3) for k in range(2)]
    assert affect_loss(guess, truth, valid, "sequence").item() == pytest.approx(1 - np.mean(each), abs=1e-5)


def test_what_is_not_valid_does_not_matter():
    guess, truth, valid = batch()
    expected = affect_loss(guess, truth, valid, "sequence", mse=0.5)
    guess[~valid], truth[~valid] = 0.9, -0.9
    torch.testing.assert_close(affect_loss(guess, truth, valid, "sequence", mse=0.5), expected)


@pytest.mark.parametrize("reduction", ["batch", "sequence", "both"])
def test_constant_labels_give_a_finite_loss_and_gradient(reduction):
    for guess in (torch.full((2, 30, 2), 0.3), torch.rand(2, 30, 2)):
        guess = guess.clone().requires_grad_()
        loss = affect_loss(guess, torch.full((2, 30, 2), 0.3), torch.ones(2, 30), reduction)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(guess.grad).all()


def test_fewer_than_four_valid_ticks_fall_back_to_squared_error():
    guess, truth, valid = batch(n=1)
    valid[:] = False
    valid[0, [4, 9, 20]] = True
    expected = (guess[valid] - truth[valid]).square().mean()
    torch.testing.assert_close(affect_loss(guess, truth, valid), expected)
    valid[0, 30] = True
    assert affect_loss(guess, truth, valid).item() == pytest.approx(1 - masked_ccc(guess, truth, valid.float()).mean().item(), abs=1e-6)


def test_a_sequence_without_a_valid_tick_takes_no_part():
    guess, truth, valid = batch()
    valid[1] = False
    expected = affect_loss(guess[[0, 2]], truth[[0, 2]], valid[[0, 2]], "sequence")
    torch.testing.assert_close(affect_loss(guess, truth, valid, "sequence"), expected)
    guess.requires_grad_()
    nothing = affect_loss(guess, truth, torch.zeros_like(valid))
    nothing.backward()
    assert nothing.item() == 0.0
    assert torch.equal(guess.grad, torch.zeros_like(guess))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), ticks=st.integers(1, 12), scale=st.sampled_from([0.0, 1e-8, 1e-4, 1.0]))
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_are_finite_and_bounded(seed, n, ticks, scale):
    guess, truth, valid = batch(n, ticks, seed)
    guess, truth = (guess * scale).requires_grad_(), truth * scale
    for reduction in ("batch", "sequence"):
        loss = affect_loss(guess, truth, valid, reduction)
        loss.backward()
        # the squared error of values in -1..1, the fallback, goes up to 4
        assert -1e-5 <= loss.item() <= 4.0
        assert torch.isfinite(guess.grad).all()


def test_both_reductions_count_half():
    pooled, alone, both = (affect_loss(*batch(), reduction=reduction, mse=0.1) for reduction in ("batch", "sequence", "both"))
    torch.testing.assert_close(both, 0.5 * (pooled + alone))


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'median'"):
        affect_loss(*batch(), reduction="median")
