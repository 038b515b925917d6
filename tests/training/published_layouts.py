"""Random weights in each published layout: the inverse of what `sage_edge.training.encoders.layouts` knows, from the state of a `transformers` model.

Written apart from it, so that a mistake in one shows against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sage_edge.training.presets import Preset

State = dict[str, Tensor]


def randomize(module: nn.Module, std: float = 0.1) -> None:
    """Every tensor away from its initial value, so that a swapped or ignored one shows."""
    for name, tensor in module.state_dict().items():
        if tensor.dtype.is_floating_point:
            nn.init.normal_(tensor, std=std)
            if "running_var" in name or "norm" in name or "bn" in name or ".original0" in name:
                tensor.abs_().add_(0.5)


def wavlm_config(p: Preset) -> Any:
    """The `WavLMConfig` of a preset's sound encoder."""
    from transformers import WavLMConfig

    return WavLMConfig(
        hidden_size=p.wavlm_dim,
        num_hidden_layers=p.wavlm_layers,
        num_attention_heads=p.wavlm_heads,
        intermediate_size=p.wavlm_ff,
        conv_dim=p.wavlm_conv_dims,
        feat_extract_norm=p.wavlm_extractor,
        do_stable_layer_norm=p.wavlm_norm_first,
        num_conv_pos_embeddings=p.wavlm_pos_kernel,
        num_conv_pos_embedding_groups=p.wavlm_pos_groups,
        num_buckets=p.wavlm_buckets,
        max_bucket_distance=p.wavlm_max_distance,
    )


def resnet_torchvision(state: State, head: bool = True) -> State:
    """Hugging Face `ResNetModel` -> torchvision's resnet, with its `fc` or without."""
    result = {}
    for name, tensor in state.items():
        kind = "conv" if "convolution" in name else "bn"
        parts = name.split(".")
        if parts[0] == "embedder":
            key = f"{kind}1"
        elif parts[5] == "layer":
            key = f"layer{int(parts[2]) + 1}.{parts[4]}.{kind}{int(parts[6]) + 1}"
        else:
            key = f"layer{int(parts[2]) + 1}.{parts[4]}.downsample.{0 if kind == 'conv' else 1}"
        result[f"{key}.{parts[-1]}"] = tensor
    return result | ({"fc.weight": torch.randn(10, result["bn1.weight"].numel() * 32), "fc.bias": torch.randn(10)} if head else {})


def resnet_prefixed(state: State) -> State:
    """`ResNetModel` -> `ResNetForImageClassification`."""
    dim = state["embedder.embedder.normalization.weight"].numel() * 32
    return {f"resnet.{name}": tensor for name, tensor in state.items()} | {
        "classifier.1.weight": torch.randn(10, dim),
        "classifier.1.bias": torch.randn(10),
    }


def _old_weight_norm(state: State) -> State:
    """parametrizations.weight.original0/1 -> weight_g/weight_v, as files of torch before 2.0 have it."""
    return {
        name.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v"): tensor
        for name, tensor in state.items()
    }


def wavlm_prefixed(state: State) -> State:
    """`WavLMModel` -> `WavLMForXVector` and `WavLMForSequenceClassification` in one, with old names of the weight norm."""
    heads = ("projector.weight", "classifier.bias", "layer_weights", "tdnn.0.kernel.weight", "feature_extractor.weight", "objective.weight")
    return {f"wavlm.{name}": tensor for name, tensor in _old_weight_norm(state).items()} | {name: torch.randn(3) for name in heads}


def wavlm_torchaudio(state: State) -> State:
    """`WavLMModel` -> torchaudio's `wavlm_base()` and `wavlm_large()`: joint q, k, v; no masked_spec_embed."""
    result = {}
    for name, tensor in state.items():
        if name.startswith("feature_projection."):
            result[f"encoder.{name}"] = tensor
        elif ".attention.q_proj." in name:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            key = name.replace("encoder.", "encoder.transformer.", 1).replace("attention.q_proj.", "attention.attention.in_proj_")
            result[key] = torch.cat(parts)
        elif ".attention.k_proj." not in name and ".attention.v_proj." not in name and name != "masked_spec_embed":
            key = name.replace("attention.out_proj.", "attention.attention.out_proj.")
            result[key.replace("encoder.", "encoder.transformer.", 1) if key.startswith("encoder.") else key] = tensor
    return result


def wavlm_torchaudio_wrapped(state: State) -> State:
    """As the model of a bundle that normalises its input names them, weight norm as in older files."""
    return {f"model.{name}": tensor for name, tensor in _old_weight_norm(wavlm_torchaudio(state)).items()}


def wavlm_original(state: State) -> State:
    """`WavLMModel` -> WavLM.py of the authors' release."""
    layers = {
        "attention.rel_attn_embed": "self_attn.relative_attention_bias",
        "attention.gru_rel_pos_linear": "self_attn.grep_linear",
        "attention.gru_rel_pos_const": "self_attn.grep_a",
        "attention": "self_attn",
        "layer_norm": "self_attn_layer_norm",
        "feed_forward.intermediate_dense": "fc1",
        "feed_forward.output_dense": "fc2",
        "final_layer_norm": "final_layer_norm",
    }
    stacked = "feature_extractor.conv_layers.1.layer_norm.weight" in state
    result = {}
    for name, tensor in _old_weight_norm(state).items():
        if name == "masked_spec_embed":
            name = "mask_emb"
        elif name.startswith("feature_extractor."):
            name = name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1." if stacked else ".2.")
        elif name.startswith("encoder.layers."):
            head, number, rest = name.removeprefix("encoder.").split(".", 2)
            theirs, ours = next((theirs, ours) for ours, theirs in layers.items() if rest.startswith(ours))
            name = f"encoder.{head}.{number}.{theirs}{rest.removeprefix(ours)}"
        elif name.startswith("feature_projection."):
            name = name.removeprefix("feature_projection.").replace("projection.", "post_extract_proj.")
        else:
            name = name.replace("encoder.pos_conv_embed.conv.", "encoder.pos_conv.0.")
        result[name] = tensor
    return result


def unchanged(state: State) -> State:
    return dict(state)


RESNET: dict[str, tuple[str, Callable[[State], State]]] = {
    "torchvision": ("torchvision ResNet", resnet_torchvision),
    "hugging-face": ("Hugging Face ResNet", unchanged),
    "hugging-face-prefixed": ("Hugging Face ResNet", resnet_prefixed),
}
WAVLM: dict[str, tuple[str, Callable[[State], State]]] = {
    "hugging-face": ("Hugging Face WavLM", unchanged),
    "hugging-face-old-norm": ("Hugging Face WavLM", _old_weight_norm),
    "hugging-face-prefixed": ("Hugging Face WavLM", wavlm_prefixed),
    "torchaudio": ("torchaudio WavLM", wavlm_torchaudio),
    "torchaudio-wrapped": ("torchaudio WavLM", wavlm_torchaudio_wrapped),
    "original": ("original WavLM release", wavlm_original),
}
"""Name of a layout -> (what ours calls it, how its file is made)."""
