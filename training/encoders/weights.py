"""Published encoder weights into ours: convert a file once, load it into a model.

convert("pytorch_model.bin")                            # -> ~/.cache/sage-edge/weights/wavlm-base.safetensors
load_audio(model.audio.wavlm, "auto", model.preset)     # from there; or from a published file, a converted one, a checkpoint folder
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.runtime.files import atomic_file, sha256_file
from sage_edge.training.presets import Preset

from . import published, reading
from .layouts import RESNET, WAVLM
from .recognise import FORMAT, Encoder, from_tensors, recognise
from .resnet import ResNet
from .wavlm import WavLM

TORCHAUDIO = "torchaudio:"
BUNDLES = ("WAVLM_BASE", "WAVLM_BASE_PLUS", "WAVLM_LARGE")


def convert(source: str | Path, out: Path | None = None) -> dict[str, Any]:
    """Write the encoder of `source` in our names: a file, a Hugging Face folder, or "torchaudio:WAVLM_BASE".

    `out` is a safetensors file; by default the place where training looks. Returns the recognised facts, `source`, `source_sha256` (None for
    torchaudio), `out` and `replaced`. Raises as `recognise` does, and CheckpointError for an encoder that is none of the published ones.
    """
    digest = None
    if str(source).startswith(TORCHAUDIO):
        encoder = from_tensors(_bundle(str(source)), {}, source=str(source))
    else:
        encoder = recognise(Path(source))
        digest = sha256_file(reading.find(Path(source)))
    target = next((item for item in published.PUBLISHED if item.name == encoder.architecture), None)
    if target is None:
        names = ", ".join(item.name for item in published.PUBLISHED)
        raise CheckpointError(f"{source} holds a {encoder.architecture} ({encoder.layout}); one of {names} can be used")
    out = target.path if out is None else Path(out)
    replaced = out.exists()
    metadata = {"format": FORMAT, "architecture": encoder.architecture, "layout": encoder.layout, "source": str(source)}
    with atomic_file(out) as work:
        save_file(encoder.tensors, work, metadata | ({"source_sha256": digest} if digest else {}))
    return {**encoder.facts(), "source": str(source), "source_sha256": digest, "out": str(out), "replaced": replaced}


def load_visual(module: ResNet, source: str, preset: Preset) -> Encoder:
    """Fill the face encoder of `preset` from `source`: "auto" (imported published weights) or a path that `recognise` takes.

    Raises UsageError: nothing there, or another encoder than the preset's; CheckpointError: a file that is refused.
    """
    return _load(module, RESNET, source, preset)


def load_audio(module: WavLM, source: str, preset: Preset) -> Encoder:
    """Fill the sound encoder of `preset`, as `load_visual` does."""
    return _load(module, WAVLM, source, preset)


def _load(module: nn.Module, family: str, source: str, preset: Preset) -> Encoder:
    setting = "visual_weights" if family == RESNET else "audio_weights"
    path = _expected(family, preset, setting) if source == "auto" else Path(source).expanduser()
    if not path.exists():
        raise UsageError(f"{setting}={path} does not exist; give a file of weights or a checkpoint folder, or {setting}=none")
    encoder = recognise(path, family)
    if encoder.family != family:
        raise UsageError(
            f"{setting}={path} holds {encoder.architecture}, where a {published.FAMILIES[family]} is wanted; 'sage-edge weights list' says what fits"
        )
    if differences := published.differences(family, encoder.preset, preset, shapes_only=not encoder.exact):
        raise UsageError(
            f"{setting}={path} holds {encoder.architecture}, which does not fit preset {preset.name!r} ({'; '.join(differences)}); "
            f"choose another preset or file"
        )
    module.load_state_dict(encoder.tensors)
    return encoder


def _expected(family: str, preset: Preset, setting: str) -> Path:
    item = published.of_preset(family, preset)
    if item is None:
        raise UsageError(f"{setting}=auto: no weights are published for {published.describe(family, preset)}; set {setting}=none or give a path")
    if not item.path.is_file():
        raise UsageError(
            f"{item.path} is missing: download {item.urls[0]}, then 'sage-edge weights import FILE' puts it there; or set {setting}=none"
        )
    return item.path


def _bundle(source: str) -> Mapping[str, Tensor]:
    """Tensors of a torchaudio bundle, which torchaudio downloads where its cache lacks them. Raises UsageError."""
    name = source.removeprefix(TORCHAUDIO)
    if name not in BUNDLES:
        raise UsageError(f"{source}: no such bundle; one of {', '.join(TORCHAUDIO + bundle for bundle in BUNDLES)}")
    url = f"https://download.pytorch.org/torchaudio/models/{name.lower()}.pth"
    try:
        import torchaudio
    except (ImportError, OSError) as error:  # OSError: its compiled part was built for another torch
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{source} needs torchaudio, which does not load ({why}); pip install 'sage-edge[torchaudio]', or import {url}") from None
    try:
        state: Mapping[str, Tensor] = getattr(torchaudio.pipelines, name).get_model(dl_kwargs={"weights_only": True}).state_dict()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no network, or a damaged file in its cache
        raise CheckpointError(f"{source} cannot be loaded ({str(error).strip().splitlines()[0][:120]}); try again, or import {url}") from None
    return state
