"""A whole `tiny` bundle in half a minute, for tests of other machines: `python tests/aarch64/taught.py` prints its folder.

Its encoders are random, with norms that have seen faces; its fusion is taught on the very videos that it is measured on. So the estimates follow the
labels and INT8 has something to lose, which is all that is asked of it: it is no model to use. In the folder lie `tiny.sage`, the store it was made
from, and nothing else; made again only when the code that makes it changed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/taught"
MAX_DROP = 0.25
"""CCC that INT8 may cost: random encoders over 36 seconds of video are no place to judge 8 bits."""


def taught(folder: Path = FOLDER) -> Path:
    """The folder of `tiny.sage` and `store`, made where needed. Needs the development environment, torch included."""
    sources = sorted(path for name in ("training", "calibration", "compile") for path in (ROOT / name).rglob("*.py"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, Path(__file__)])).hexdigest()[:16]
    target = folder / key
    if not target.is_dir():
        from sage_edge.runtime.files import atomic_folder

        with atomic_folder(target) as work:
            _make(work)
    return target


def _make(folder: Path) -> None:
    import shutil

    from sage_edge.compile import compile_bundle
    from sage_edge.training import checkpoint
    from sage_edge.training.data.store import Store, prepare
    from sage_edge.training.data.synthetic import synthesise

    synthesise(folder / "corpus", seed=3, train=2, val=3, seconds=12.0, workers=2, progress=False)
    prepare(folder / "corpus", folder / "store", workers=2, progress=False)
    store = Store.open(folder / "store")
    checkpoint.save(folder / "checkpoint", _teach(store), trained_on=store.meta)
    compile_bundle(folder / "checkpoint", folder / "store", folder / "tiny.sage", max_drop=MAX_DROP, progress=False)
    for name in ("corpus", "checkpoint"):
        shutil.rmtree(folder / name)


def _teach(store):
    import numpy as np
    import torch

    from sage_edge.training import presets
    from sage_edge.training.data.windows import window_at
    from sage_edge.training.model import SAGE

    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # others work beside it: threads that wait for each other would wait for them too
    sage = SAGE(presets.get("tiny"))
    p = sage.preset
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (p.mean, p.std))
    clips = [window_at(t, end, p.window) for t in store.trials("val") for end in range(29, t.n_ticks, 30)]
    faces = [(torch.from_numpy(clip.faces[:, 4:44, 4:44]).permute(0, 3, 1, 2) / 255 - mean) / std for clip in clips]
    with torch.no_grad():
        sage.visual.train()
        everything = torch.cat(faces)
        for _ in range(20):
            sage.visual(everything[torch.randperm(len(everything))[:64]])
        sage.eval()
        visual = torch.stack([sage.visual(each) for each in faces])
        audio = sage.audio(torch.from_numpy(np.stack([clip.samples for clip in clips])))
    masks = [torch.from_numpy(np.stack([getattr(clip, name) for clip in clips])).float() for name in ("visual_mask", "audio_mask")]
    labels, valid = (torch.from_numpy(np.stack([getattr(clip, name) for clip in clips])) for name in ("labels", "labels_valid"))
    sage.fusion.train()
    optimizer = torch.optim.Adam(sage.fusion.parameters(), 1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        (sage.fusion(visual, audio, *masks).estimates - labels)[valid].square().mean().backward()
        optimizer.step()
    torch.set_num_threads(before)
    return sage.eval()


if __name__ == "__main__":
    print(taught(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
