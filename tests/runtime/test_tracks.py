"""The visual rows of the last ticks: windows that are read where they lie, and stay."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from sage_edge.runtime.engines.arrays import aligned_zeros
from sage_edge.runtime.estimate import Face
from sage_edge.runtime.tracks import TrackWindows

ROWS, WINDOW = 14, 10
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dim", [1, 8, 16, 48])
def test_a_window_of_all_faces_is_read_where_it_lies_or_copied_and_stays_for_as_long_as_another(dim: int) -> None:
    features, own, mask = np.zeros((3, dim), np.float32), aligned_zeros((1, WINDOW, dim), np.dtype(np.float32)), np.zeros((1, WINDOW), np.float32)
    tracks = TrackWindows(features, 1, ROWS, WINDOW, joined=True)
    rows, there = [np.zeros(dim, np.float32)] * 40, [0.0] * 40
    given: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=WINDOW + 1)
    in_place = 0
    for tick in range(150):
        seen = tick % 7 > 1
        at = tick % 3
        features[:] = RNG.standard_normal((3, dim))
        tracks.take(tracks.push(((Face(tick, None, None), tick),) if seen else ()), at)
        rows.append(features[at].copy() if seen else np.zeros(dim, np.float32))
        there.append(float(seen))
        behind = tick % (ROWS - WINDOW + 1)
        visual, ends = tracks.fill(behind, own, mask)
        low, high = len(rows) - behind - WINDOW, len(rows) - behind
        assert ends == (((Face(tick - behind, None, None), tick - behind),) if there[high - 1] else (None,))
        assert np.array_equal(mask[0], there[low:high])
        assert np.array_equal(visual[0], rows[low:high])
        assert visual.ctypes.data % 64 == 0
        assert visual.flags.c_contiguous
        if visual is not own:
            in_place += 1
            given.append((tick, visual, np.array(rows[low:high])))
        for then, earlier, expected in given:
            if tick <= then + WINDOW:
                assert np.array_equal(earlier[0], expected), (tick, then)
    assert in_place == 150 if dim % 16 == 0 else 0 < in_place < 100
    tracks.clear()
    visual, ends = tracks.fill(0, own, mask)
    assert ends == (None,)
    assert not visual.any()
    assert not mask.any()
