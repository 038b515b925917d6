"""The frames of a live camera that nobody has taken: the newest one, and those before it that were let wait."""

from __future__ import annotations

from . import CameraCounts, FrameEvent

MOST = 15
"""Frames that wait, at most: half a second of them,"""
MOST_BYTES = 16 << 20
"""and pixels, but for those of a single frame."""


class Waiting:
    """A frame from before `gather_until_ns` is quiet: nobody need be told until there are `most`, or one comes that is not. Once somebody was, the
    next one takes the place of the newest, which `counts` calls stale. Not thread-safe."""

    __slots__ = ("_bytes", "_counts", "_told", "frames", "gather_until_ns", "most")

    def __init__(self, counts: CameraCounts) -> None:
        self.frames: list[FrameEvent] = []
        self.gather_until_ns, self.most = 0, 1
        self._counts, self._bytes, self._told = counts, 0, False

    def put(self, event: FrameEvent) -> bool:
        """Keep it; whether somebody should be told."""
        frames = self.frames
        if self._told:
            self._counts.stale += 1
            frames[-1] = event
            return True
        frames.append(event)
        size = event.pixels.nbytes
        self._bytes += size
        self._told = event.t_ns >= self.gather_until_ns or len(frames) >= self.most or self._bytes + size > MOST_BYTES
        return self._told

    def take(self) -> list[FrameEvent]:
        """What waits, oldest first."""
        taken, self.frames, self._bytes, self._told = self.frames, [], 0, False
        return taken
