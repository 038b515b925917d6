"""The frames of a live camera that nobody has taken: the newest one, and those before it that were let wait."""

from __future__ import annotations

from . import CameraCounts, FrameEvent

MOST = 3
"""Frames that wait, at most."""


class Waiting:
    """A frame from before `gather_until_ns` is quiet: nobody need be told until there are `MOST`, or one comes that is not. Once somebody was, the
    next one takes the place of the newest, which `counts` calls stale. Not thread-safe."""

    __slots__ = ("_counts", "_quiet", "frames", "gather_until_ns")

    def __init__(self, counts: CameraCounts) -> None:
        self.frames: list[FrameEvent] = []
        self.gather_until_ns = 0
        self._counts = counts
        self._quiet = True

    def put(self, event: FrameEvent) -> bool:
        """Keep it; whether somebody should be told."""
        frames = self.frames
        if self._quiet:
            frames.append(event)
            self._quiet = event.t_ns < self.gather_until_ns and len(frames) < MOST
        else:
            self._counts.stale += 1
            frames[-1] = event
        return not self._quiet

    def take(self) -> list[FrameEvent]:
        """What waits, oldest first."""
        taken, self.frames, self._quiet = self.frames, [], True
        return taken
