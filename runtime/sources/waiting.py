"""The frames of a live camera that nobody has taken: the newest one, and those before it that were let wait."""

from __future__ import annotations

from . import CameraCounts, FrameEvent

MOST = 15
"""Frames that wait, at most: half a second of them,"""
MOST_BYTES = 16 << 20
"""and pixels, but for those of a single frame."""


class Waiting:
    """Up to `most` frames wait; the next one takes the place of the newest, which `counts` calls stale. A frame from before `gather_until_ns` is
    quiet: nobody need be told until there are `most`, or one comes that is not. `put` and `take` take turns by a lock of their
    caller's; once there is a frame, whoever takes them sees one at any moment without it."""

    __slots__ = ("_bytes", "_counts", "frames", "gather_until_ns", "most")

    def __init__(self, counts: CameraCounts) -> None:
        self.frames: list[FrameEvent] = []
        self.gather_until_ns, self.most = 0, 1
        self._counts, self._bytes = counts, 0

    def put(self, event: FrameEvent) -> bool:
        """Keep it; whether somebody should be told."""
        frames, size = self.frames, event.pixels.nbytes
        if frames and (len(frames) >= self.most or self._bytes + size > MOST_BYTES):
            self._counts.stale += 1
            self._bytes += size - frames[-1].pixels.nbytes
            frames[-1] = event  # never gone before the next is there: who waits looks without a lock
        else:
            self._bytes += size
            frames.append(event)
        return event.t_ns >= self.gather_until_ns or len(frames) >= self.most or self._bytes + size > MOST_BYTES  # as `enough`

    def enough(self) -> bool:
        """Whether there are frames that need not wait for another."""
        frames = self.frames
        if not frames:
            return False
        newest = frames[-1]
        return newest.t_ns >= self.gather_until_ns or len(frames) >= self.most or self._bytes + newest.pixels.nbytes > MOST_BYTES

    def take(self) -> list[FrameEvent]:
        """What waits, oldest first."""
        taken, self.frames, self._bytes = self.frames, [], 0
        return taken
