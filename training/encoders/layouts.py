"""The layouts in which ResNet and WavLM weights are published, and how the names in each become ours. Nothing here reads a file.

Ours are torchvision's (without `fc`) for the ResNet and Hugging Face's (`WavLMModel`, without `masked_spec_embed`) for WavLM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

RESNET, WAVLM = "resnet", "wavlm"

_WEIGHT_NORM = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
_HUGGING_FACE_RESNET = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    *((rf"^encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
)
_TORCHAUDIO = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
    (r"\.attention\.attention\.", ".attention."),
    *_WEIGHT_NORM,
)
_ORIGINAL = (
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.2\.(?:1\.)?(?=weight$|bias$)", r"\1.layer_norm."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
    *_WEIGHT_NORM,
)
_HEADS = r"^(lm_head|projector|classifier|objective|tdnn)\.|^layer_weights$|^feature_extractor\.(weight|bias)$"
"""What the ...ForX classes of Hugging Face put on top of `wavlm.`."""


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of one family of encoders."""

    name: str
    family: str
    prefix: str
    """Of every name that belongs to the encoder."""
    rules: tuple[tuple[str, str], ...]
    """Patterns and their replacements, applied in turn to what follows the prefix."""
    harmless: str
    """Whole names that match are no part of the encoder and are left out; any other surplus name is an error."""

    def ours(self, name: str) -> tuple[str, ...]:
        """Our names for `name`: one; three where it joins query, key and value; none where it lies outside the prefix."""
        if not name.startswith(self.prefix):
            return ()
        name = name[len(self.prefix) :]
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        joint = re.fullmatch(r"(.*\.attention)\.in_proj_(weight|bias)", name)
        return tuple(f"{joint[1]}.{part}_proj.{joint[2]}" for part in "qkv") if joint else (name,)

    def translate(self, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Each name of `tensors` -> what it is in our names (empty where it lies outside the prefix)."""
        result = {}
        for name, tensor in tensors.items():
            ours = self.ours(name)
            parts = tensor.tensor_split(len(ours)) if len(ours) > 1 and tensor.dim() else [tensor] * len(ours)
            result[name] = dict(zip(ours, parts, strict=True))
        return result


_OWN = r"^(visual|audio|fusion)\."
_LOSS = r"^(mask_emb|label_embs_concat)$|^final_proj\."
CHECKPOINT = {
    RESNET: Layout("sage-edge checkpoint", RESNET, "visual.", (), _OWN),
    WAVLM: Layout("sage-edge checkpoint", WAVLM, "audio.wavlm.", (), _OWN),
}
PUBLISHED = (
    Layout("torchvision ResNet", RESNET, "", (), r"^fc\."),
    Layout("Hugging Face ResNet", RESNET, "resnet.", _HUGGING_FACE_RESNET, r"^classifier\."),
    Layout("Hugging Face ResNet", RESNET, "", _HUGGING_FACE_RESNET, r"^classifier\."),
    Layout("Hugging Face WavLM", WAVLM, "", _WEIGHT_NORM, r"^masked_spec_embed$"),
    Layout("Hugging Face WavLM", WAVLM, "wavlm.", _WEIGHT_NORM, r"^wavlm\.masked_spec_embed$|" + _HEADS),
    Layout("torchaudio WavLM", WAVLM, "", _TORCHAUDIO, r"^aux\."),
    Layout("torchaudio WavLM", WAVLM, "model.", _TORCHAUDIO, r"^model\.aux\."),
    Layout("original WavLM release", WAVLM, "", _ORIGINAL, _LOSS),
)
"""Where two fit equally well, the first is meant."""
