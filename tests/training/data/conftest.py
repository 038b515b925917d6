"""A corpus of three short videos, the store prepared from it, and trials made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sage_edge.training.data.store import Store, Trial, prepare
from sage_edge.training.data.synthetic import synthesise


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people to train on, one to validate on, about 3 s each, seed 7."""
    return synthesise(tmp_path_factory.mktemp("synth") / "corpus", seed=7, train=2, val=1, seconds=3, workers=1, progress=False)


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("prepared") / "store"
    prepare(corpus, out, workers=1, progress=False)
    return Store.open(out)


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """trial(rate=Fraction or float, frames=..., samples=..., missing=[frames without a face], unlabelled=[frames]) with recognisable contents:
    row i of `faces` is all i % 256, label of frame i is (i / frames, -i / frames), sample j is j % 1000 + 1."""

    def make(
        rate: float = 30.0,
        frames: int = 100,
        samples: int | None = None,
        missing: tuple[int, ...] = (),
        unlabelled: tuple[int, ...] = (),
        native: bool = False,
    ) -> Trial:
        times = np.array([round(i * 1e9 / rate) for i in range(frames)], np.int64)
        with_face = [i for i in range(frames) if i not in missing]
        frame_face = np.full(frames, -1, np.int32)
        frame_face[with_face] = np.arange(len(with_face))
        rows = np.arange(len(with_face)) % 256
        valid = np.array([i not in unlabelled for i in range(frames)])
        count = round(frames / rate * 16_000) if samples is None else samples
        labels = np.stack([np.arange(frames) / frames, -np.arange(frames) / frames], 1).astype(np.float32)
        return Trial(
            name="made", split="val", source="made.mp4", subject=None, frame_t_ns=times, frame_face=frame_face,
            faces=np.broadcast_to(rows[:, None, None, None], (len(rows), 48, 48, 3)).astype(np.uint8),
            labels=labels * valid[:, None], labels_valid=valid, audio=(np.arange(count) % 1000 + 1).astype(np.int16),
            rate_hz=round(rate) if native else 30, native=native,
        )  # fmt: skip

    return make
