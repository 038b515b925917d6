"""SAGE as a whole: causality, masks, reliabilities, gradients, folding."""

import pytest
import torch
from torch import Tensor

from sage_edge.training import SAGE, presets
from sage_edge.training.fusion.refine import Refinement
from sage_edge.training.model import Fusion
from sage_edge.training.tcn import TCN

SMALL = {
    "window": 40,
    "tcn_visual": (16, 16, 16, 16),
    "tcn_audio": (16, 16, 16, 16),
    "fusion_dim": 32,
    "fusion_ff": 48,
    "resnet_width": 4,
    "wavlm_dim": 32,
}


def small(**changes: object) -> presets.Preset:
    return presets.get("tiny", {**SMALL, **changes})


def fusion_of(preset: presets.Preset, seed: int = 0) -> Fusion:
    """In eval mode, with batch statistics that are not trivial and reliabilities that differ."""
    torch.manual_seed(seed)
    fusion = Fusion(preset)
    for _ in range(3):
        fusion(*features(preset, 4, seed=seed + 1))
    for module in fusion.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight)
    return fusion.eval()


def features(preset: presets.Preset, n: int = 2, seed: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = preset.window
    visual, audio = (torch.randn(n, w, dim, generator=generator) for dim in (preset.visual_dim, preset.audio_dim))
    return visual, audio, torch.ones(n, w), torch.ones(n, w)


@torch.no_grad()
def test_tcn_is_causal_and_sees_121_ticks():
    torch.manual_seed(0)
    tcn = TCN(8, (16, 16, 16, 16)).eval()
    x = torch.randn(1, 200, 8)
    y = tcn(x)
    changed = x.clone()
    changed[:, 130] += 1.0
    moved = (tcn(changed) - y).abs().amax((0, 2))
    assert torch.equal(moved[:130], torch.zeros(130))
    assert moved[130] > 0
    early = x.clone()
    early[:, 10] += 100.0
    moved = (tcn(early) - y).abs().amax((0, 2))
    assert torch.equal(moved[10 + 121 :], torch.zeros(200 - 131))
    assert moved[10 + 120] > 0


@pytest.mark.parametrize("fusion", ["sage", "concat"])
@torch.no_grad()
def test_content_under_an_off_mask_changes_nothing(fusion):
    preset = small(fusion=fusion)
    model = fusion_of(preset)
    visual, audio, visual_mask, audio_mask = features(preset)
    visual_mask[:, 5:20] = 0
    audio_mask[:, 15:30] = 0
    expected = model(visual, audio, visual_mask, audio_mask)
    visual[:, 5:20] += 50.0
    audio[:, 15:30] *= -9.0
    for name, a, b in zip(expected._fields, expected, model(visual, audio, visual_mask, audio_mask), strict=True):
        assert (a is None and b is None) or torch.equal(a, b), name


@torch.no_grad()
def test_what_a_mask_uncovers_matters():
    preset = small()
    model = fusion_of(preset)
    inputs = features(preset)
    for i in (2, 3):
        masks = list(inputs)
        masks[i] = torch.zeros_like(masks[i])
        assert (model(*masks).estimates - model(*inputs).estimates).abs().max() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"rgf_scale": "paper"}, {"reliability": "temporal"}, {"reliability": "modality-only"}, {"fusion": "concat"}])
@torch.no_grad()
def test_nothing_valid_gives_no_reliability_and_a_finite_estimate_that_ignores_its_input(changes):
    preset = small(**changes)
    model = fusion_of(preset)
    visual, audio, on, _ = features(preset)
    off = torch.zeros_like(on)
    output = model(visual, audio, off, off)
    assert torch.equal(output.temporal, off)
    assert torch.isfinite(output.estimates).all()
    assert output.estimates.abs().max() <= 1
    again = model(visual * 1e6, -audio, off, off)
    assert torch.equal(output.estimates, again.estimates)


@torch.no_grad()
def test_rgf_input_to_the_transformer_is_zero_where_no_tick_is_valid():
    preset = small()
    model = fusion_of(preset)
    seen = []
    model.core.refine.project.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    visual, audio, mask, _ = features(preset)
    mask[:, :25] = 0
    model(visual, audio, mask, mask)
    model(visual, audio, mask * 0, mask * 0)
    assert torch.equal(seen[0][:, :25], torch.zeros_like(seen[0][:, :25]))
    assert seen[0][:, 25:].abs().amin((0, 2)).max() > 0
    assert torch.equal(seen[1], torch.zeros_like(seen[1]))


