"""Smoothing of estimates over time, at whatever times they come: stamps are int64 ns and ascending, values float [n, d].

    filter = OneEuro(); smooth = filter.step(t_ns, value)          # one estimate after another, as a live loop has them
    rows = one_euro(t_ns, values)                                  # the same over a recording

The one-euro filter (Casiez, Roussel and Vogel, CHI 2012) is causal: a low pass whose cut-off rises with the speed of the signal, so that it
is steady at rest and quick in motion. The moving average is trailing where time runs, and centred where a recording is at hand.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UsageError
from .ticks import NS_PER_S, RATE_HZ

Rows = NDArray[np.float64]

MIN_CUTOFF_HZ = 0.5
BETA = 1.0
"""How fast the cut-off rises: Hz per unit of speed (valence or arousal per second)."""
SPEED_CUTOFF_HZ = 1.0
"""Of the low pass on the speed itself; the authors' value."""
WIDTH_S = 1.0
_ROUNDING_NS = 1_000
"""Stamps are rounded; one that lies on the edge of an average is still counted once."""


def _share(seconds: float, cutoff_hz: float) -> float:
    """Share of the new value in a first-order low pass, `seconds` after the last one."""
    r = 2.0 * math.pi * cutoff_hz * seconds
    return r / (r + 1.0)


@dataclass
class OneEuro:
    """One-euro filter of a row of values, each by itself. Raises ValueError for parameters that are no low pass."""

    min_cutoff_hz: float = MIN_CUTOFF_HZ
    beta: float = BETA
    t_ns: int | None = None
    """Of the last value, None before the first."""
    value: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)
    """Per second, smoothed."""

    def __post_init__(self) -> None:
        if not (0 < self.min_cutoff_hz < math.inf and 0 <= self.beta < math.inf):
            raise ValueError(f"one-euro needs a cut-off above 0 Hz and a beta of at least 0, got {self.min_cutoff_hz} and {self.beta}")

    def step(self, t_ns: int, value: ArrayLike) -> Rows:
        """The smoothed value at `t_ns`; a second value at the same time changes nothing. Raises ValueError when time goes back."""
        new: list[float] = np.asarray(value, np.float64).tolist()
        if self.t_ns is None:
            self.t_ns, self.value, self.speed = t_ns, new, [0.0] * len(new)
            return np.array(self.value, np.float64)
        seconds = _seconds(self.t_ns, t_ns)
        if seconds > 0:
            self.t_ns, rate = t_ns, _share(seconds, SPEED_CUTOFF_HZ)
            for i, (x, was, speed) in enumerate(zip(new, self.value, self.speed, strict=True)):  # a few numbers are faster so
                self.speed[i] = speed = rate * (x - was) / seconds + (1.0 - rate) * speed
                share = _share(seconds, self.min_cutoff_hz + self.beta * abs(speed))
                self.value[i] = share * x + (1.0 - share) * was
        return np.array(self.value, np.float64)


