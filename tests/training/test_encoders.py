"""Both encoders against `transformers`, layer by layer, with random weights mapped into ours; and what is ours alone."""

import pytest
import torch
from torch import Tensor

from sage_edge.runtime import ticks
from sage_edge.training import presets
from sage_edge.training.encoders.resnet import ResNet
from sage_edge.training.encoders.wavlm import WavLM, position_buckets, toeplitz
from sage_edge.training.model import AudioEncoder

TINY = presets.get("tiny")


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def randomize(module: torch.nn.Module) -> None:
    """Every tensor away from its initial value, so that a swapped or ignored one shows."""
    for name, tensor in module.state_dict().items():
        if tensor.dtype.is_floating_point:
            torch.nn.init.normal_(tensor, std=0.1)
            if "running_var" in name or "norm" in name or "bn" in name or ".original0" in name:
                tensor.abs_().add_(0.5)


def from_torchvision_like(name: str) -> str:
    """Our (torchvision's) key -> Hugging Face's, for ResNet."""
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{parts[1]}"
    stage, block = int(parts[0][5:]) - 1, parts[1]
    prefix = f"encoder.stages.{stage}.layers.{block}."
    if parts[2] == "downsample":
        return f"{prefix}shortcut.{'convolution' if parts[3] == '0' else 'normalization'}.{parts[4]}"
    kind, number = parts[2][:-1], int(parts[2][-1]) - 1
    return f"{prefix}layer.{number}.{'convolution' if kind == 'conv' else 'normalization'}.{parts[3]}"


@torch.no_grad()
def test_resnet_equals_transformers_in_every_stage():
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    theirs = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[2, 1, 2, 1], layer_type="bottleneck")).eval()
    randomize(theirs)
    ours = ResNet(8, (2, 1, 2, 1)).eval()
    source = theirs.state_dict()
    ours.load_state_dict({name: source.pop(from_torchvision_like(name)) for name in ours.state_dict()})
    assert not source
    x = torch.randn(3, 3, 40, 40)
    maps = theirs(x, output_hidden_states=True)
    for i, (a, b) in enumerate(zip(ours.stages(x), maps.hidden_states, strict=True)):
        assert relative(a, b) <= 1e-5, f"stage {i}: {relative(a, b):.2e}"
    assert relative(ours(x), maps.pooler_output.flatten(1)) <= 1e-5


def wavlm_pair(**changes: object) -> tuple[WavLM, torch.nn.Module]:
    from transformers import WavLMConfig, WavLMModel

    large = bool(changes.get("wavlm_norm_first", False))
    preset = TINY.replace(
        {"wavlm_layers": 3, "wavlm_conv_dims": (16, 16, 16, 24, 24, 24, 24), "wavlm_dim": 32, "wavlm_heads": 4, "wavlm_ff": 48, **changes}
    )
    config = WavLMConfig(
        hidden_size=preset.wavlm_dim,
        num_hidden_layers=preset.wavlm_layers,
        num_attention_heads=preset.wavlm_heads,
        intermediate_size=preset.wavlm_ff,
        conv_dim=preset.wavlm_conv_dims,
        feat_extract_norm=preset.wavlm_extractor,
        do_stable_layer_norm=large,
        num_conv_pos_embeddings=preset.wavlm_pos_kernel,
        num_conv_pos_embedding_groups=preset.wavlm_pos_groups,
        num_buckets=preset.wavlm_buckets,
        max_bucket_distance=preset.wavlm_max_distance,
    )
    theirs = WavLMModel(config).eval()
    randomize(theirs)
    ours = WavLM(preset).eval()
    source = {name: tensor for name, tensor in theirs.state_dict().items() if name != "masked_spec_embed"}
    ours.load_state_dict(source)
    return ours, theirs


