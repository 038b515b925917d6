"""A session does not grow: ten minutes of frames, sound with breaks, and estimates that are taken away."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from soaking import used_mb

from sage_edge.runtime import Bundle, Session

MINUTE_FRAMES = 1800


def test_ten_minutes_are_flat(bundle: Bundle) -> None:
    """By what malloc has given out, engines included: what the kernel holds of a process with libraries of a gigabyte moves by itself."""
    if used_mb() is None:
        pytest.skip("needs glibc 2.33 or newer")
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
                gc.collect()
                levels.append(used_mb() or 0.0)
        assert session.drops.audio_overruns == 179
        assert len(session._sound._gaps) <= 5
        assert len(session._tracks._seen) == session._tracks.rows
    assert levels[-1] - levels[1] < 0.3, f"MB after each minute: {[round(level, 2) for level in levels]}"


def test_people_who_come_and_go_leave_nothing_behind(bundle: Bundle) -> None:
    """What Python holds after each stretch: the same, with tracks that never come again, hops that change and a clock that jumps."""
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (40 + 7 * i, 40 + 7 * i, 3), np.uint8) for i in range(4)]
    sound = (0.1 * rng.standard_normal(534)).astype(np.float32)
    held, base_ns = [], 0
    with Session(bundle, precision="fp32", threads=1, follow="all", hop_thread=True) as session:
        tracemalloc.start()
        try:
            for part in range(4):
                for k in range(220):
                    t_ns = base_ns + k * 1_000_000_000 // 30
                    for i in range((k // 20) % 5):
                        session.push_face(faces[(i + k) % 4], t_ns, track=part * 1000 + k // 40 * 10 + i)
                    session.push_audio(sound, t_ns)
                    session.poll()
                    if k % 50 == 49:
                        session.set_hop(5 + k // 10)
                base_ns += 100_000_000_000
                session.skip(base_ns)
                session.poll()
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert max(held[2:]) - held[1] < 50_000, held
