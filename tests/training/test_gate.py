"""What the weights of the modalities are taught, and what they do."""

import itertools

import pytest
import torch

from sage_edge.training import presets
from sage_edge.training.fusion.gate import gate_loss
from sage_edge.training.fusion.sage import FLOOR, SageFusion

DIM, SEEN, HEARD, W = 8, 32, 128, 12


def weights(visual: float, n: int = 2) -> torch.Tensor:
    return torch.tensor([visual, 1.0 - visual]).expand(n, W, 2).clone()


def core(**changes: object) -> SageFusion:
    torch.manual_seed(0)
    p = presets.get("tiny", {"window": W, "fusion_dim": 16, "fusion_ff": 16, "fusion_layers": 1, "resnet_width": 1, **changes})
    assert p.visual_dim == SEEN
    assert p.audio_dim == HEARD
    return SageFusion(p, DIM, DIM).eval()


def test_trusting_the_clean_sense_costs_least():
    good, bad, on = torch.zeros(2, W), torch.ones(2, W), torch.ones(2, W)
    losses = [gate_loss(weights(share), bad, good, on, on) for share in (0.001, 0.1, 0.5, 0.9)]
    assert all(a < b for a, b in itertools.pairwise(losses))
    mirrored = gate_loss(weights(0.9), good, bad, on, on)
    torch.testing.assert_close(mirrored, losses[1])
    for same in (good, bad):
        torch.testing.assert_close(gate_loss(weights(0.5), same, same, on, on), torch.tensor(0.0))


def test_only_ticks_with_both_senses_are_taught():
    bad, good, on = torch.ones(2, W), torch.zeros(2, W), torch.ones(2, W)
    half = on.clone()
    half[:, : W // 2] = 0
    wrong = weights(0.9)
    wrong[:, W // 2 :] = torch.tensor([0.1, 0.9])
    torch.testing.assert_close(gate_loss(wrong, bad, good, half, on), gate_loss(weights(0.1), bad, good, on, on))
    assert gate_loss(wrong, bad, good, on * 0, on) == 0


def test_a_weight_of_nothing_has_a_finite_loss_and_gradient():
    logits = torch.tensor([-1e4, 1e4]).expand(2, W, 2).clone().requires_grad_()
    loss = gate_loss(torch.softmax(logits, 2), torch.zeros(2, W), torch.ones(2, W), torch.ones(2, W), torch.ones(2, W))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_gradient_descent_on_it_finds_the_spoiled_sense():
    fusion = core()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(fusion.modality.parameters(), lr=0.02)
    on = torch.ones(16, W)
    for _ in range(80):
        x, bad = torch.zeros(16, W, DIM), torch.zeros(2, 16, W)
        visual, audio = torch.randn(16, W, SEEN, generator=generator), torch.randn(16, W, HEARD, generator=generator)
        bad[0, :6], bad[1, 6:11] = 1, 1
        visual[:6, :, 0] += 4.0
        audio[6:11, :, 0] += 4.0
        found = fusion(x, x, on, on, visual, audio).modality
        optimizer.zero_grad()
        gate_loss(found, *bad, on, on).backward()
        optimizer.step()
    assert found[:6, :, 0].mean() < 0.1
    assert found[6:11, :, 1].mean() < 0.1
    assert float(found[11:, :, 0].detach().mean()) == pytest.approx(0.5, abs=0.1)


@torch.no_grad()
@pytest.mark.parametrize("sense", [0, 1])
def test_a_sense_without_weight_is_turned_down_and_not_off(sense):
    fusion = core()
    seen = []
    fusion.refine.project.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    inputs, on = (torch.randn(1, W, DIM), torch.randn(1, W, DIM)), torch.ones(1, W)
    fusion.temporal.weight.zero_()
    for gate in fusion.modality.values():
        gate[2].weight.zero_()
        gate[2].bias.zero_()
    fusion(*inputs, on, on, torch.randn(1, W, SEEN), torch.randn(1, W, HEARD))
    fusion.modality[("visual", "audio")[sense]][2].bias.fill_(-30.0)
    fusion(*inputs, on, on, torch.randn(1, W, SEEN), torch.randn(1, W, HEARD))
    equal, without = (torch.split(x, [DIM, DIM, 1], dim=2) for x in seen)
    for k in (0, 1):
        torch.testing.assert_close(equal[k], inputs[k])
        torch.testing.assert_close(without[k], inputs[k] * (FLOOR if k == sense else 1.0))
    torch.testing.assert_close(without[2], torch.full((1, W, 1), 0.5 if sense else -0.5))


@torch.no_grad()
def test_modality_only_weighs_no_moment():
    fusion = core(reliability="modality-only")
    on = torch.ones(2, W)
    off = on.clone()
    off[:, 3:6] = 0
    output = fusion(*torch.randn(2, 2, W, DIM), off, off, torch.randn(2, W, SEEN), torch.randn(2, W, HEARD))
    assert torch.equal(output.temporal, off)
    torch.testing.assert_close(output.modality.sum(2), on)
    assert not any(name.startswith("temporal") for name, _ in fusion.named_parameters())
