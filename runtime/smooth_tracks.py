"""Estimates smoothed one after another, each track by itself: `SmoothTracks(Smoothing.parse("one-euro:0.5,1")).add(estimate)`."""

from __future__ import annotations

from typing import Any

from .estimate import Estimate, Smooth
from .smoothing import MovingAverage, OneEuro, Smoothing
from .ticks import NS_PER_S

FORGET_NS = 10 * NS_PER_S
"""A track without an estimate for this long begins anew."""


class SmoothTracks:
    """`by_track` keeps a filter for each track and one for estimates without a face; else there is one stream, whoever is seen."""

    def __init__(self, smoothing: Smoothing, by_track: bool = False) -> None:
        self.smoothing, self._by_track = smoothing, by_track
        self._filters: dict[int | None, tuple[int, OneEuro | MovingAverage]] = {}

    def add(self, estimate: Estimate) -> Smooth:
        """The smoothed values; estimates come in the order of their ticks."""
        track = estimate.face.track if self._by_track and estimate.face is not None else None
        t_ns = estimate.t_ns
        known = self._filters.get(track)
        filter = self.smoothing.stream() if known is None or t_ns - known[0] > FORGET_NS else known[1]
        if known is None:
            self._filters = {key: value for key, value in self._filters.items() if t_ns - value[0] <= FORGET_NS}
        self._filters[track] = t_ns, filter
        valence, arousal = filter.step(t_ns, (estimate.valence, estimate.arousal)).tolist()
        return Smooth(valence, arousal)

    def clear(self) -> None:
        """Begin anew, after a jump of the clock."""
        self._filters.clear()

    def to_dict(self) -> dict[str, Any]:
        """What the hello says of the filter, JSON types."""
        s = self.smoothing
        if s.kind == "one-euro":
            return {"kind": s.kind, "min_cutoff_hz": s.min_cutoff_hz, "beta": s.beta, "by_track": self._by_track}
        return {"kind": s.kind, "width_s": s.width_s, "by_track": self._by_track}
