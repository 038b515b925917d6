"""Smoothing of a live stream: one filter, or one for each track, none of which remembers what is long past."""

from __future__ import annotations

import pytest

from sage_edge.runtime.estimate import AudioLevel, Drops, Estimate, Face, Reliability
from sage_edge.runtime.smooth_tracks import FORGET_NS, SmoothTracks
from sage_edge.runtime.smoothing import Smoothing

HOP_NS = 500_000_000


def estimate(t_ns: int, value: float, track: int | None) -> Estimate:
    face = None if track is None else Face(track, None, None)
    return Estimate(t_ns, None, value, -value, Reliability(1.0, None, None), face, AudioLevel(-120.0, False), Drops(), ((t_ns, value, -value),))


@pytest.mark.parametrize("filter", ["one-euro:0.5,1", "average:2s"])
def test_tracks_do_not_mix_unless_they_are_one_stream(filter: str) -> None:
    apart, one, alone = SmoothTracks(Smoothing.parse(filter), True), SmoothTracks(Smoothing.parse(filter)), SmoothTracks(Smoothing.parse(filter))
    for hop in range(12):
        t_ns = hop * HOP_NS
        expected = alone.add(estimate(t_ns, 0.1 * (hop % 3), 1))
        assert apart.add(estimate(t_ns, 0.1 * (hop % 3), 1)) == expected
        apart.add(estimate(t_ns, -0.9, 2))
        apart.add(estimate(t_ns, 0.9, None))
        one.add(estimate(t_ns, 0.1 * (hop % 3), hop))
    assert one.add(estimate(12 * HOP_NS, 0.5, None)) == alone.add(estimate(12 * HOP_NS, 0.5, 1)), "whoever is seen, it is one stream"


def test_what_is_long_past_is_forgotten_and_kept_by_nobody() -> None:
    smooth = SmoothTracks(Smoothing.parse("one-euro"), True)
    for track in range(1000):
        smooth.add(estimate(track * HOP_NS, 0.5, track))
    assert len(smooth._filters) <= FORGET_NS // HOP_NS + 2
    late = smooth.add(estimate(999 * HOP_NS + FORGET_NS + 1, -0.5, 999))
    assert (late.valence, late.arousal) == (-0.5, 0.5), "begins anew"
    smooth.clear()
    assert smooth.add(estimate(0, 0.25, 999)).valence == 0.25, "after a jump time may be anything"
