"""One small store, one small checkpoint and one bundle compiled from them, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

MICRO = {
    "window": 60,
    "resnet_width": 8,
    "wavlm_conv_dims": (16, 16, 16, 16, 32, 32, 32),
    "wavlm_dim": 32,
    "wavlm_layers": 1,
    "wavlm_heads": 2,
    "wavlm_ff": 64,
    "wavlm_pos_kernel": 16,
    "wavlm_pos_groups": 4,
    "tcn_visual": (16, 16),
    "tcn_audio": (16, 16),
    "fusion_dim": 32,
    "fusion_layers": 1,
    "fusion_heads": 2,
    "fusion_ff": 64,
    "head_dim": 16,
}
"""Settings over `tiny` that keep every module and make it small."""
MAX_DROP = 0.25
"""The micro model is allowed this: random features of ten seconds are no place to judge 8 bits; a spoilt graph costs several times as much."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend in their last bit on the number of threads, and other tests of the process may have changed it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared store of 3 + 2 synthetic people, 5 s each."""
    from sage_edge.training.data.store import prepare
    from sage_edge.training.data.synthetic import synthesise

    folder = tmp_path_factory.mktemp("corpus")
    synthesise(folder / "corpus", seed=3, train=3, val=2, seconds=5.0, workers=1, progress=False)
    prepare(folder / "corpus", folder / "store", workers=1, progress=False)
    return folder / "store"


@pytest.fixture(scope="session")
def model(store_path: Path):
    """A SAGE that has learnt something: random encoders whose norms have seen data, and a fusion fitted to the validation videos."""
    import numpy as np
    import torch

    from sage_edge.training import presets
    from sage_edge.training.data.store import Store
    from sage_edge.training.data.windows import window_at
    from sage_edge.training.model import SAGE

    torch.manual_seed(0)
    sage = SAGE(presets.get("tiny", MICRO))
    p = sage.preset
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (p.mean, p.std))
    with torch.no_grad():
        for name, parameter in sage.named_parameters():
            if name.endswith(("bias", "distance.weight", "rel_attn_embed.weight")):
                parameter.normal_(std=0.2)
            elif parameter.ndim == 1:
                parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
        # every hop of a session, the first seconds with their masked beginnings included
        clips = [window_at(t, end, p.window) for t in Store.open(store_path).trials("val") for end in range(14, t.n_ticks, 15)]
        faces = [(torch.from_numpy(c.faces[:, 4:44, 4:44]).permute(0, 3, 1, 2) / 255 - mean) / std for c in clips]
        sage.visual.train()
        for _ in range(10):
            sage.visual(torch.cat(faces)[torch.randperm(len(faces) * p.window)[:64]])
        sage.eval()
        visual = torch.stack([sage.visual(each) for each in faces])
        audio = sage.audio(torch.from_numpy(np.stack([c.samples for c in clips])))
    masks = [torch.from_numpy(np.stack([getattr(c, name) for c in clips])).float() for name in ("visual_mask", "audio_mask")]
    labels, valid = (torch.from_numpy(np.stack([getattr(c, name) for c in clips])) for name in ("labels", "labels_valid"))
    sage.fusion.train()
    optimizer = torch.optim.Adam(sage.fusion.parameters(), 3e-3)
    for _ in range(50):
        optimizer.zero_grad()
        (sage.fusion(visual, audio, *masks).estimates - labels)[valid].square().mean().backward()
        optimizer.step()
    return sage.eval()


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory, model, store_path: Path) -> Path:
    from sage_edge.training import checkpoint
    from sage_edge.training.data.store import Store

    path = tmp_path_factory.mktemp("checkpoint") / "micro"
    checkpoint.save(path, model, trained_on=Store.open(store_path).meta)
    return path


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory, checkpoint_path: Path, store_path: Path) -> Path:
    """The micro model, compiled."""
    from sage_edge.compile import compile_bundle

    return compile_bundle(checkpoint_path, store_path, tmp_path_factory.mktemp("bundle") / "micro.sage", max_drop=MAX_DROP, progress=False)
