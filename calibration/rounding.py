"""What 8 bits cost a tensor, from its histogram: squared errors of rounding and clipping, and the range that costs least.

Both emitters are counted, for they share one range (low, high) per tensor: uint8, asymmetric (step (high - low) / 255 over a range that takes
in zero, zero point rounded), and int8, symmetric (step max(|low|, |high|) / 127, levels -128 .. 127). Values are taken to be uniform within a bin,
which makes the squared error an exact sum; the `loss` of a range is the mean of both errors in dB (10 log10), so that neither counts
more for having the wider step. Least squared error as the aim: Nagel et al., arXiv 2106.08295, section 3.1; Choukroun et al., arXiv 1902.06822.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .observe import Histogram

Floats = NDArray[np.float64]
_STEPS = 32


def errors(histogram: Histogram, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Mean squared error of uint8 and of int8 for each of the ranges `low`, `high` [k]: two arrays [k], in the tensor's unit squared."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    step = np.maximum((high - low) / 255, np.finfo(np.float32).tiny)
    zero = np.rint(-low / step)
    wide = np.maximum(np.maximum(-low, high) / 127, np.finfo(np.float32).tiny)
    return _error(histogram, step, -zero * step, (255 - zero) * step), _error(histogram, wide, -128 * wide, 127 * wide)


def loss(histogram: Histogram, low: Floats, high: Floats) -> Floats:
    """Mean of both errors of each range in dB, [k]; 6 dB less is one bit more."""
    unsigned, signed = errors(histogram, low, high)
    return 5 * (np.log10(unsigned) + np.log10(signed))


def least(histogram: Histogram) -> tuple[float, float]:
    """The range of least `loss`, found on a grid: both ends drawn in together, then each alone, then each alone in smaller steps.

    Never worse than the whole span, which is where it starts.
    """
    shares = np.linspace(1, 1 / _STEPS, _STEPS)
    low, high = _best(histogram, _drawn(histogram.low, shares, -1), _drawn(histogram.high, shares, 1))
    for width in (1.0, 0.1, 0.1):
        shares = np.concatenate([[1.0], np.linspace(max(1 - width, 1 / _STEPS), 1 + width, _STEPS)])
        low, high = _best(histogram, np.full(len(shares), low), np.minimum(_drawn(high, shares, 1), histogram.high))
        low, high = _best(histogram, np.maximum(_drawn(low, shares, -1), histogram.low), np.full(len(shares), high))
    return low, high


def _drawn(end: float, shares: Floats, side: int) -> Floats:
    """`end` times `shares` where it lies on its `side` (-1 or 1) of zero; an end on the other side bounds nothing and stays."""
    return end * shares if end * side > 0 else np.full(len(shares), end)


def _best(histogram: Histogram, low: Floats, high: Floats) -> tuple[float, float]:
    """The first of the ranges whose loss is least."""
    at = int(np.argmin(loss(histogram, low, high)))
    return float(low[at]), float(high[at])


def _error(histogram: Histogram, step: Floats, low: Floats, high: Floats) -> Floats:
    """Mean squared error of rounding to multiples of `step` within low .. high, [k]."""
    edges, step, low, high = histogram.edges[None, :], step[:, None], low[:, None], high[:, None]
    # The integral of the squared error from 0 to each edge: step^3 / 12 for each whole step, a cube for what is left and what is beyond the range.
    inside = np.clip(edges, low, high)
    steps = inside / step
    whole = np.rint(steps)
    integral = step**3 * (whole / 12 + (steps - whole) ** 3 / 3) + (edges - inside) ** 3 / 3
    width = histogram.edges[1] - histogram.edges[0]
    density = histogram.counts / (width * histogram.counts.sum())
    total: Floats = np.maximum(np.diff(integral, axis=1) @ density, np.finfo(np.float64).tiny)
    return total
