"""A session does not grow: ten minutes of frames, sound with breaks, and estimates that are taken away."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.runtime import Bundle, Session

MINUTE_FRAMES = 1800


def test_ten_minutes_are_flat(bundle: Bundle) -> None:
    process = pytest.importorskip("psutil").Process()
    rng = np.random.default_rng(0)
    face = rng.integers(0, 255, (60, 60, 3), np.uint8)
    sound = (0.1 * rng.standard_normal(534)).astype(np.float32)
    levels = []
    with Session(bundle, precision="fp32", t0_ns=0, threads=1) as session:
        for k in range(10 * MINUTE_FRAMES):
            t_ns = k * 1_000_000_000 // 30
            session.push_face(face if k % 50 else None, t_ns)
            if k % 100 < 95:
                session.push_audio(sound, t_ns)
            assert len(session.poll()) <= 1
            if k % MINUTE_FRAMES == MINUTE_FRAMES - 1:
                levels.append(process.memory_info().rss / (1 << 20))
        assert session.drops.audio_overruns == 179
        assert len(session._sound._gaps) <= 5
        assert len(session._tracks._seen) == session._tracks.rows
    assert levels[-1] - levels[1] < 3, f"MiB after each minute: {[round(level, 1) for level in levels]}"