@torch.no_grad()
def test_a_masked_prefix_does_not_reach_the_rest_but_through_the_tcn_padding():
    """Ticks where both masks are off are keys of nobody: their number, but not their place in memory, is all that could matter."""
    preset = small()
    refine = Refinement(preset, 24).eval()
    torch.nn.init.normal_(refine.layers[0].distance.weight)
    x, valid = torch.randn(1, 40, 24), torch.ones(1, 40)
    valid[:, :15] = 0
    whole = refine(x, valid)[:, 15:]
    alone = refine(x[:, 15:], valid[:, 15:])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reliabilities_are_normalised():
    preset = small()
    model = fusion_of(preset)
    visual, audio, visual_mask, audio_mask = features(preset)
    visual_mask[0, :20] = 0
    audio_mask[0, 10:30] = 0
    output = model(visual, audio, visual_mask, audio_mask)
    torch.testing.assert_close(output.modality.sum(2), torch.ones(2, 40))
    valid = torch.maximum(visual_mask, audio_mask)
    torch.testing.assert_close(output.temporal.sum(1), valid.sum(1))
    assert torch.equal(output.temporal[0, 10:20], torch.zeros(10))
    assert torch.equal(output.modality[0, 20:30], torch.tensor([1.0, 0.0]).expand(10, 2))
    assert torch.equal(output.modality[0, :10], torch.tensor([0.0, 1.0]).expand(10, 2))
    assert output.temporal.std() > 0.01


@torch.no_grad()
def test_length_scale_is_the_paper_scale_times_the_valid_ticks():
    length, paper = small(reliability="temporal"), small(reliability="temporal", rgf_scale="paper")
    ours = fusion_of(length)
    printed = Fusion(paper).eval()
    printed.load_state_dict(ours.state_dict())
    printed.core.refine.project.weight.mul_(length.window)
    inputs = features(length)
    torch.testing.assert_close(printed(*inputs).estimates, ours(*inputs).estimates, rtol=1e-4, atol=1e-5)
    assert ours(*inputs).modality is None


@torch.no_grad()
def test_the_reliability_of_a_tick_reaches_its_estimate_through_the_layer_norms():
    preset = small(reliability="temporal", fusion_layers=1)
    model = fusion_of(preset)
    torch.nn.init.zeros_(model.core.temporal.weight)
    visual, audio, v_mask, a_mask = features(preset)
    seen = []
    model.core.refine.register_forward_hook(lambda module, args, z: seen.append(z))
    model(visual, audio, v_mask, a_mask)

    def damped(module, args, output):
        output[:, 30] -= 5.0

    model.core.temporal.register_forward_hook(damped)
    model(visual, audio, v_mask, a_mask)
    moved = (seen[1] - seen[0]).norm(dim=2) / seen[0].norm(dim=2)
    assert moved[:, 30].min() > 0.2
    assert moved[:, 30].min() > 2 * moved[:, :25].max()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reliability": "temporal", "rgf_scale": "paper"},
        {"reliability": "modality-only"},
        {"fusion": "concat"},
        {"wavlm_norm_first": True, "wavlm_extractor": "layer"},
    ],
)
def test_gradients_reach_every_parameter(changes):
    preset = small(wavlm_layers=2, **changes)
    torch.manual_seed(0)
    model = SAGE(preset).train()
    # frozen at their initial zero these would hide what lies behind them
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.1)
    masks = torch.ones(2, 40)
    output = model(torch.randn(2, 40, 3, 40, 40), torch.randn(2, preset.samples) * 0.1, masks, masks)
    (output.estimates * torch.randn_like(output.estimates)).sum().backward()
    # a bias in front of a softmax moves all of its logits alike
    blind = {"fusion.core.temporal.bias", *(name for name, _ in model.named_parameters() if name.endswith("k_proj.bias"))}
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not set(dead) - blind, dead


@torch.no_grad()
def test_folding_weight_norm_changes_nothing_and_leaves_the_original():
    torch.manual_seed(0)
    model = SAGE(small()).eval()
    folded = model.folded()
    masks = torch.ones(1, 40)
    inputs = (torch.randn(1, 40, 3, 40, 40), torch.randn(1, model.preset.samples) * 0.1, masks, masks)
    torch.testing.assert_close(folded(*inputs).estimates, model(*inputs).estimates, rtol=1e-5, atol=1e-6)
    assert not any("parametrizations" in name for name in folded.state_dict())
    assert any("parametrizations" in name for name in model.state_dict())


@torch.no_grad()
def test_forward_is_the_three_graphs_in_a_row():
    torch.manual_seed(0)
    model = SAGE(small()).eval()
    faces, samples = torch.randn(1, 40, 3, 40, 40), torch.randn(1, model.preset.samples) * 0.1
    masks = (torch.rand(1, 40) > 0.3).float(), (torch.rand(1, 40) > 0.3).float()
    rows = torch.stack([model.visual(faces[0, k : k + 1])[0] for k in range(40)])[None]
    expected = model.fusion(rows, model.audio(samples), *masks)
    torch.testing.assert_close(model(faces, samples, *masks).estimates, expected.estimates, rtol=1e-5, atol=1e-6)


def test_tiny_is_small_and_mostly_in_layers_that_int8_takes():
    model = SAGE(presets.get("tiny"))
    total = sum(p.numel() for p in model.parameters())
    wavlm = model.audio.wavlm
    floating = sum(p.numel() for part in (wavlm.feature_extractor, wavlm.encoder.pos_conv_embed) for p in part.parameters())
    assert 1_000_000 <= total <= 2_000_000
    assert floating / total < 0.12


def test_tiny_has_the_modules_of_base():
    with torch.device("meta"):
        kinds = [{type(module).__name__ for module in SAGE(presets.get(name)).modules()} for name in ("tiny", "base")]
    assert kinds[0] == kinds[1]