@pytest.mark.parametrize(
    "changes",
    [{}, {"wavlm_pos_kernel": 31}, {"wavlm_extractor": "layer", "wavlm_norm_first": True}],
    ids=["base", "odd-kernel", "large"],
)
@torch.no_grad()
def test_wavlm_equals_transformers_in_every_layer(changes):
    torch.manual_seed(1)
    ours, theirs = wavlm_pair(**changes)
    samples = torch.randn(2, 8000) * 0.1
    features = ours.feature_extractor(samples)
    assert relative(features, theirs.feature_extractor(samples).transpose(1, 2)) <= 1e-5
    # the oracle's hidden states are what goes into each layer, then the last output
    reference = theirs(samples, output_hidden_states=True)
    states = ours.encoder.states(ours.feature_projection(features))
    assert len(states) == len(reference.hidden_states)
    for i, (a, b) in enumerate(zip(states, reference.hidden_states, strict=True)):
        if i < len(states) - 1:
            assert relative(a, b) <= 1e-5, f"layer {i}: {relative(a, b):.2e}"
    assert relative(states[-1], reference.last_hidden_state) <= 1e-5
    assert relative(ours(samples), reference.last_hidden_state) <= 1e-5


@torch.no_grad()
def test_wavlm_beyond_its_window_equals_transformers():
    """More tokens than the bucket buffer was made for."""
    torch.manual_seed(2)
    ours, theirs = wavlm_pair(window=6)
    samples = torch.randn(1, 16000) * 0.1
    assert ours.encoder.length < ours.feature_extractor(samples).shape[1]
    assert relative(ours(samples), theirs(samples).last_hidden_state) <= 1e-5


def test_buckets_equal_transformers_over_the_whole_range():
    from transformers import WavLMConfig
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    config = WavLMConfig()
    attention = WavLMAttention(768, 12, num_buckets=config.num_buckets, max_distance=config.max_bucket_distance)
    theirs = attention._relative_positions_bucket(torch.arange(-1500, 1501))
    assert torch.equal(position_buckets(1501, config.num_buckets, config.max_bucket_distance), theirs)


@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_toeplitz_equals_the_index_matrix(length):
    diagonals = torch.randn(3, 2 * length - 1)
    index = torch.arange(length)[None, :] - torch.arange(length)[:, None] + length - 1
    assert torch.equal(toeplitz(diagonals, length), diagonals[:, index])


def test_normalised_samples_do_not_depend_on_gain():
    torch.manual_seed(0)
    model = WavLM(TINY.replace({"wavlm_normalize": True})).eval()
    samples = torch.randn(1, 8000)
    with torch.no_grad():
        assert relative(model(samples * 3.0 + 0.5), model(samples)) < 1e-4


@torch.no_grad()
def test_tokens_are_interpolated_to_tick_times():
    torch.manual_seed(0)
    encoder = AudioEncoder(TINY).eval()
    encoder.wavlm = torch.nn.Module()
    # tokens that say when they are: the time of a tick comes back
    times = (200 + 320 * torch.arange(499, dtype=torch.float32)) / 16_000
    encoder.wavlm.forward = lambda samples: times[None, :, None].expand(1, 499, 4)
    at_ticks = encoder(torch.zeros(1, TINY.samples))
    assert at_ticks.shape == (1, 300, 4)
    wanted = torch.tensor([ticks.tick_time_ns(k) / 1e9 for k in range(300)]).clamp(float(times[0]), float(times[-1]))
    torch.testing.assert_close(at_ticks[0, :, 0], wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_shorter_stretch_of_sound_gives_its_own_ticks():
    encoder = AudioEncoder(TINY).eval()
    assert encoder(torch.randn(2, ticks.window_samples(120))).shape == (2, 120, TINY.audio_dim)


def test_base_is_resnet50_and_wavlm_base():
    base = presets.get("base")
    assert sum(p.numel() for p in ResNet(base.resnet_width, base.resnet_blocks).parameters()) == 25_557_032 - 2048 * 1000 - 1000
    with torch.device("meta"):
        wavlm = WavLM(base)
    # torchaudio's WAVLM_BASE has 94,381,168; Hugging Face's 768 more are masked_spec_embed
    assert sum(p.numel() for p in wavlm.parameters()) == 94_381_168