@dataclass
class MovingAverage:
    """Mean of the values of the last `width_s` seconds, the newest included. Raises ValueError for a width that is not above 0."""

    width_s: float = WIDTH_S
    recent: deque[tuple[int, Rows]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if not 0 < self.width_s < math.inf:
            raise ValueError(f"a moving average needs a width above 0 s, got {self.width_s}")

    def step(self, t_ns: int, value: ArrayLike) -> Rows:
        """The smoothed value at `t_ns`. Raises ValueError when time goes back."""
        if self.recent:
            _seconds(self.recent[-1][0], t_ns)
        self.recent.append((t_ns, np.array(value, np.float64)))
        while self.recent[0][0] <= t_ns - round(self.width_s * NS_PER_S) + _ROUNDING_NS and len(self.recent) > 1:
            self.recent.popleft()
        mean: Rows = np.mean([row for _, row in self.recent], axis=0)
        return mean


def _seconds(last_ns: int, t_ns: int) -> float:
    if t_ns < last_ns:
        raise ValueError(f"estimates must be in the order of time, got {t_ns} ns after {last_ns} ns")
    return (t_ns - last_ns) / NS_PER_S


def one_euro(t_ns: NDArray[np.int64], values: ArrayLike, min_cutoff_hz: float = MIN_CUTOFF_HZ, beta: float = BETA) -> Rows:
    """`OneEuro` over a recording: [n, d] -> [n, d]."""
    smooth = OneEuro(min_cutoff_hz, beta)
    rows = np.asarray(values, np.float64)
    return np.array([smooth.step(t, row) for t, row in zip(np.asarray(t_ns).tolist(), rows, strict=True)]).reshape(rows.shape)


def moving_average(t_ns: NDArray[np.int64], values: ArrayLike, width_s: float = WIDTH_S, centred: bool = False) -> Rows:
    """Mean over (t - width, t], or with `centred` over [t - width / 2, t + width / 2), of what there is: [n, d] -> [n, d]."""
    MovingAverage(width_s)  # refuses what is no width
    rows, stamps = np.asarray(values, np.float64), np.asarray(t_ns, np.int64)
    if len(stamps) != len(rows) or (np.diff(stamps) < 0).any():
        raise ValueError(f"need one ascending time per estimate, got {len(stamps)} times and {len(rows)} estimates")
    width_ns = round(width_s * NS_PER_S)
    if centred:
        low = np.searchsorted(stamps, stamps - width_ns // 2 - _ROUNDING_NS, side="left")
        high = np.searchsorted(stamps, stamps + width_ns // 2 - _ROUNDING_NS, side="left")
    else:
        low = np.searchsorted(stamps, stamps - width_ns + _ROUNDING_NS, side="right")
        high = np.arange(1, len(stamps) + 1)
    own = np.arange(len(stamps))
    low, high = np.minimum(low, own), np.maximum(high, own + 1)  # a width below the rounding still holds the value itself
    total = np.concatenate([np.zeros((1, *rows.shape[1:])), np.cumsum(rows, axis=0)])
    mean: Rows = (total[high] - total[low]) / (high - low).reshape(-1, *(1,) * (rows.ndim - 1))
    return mean


@dataclass(frozen=True)
class Smoothing:
    """A choice of filter: `Smoothing.parse("one-euro:0.5,1")`, `Smoothing.parse("average:15")` (ticks), `Smoothing.parse("average:0.5s")`."""

    kind: str
    """"one-euro" or "average"."""
    min_cutoff_hz: float = MIN_CUTOFF_HZ
    beta: float = BETA
    width_s: float = WIDTH_S

    @classmethod
    def parse(cls, text: str, rate_hz: int = RATE_HZ) -> Smoothing:
        """The filter that `text` names, with its defaults where it says no more; ticks are at `rate_hz`. Raises UsageError."""
        kind, _, values = text.partition(":")
        try:
            if kind == "one-euro":
                cutoff, _, beta = values.partition(",")
                made = cls(kind, min_cutoff_hz=float(cutoff or MIN_CUTOFF_HZ), beta=float(beta or BETA))
            elif kind == "average":
                width_s = float(values[:-1]) if values.endswith("s") else int(values) / rate_hz if values else WIDTH_S
                made = cls(kind, width_s=width_s)
            else:
                raise UsageError(f"smoothing {kind!r} is unknown; one-euro[:MIN_CUTOFF_HZ,BETA] or average[:TICKS or SECONDSs]")
            made.stream()
        except ValueError:
            raise UsageError(
                f"smoothing {text!r} is no filter; one-euro:0.5,1 has a cut-off above 0 Hz and a beta of at least 0, average:15 (ticks) or "
                "average:0.5s a width above 0"
            ) from None
        return made

    def __str__(self) -> str:
        return f"one-euro {self.min_cutoff_hz:g} Hz, beta {self.beta:g}" if self.kind == "one-euro" else f"average {self.width_s:.3g} s"

    def stream(self) -> OneEuro | MovingAverage:
        """A filter that has seen nothing yet."""
        return OneEuro(self.min_cutoff_hz, self.beta) if self.kind == "one-euro" else MovingAverage(self.width_s)

    def recording(self, t_ns: NDArray[np.int64], values: ArrayLike, centred: bool = False) -> Rows:
        """The filter over [n, d]; `centred` has an average look ahead (the one-euro filter never does)."""
        if self.kind == "one-euro":
            return one_euro(t_ns, values, self.min_cutoff_hz, self.beta)
        return moving_average(t_ns, values, self.width_s, centred)
