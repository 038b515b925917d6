"""Is a camera still a camera: no new frame for too long, the same picture again and again, nothing but black, another size.

A pure state machine: it is told what came and when, and says what to do; it has no clock and no thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ticks import NS_PER_S

_LOOK_NS = 200_000_000  # frames that follow closer are not looked at, but for their size
_GLANCE = 256  # bytes from the middle that are compared first: a whole picture only when those are the same
_LINES, _LINE = 32, 64  # what is black there is black when so many stretches of so many bytes all over the picture are
_BLACK_RGB, _BLACK_LUMA = 12, 28  # levels, of 255; luma of limited range begins at 16
_STILL = 30  # times the patience with a picture that opening again has not changed: a scene in which nothing moves looks like that, too
_PERIOD_SHARE = 0.1  # of one interval in the running mean


@dataclass(frozen=True)
class Limits:
    """When a camera counts as stalled, and how soon it is opened again; in seconds."""

    stall_s: float = 2.0
    """Without a new frame; at least `stall_periods` of its own frame periods, and `first_s` until those are known."""
    stall_periods: int = 10
    frozen_s: float = 2.0
    """With the very same picture, unless it is black."""
    black_s: float = 2.0
    """With nothing but black before somebody is told."""
    first_s: float = 10.0
    """To open it and get the first frame."""
    retry_s: float = 0.5
    """Before it is opened again, doubling up to `retry_most_s`."""
    retry_most_s: float = 10.0


class Watch:
    """Watches one camera over all its openings."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.news: list[str] = []
        """What `changes` will say."""
        self._shape: tuple[int, ...] | None = None
        self._size: tuple[int, int] | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._glance = b""
        self._black = False
        self._new = True
        self._still = False
        self._looked_ns = self._unseen = 0  # frames since
        self._period_s = 0.0  # not known
        self.opened(0, None)

    def opened(self, t_ns: int, rate_hz: float | None) -> None:
        """It is open since `t_ns`; `rate_hz` is what was granted, None where that is not known. The last picture stays known, as does its period
        where none is granted."""
        self._period_s = 1 / rate_hz if rate_hz else self._period_s
        self._frame_ns: int | None = None
        self._opened_ns = self._new_ns = self._lit_ns = t_ns

    def frame(self, t_ns: int, pixels: NDArray[np.uint8], format: str) -> bool:
        """A frame came: is it another picture than the last one looked at, or black? Also the first of an opening is compared with the last one
        of the opening before; later ones are looked at five times a second.

        `pixels` uint8 in `format` as in `FrameEvent`; they are kept until the next frame and must stay as they are.
        """
        if pixels.shape != self._shape:
            self._note_size(pixels, format)
        first, self._frame_ns = self._frame_ns is None, t_ns
        self._unseen += 1
        if first:
            self._new_ns = self._lit_ns = t_ns
        elif t_ns - self._looked_ns < _LOOK_NS:
            if not self._period_s:
                self._period_s = (t_ns - self._looked_ns) / NS_PER_S
            return self._new
        else:
            interval_s = (t_ns - self._looked_ns) / self._unseen / NS_PER_S
            self._period_s += (min(1.0, _PERIOD_SHARE * self._unseen) if self._period_s else 1.0) * (interval_s - self._period_s)
        self._look(t_ns, pixels, format, first)
        return self._new

    def _look(self, t_ns: int, pixels: NDArray[np.uint8], format: str, first: bool) -> None:
        self._looked_ns, self._unseen = t_ns, 0
        flat = pixels.reshape(-1)
        middle = flat.size // 2 & ~3
        glance = flat[middle : middle + _GLANCE].tobytes()
        black = _dark(glance, format) and _dark(_all_over(flat, format), format)
        before = self._pixels
        self._new = black or before is None or glance != self._glance or pixels.shape != before.shape or not np.array_equal(pixels, before)
        self._still = not self._new and (first or self._still)
        if self._new:
            self._new_ns = t_ns
        self._pixels, self._glance = pixels, glance
        self._note_black(t_ns, black)

    def overdue(self, t_ns: int) -> str | None:
        """Why it should be opened again at `t_ns`; None while all is well."""
        limits = self.limits
        if self._frame_ns is None:
            silent_s = (t_ns - self._opened_ns) / NS_PER_S
            return f"gave no frame in {silent_s:.1f} s" if silent_s > limits.first_s else None
        silent_s = (t_ns - self._frame_ns) / NS_PER_S
        if silent_s > max(limits.stall_s, limits.stall_periods * self._period_s if self._period_s else limits.first_s):
            return f"gave no frame for {silent_s:.1f} s"
        same_s = (self._frame_ns - self._new_ns) / NS_PER_S
        if same_s > max(limits.frozen_s * (_STILL if self._still else 1), limits.stall_periods * self._period_s):
            return f"gave the same picture for {same_s:.1f} s"
        return None

    def changes(self) -> list[str]:
        """What somebody should be told since the last call: another size, black, light again."""
        changes, self.news = self.news, []
        return changes

    def _note_size(self, pixels: NDArray[np.uint8], format: str) -> None:
        self._shape = pixels.shape
        height, width = (pixels.shape[0] * 2 // 3 if format == "nv12" else pixels.shape[0]), pixels.shape[1]
        if self._size is not None and self._size != (width, height):
            self.news.append(f"its pictures are {width} x {height} now, were {self._size[0]} x {self._size[1]}")
        self._size = width, height

    def _note_black(self, t_ns: int, black: bool) -> None:
        if not black:
            self._lit_ns = t_ns
            if self._black:
                self.news.append("gives pictures again")
            self._black = False
        elif not self._black and (t_ns - self._lit_ns) / NS_PER_S > self.limits.black_s:
            self._black = True
            self.news.append("gives nothing but black; is its lens covered?")


def _dark(sample: bytes, format: str) -> bool:
    """Whether all of these bytes, which begin with a whole pixel where its luma lies apart, are black."""
    luma = sample[::2] if format == "yuyv" else sample
    most = _BLACK_RGB if format in ("rgb", "bgr") else _BLACK_LUMA
    return bool(luma) and luma[0] <= most and max(luma) <= most


def _all_over(flat: NDArray[np.uint8], format: str) -> bytes:
    """Some bytes from all over a picture, of nv12's luma alone."""
    size = flat.size * 2 // 3 if format == "nv12" else flat.size
    step = size // _LINES & ~1
    start = step // 3 & ~1
    return flat[: _LINES * step].reshape(_LINES, step)[:, start : start + _LINE].tobytes()
