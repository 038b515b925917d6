"""torchaudio's own WavLM: its models against ours, its bundles as a source. Skipped where torchaudio does not load.

Its models are pure Python: where only its compiled part is in the way (a CUDA build beside a CPU torch), a copy without that part does. Nothing is
downloaded: torchaudio takes the file that lies in its cache already.

    pip install --no-deps --target COPY torchaudio && rm COPY/torchaudio/lib/*.so && PYTHONPATH=COPY pytest tests/training/test_weights_torchaudio.py
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import published_layouts as layouts
import pytest
import torch
from torch import Tensor

from sage_edge.cli.main import main
from sage_edge.training import presets
from sage_edge.training.encoders.wavlm import WavLM
from sage_edge.training.encoders.weights import load_audio

torchaudio = pytest.importorskip("torchaudio", exc_type=(ImportError, OSError))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """Where torchaudio looks before it downloads; gone afterwards, with what was made of it."""
    monkeypatch.setenv("SAGE_EDGE_WEIGHTS", str(tmp_path / "place"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(tmp_path)


def bundled(bundle: str, cache: Path) -> torch.nn.Module:
    """The bundle's model, with random weights."""
    torch.manual_seed(6)
    model = getattr(torchaudio.models, bundle.lower())()
    layouts.randomize(model, std=0.02)
    torch.save(model.state_dict(), cache / f"{bundle.lower()}.pth")
    return getattr(torchaudio.pipelines, bundle).get_model(dl_kwargs={"weights_only": True})


@torch.no_grad()
def compare(bundle: str, preset: presets.Preset, cache: Path, capsys) -> None:
    theirs = bundled(bundle, cache)
    assert main(["weights", "import", f"torchaudio:{bundle}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layout"] == "torchaudio WavLM"
    assert facts["ignored"] == []
    ours = WavLM(preset).eval()
    load_audio(ours, "auto", preset)
    samples = torch.randn(1, 48_000) * 0.1
    states = ours.encoder.states(ours.feature_projection(ours.feature_extractor(ours.prepared(samples))))
    layers = theirs.extract_features(samples)[0]
    assert len(layers) == len(states) - 1
    for i, (a, b) in enumerate(zip(states[1:-1], layers, strict=False)):
        assert relative(a, b) <= 1e-5, f"layer {i}: {relative(a, b):.2e}"
    assert relative(ours(samples), theirs(samples)[0]) <= 1e-5


def test_the_base_bundle(cache, capsys):
    compare("WAVLM_BASE", presets.get("base"), cache, capsys)


@pytest.mark.slow
def test_the_large_bundle(cache, capsys):
    compare("WAVLM_LARGE", presets.get("large"), cache, capsys)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("content", ["cut", "code"])
def test_a_bad_file_in_its_cache_is_one_line_and_does_not_run(content, cache, tmp_path, capsys):
    if content == "cut":
        (cache / "wavlm_base.pth").write_bytes(b"PK\x03\x04")
    else:
        torch.save({"weight": Evil(tmp_path / "canary")}, cache / "wavlm_base.pth")
    assert main(["weights", "import", "torchaudio:WAVLM_BASE"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: torchaudio:WAVLM_BASE cannot be loaded")
    assert said.count("\n") == 1
    assert not (tmp_path / "canary").exists()
