"""A session does not grow: ten minutes of frames, sound with breaks, and estimates that are taken away."""

from __future__ import annotations

import gc
import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from soaking import used_mb

from sage_edge.runtime import Bundle, Session

MINUTE_FRAMES = 1800


def _ten_minutes(path: Path) -> tuple[list[float], list[float]]:
    """MiB that the kernel holds and MB that malloc has given out, after each minute."""
    process = psutil.Process()
    rng = np.random.default_rng(0)
    face = rng.integers(0, 255, (60, 60, 3), np.uint8)
    sound = (0.1 * rng.standard_normal(534)).astype(np.float32)
    held, given = [], []
    with Session(Bundle.open(path), precision="fp32", t0_ns=0, threads=1) as session:
        for k in range(10 * MINUTE_FRAMES):
            t_ns = k * 1_000_000_000 // 30
            session.push_face(face if k % 50 else None, t_ns)
            if k % 100 < 95:
                session.push_audio(sound, t_ns)
            assert len(session.poll()) <= 1
            if k % MINUTE_FRAMES == MINUTE_FRAMES - 1:
                held.append(process.memory_info().rss / (1 << 20))
                given.append(used_mb() or 0.0)
        assert session.drops.audio_overruns == 179
        assert len(session._sound._gaps) <= 5
        assert len(session._tracks._seen) == session._tracks.rows
    return held, given


def test_ten_minutes_are_flat(bundle: Bundle) -> None:
    """In a process of its own: what others leave in one of a gigabyte is not a session's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        held, given = pool.submit(_ten_minutes, bundle.path).result()
    assert held[-1] - held[1] < 3, f"MiB after each minute: {[round(level, 1) for level in held]}"
    assert given[-1] - given[1] < 0.3, f"MB given out after each minute: {[round(level, 2) for level in given]}"


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
