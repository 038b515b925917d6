"""How many frames of a live camera may wait, and until when. To wake up costs a loop that sleeps most of the time as much as all it does with one.

What takes long is worked off before the hop is near, so that no estimate is late for it. So it must be known what frames take: the dearest of the
last second counts, as what was cheap may have had nothing to do.
"""

from __future__ import annotations

from typing import NamedTuple

from .sources import waiting
from .ticks import NS_PER_S

NEAR_TICKS = 1
"""A hop is near when its newest tick can be over, and sound of that here, this soon."""
GATHERED_NS = 50_000_000
"""What was gathered is worked off within this. Frames that come meanwhile wait, too: nothing is lost for it, and nothing is later by more than
`SOON_NS` but where stamps jitter."""
SOON_NS = 5_000_000
"""What takes no longer than this is worked off when the hop is near, without a wake-up of its own before."""
FEWEST = 5
"""Where fewer frames than these could be gathered, each is taken as it comes,"""
SPARE = 2
"""and where frames come in less than this many times what one takes,"""
SELDOM = 1.1
"""or lie further apart than so many ticks."""
OFTEN = 0.75
"""Where they lie closer than so many, the next one comes soon enough after any sound."""
LATELY_NS = NS_PER_S
JITTER_NS = 3_000_000
"""A stamp may be so much later than those before it let expect."""
FEW = 2
"""So many frames, or fewer, wait for the hop itself."""


class Dearest:
    """The most that something took lately; `ns` as long as nobody knows."""

    __slots__ = ("_at_ns", "_lately_ns", "ns")

    def __init__(self, ns: int, now_ns: int, lately_ns: int = LATELY_NS) -> None:
        self.ns, self._at_ns, self._lately_ns = ns, now_ns, lately_ns

    def add(self, ns: int, now_ns: int) -> None:
        """It took so long now."""
        if ns >= self.ns or now_ns - self._at_ns >= self._lately_ns:
            self.ns, self._at_ns = ns, now_ns


class Last(NamedTuple):
    """How the frames before a hop are waited for."""

    at_ns: int
    """When it can be decided,"""
    stamp_ns: int
    """by a frame with this stamp or a later one at the latest: those before can wait for it. 0 where that would make the hop later."""
    frame_ns: int
    """When that one comes."""
    frames: int
    """How many will wait when the hop can be decided."""


class Gathering:
    """What is known of one camera's frames, and of the loop that takes them; None is gathered until there is. Times are ns of the loop's clock."""

    def __init__(self, rate_hz: int, now_ns: int) -> None:
        self._tick_ns = NS_PER_S // rate_hz
        self.behind_ns = 0
        """How far behind its stamp the newest frame was taken: so much later than its stamp one comes."""
        self.face_ns = GATHERED_NS
        """What a frame with a face took, when there was one."""
        self._apart_ns = 0
        self.restart(now_ns)

    def restart(self, now_ns: int) -> None:
        """After a jump of the clock, nothing is known of what frames take."""
        self._frame, self._turn = Dearest(GATHERED_NS, now_ns), Dearest(0, now_ns)
        self._many_ns = now_ns - 2 * LATELY_NS

    def came(self, apart_ns: int, behind_ns: int | None) -> None:
        """Frames were taken, which lay this far apart at least; the newest when it came, or None where it was let wait."""
        self._apart_ns = apart_ns
        if behind_ns is not None:
            self.behind_ns = behind_ns

    def took(self, frames: int, frames_ns: int, rest_ns: int, now_ns: int) -> None:
        """A turn in which `frames` were looked at: for that, and for all else. Few take longer each than many, and say nothing beside those."""
        if frames >= FEWEST:
            self._many_ns = now_ns
        if frames >= FEWEST or (frames and now_ns - self._many_ns >= 2 * LATELY_NS):
            self._frame.add(frames_ns // frames, now_ns)
        self._turn.add(rest_ns, now_ns)

    @property
    def _cost_ns(self) -> int:
        return max(1, self._frame.ns, self.face_ns)

    def most(self) -> int:
        """How many frames may wait: one, the newest, where there is no time to spare."""
        cost_ns, apart_ns = self._cost_ns, self._apart_ns
        if apart_ns < SPARE * cost_ns or apart_ns > SELDOM * self._tick_ns:
            return 1
        most = (GATHERED_NS - self._turn.ns) // cost_ns
        return min(most, waiting.MOST) if most >= FEWEST else 1

    def until_ns(self, hop_ns: int, most: int, now_ns: int) -> int:
        """When a hop at `hop_ns` will be near, and what was gathered by then, up to `most` frames, has to be worked off. May be over."""
        cost_ns, apart_ns, rest_ns = self._cost_ns, self._apart_ns, self._turn.ns
        near_ns = hop_ns - NEAR_TICKS * self._tick_ns
        if rest_ns + min(most, (near_ns - now_ns) // apart_ns + 1) * cost_ns <= SOON_NS:
            return near_ns
        near_ns -= rest_ns + cost_ns  # one more, as the frame that ends it comes when it comes
        return max(near_ns - most * cost_ns, now_ns + (near_ns - now_ns) * apart_ns // (apart_ns + cost_ns))

    def last(self, due_ns: int, early_ns: int, sound_ns: int, newest_ns: int) -> Last:
        """What a near hop waits for: it needs a frame from `due_ns` on, and sound, which was never here before `early_ns` and is at `sound_ns`."""
        apart_ns = max(1, self._apart_ns)

        def comes_ns(stamp_ns: int) -> int:
            return newest_ns + max(0, -((newest_ns - stamp_ns) // apart_ns)) * apart_ns + self.behind_ns

        stamp_ns = max(due_ns, early_ns - self.behind_ns)
        frame_ns = comes_ns(stamp_ns)
        at_ns = sound_ns if comes_ns(due_ns - JITTER_NS) <= sound_ns < frame_ns else frame_ns
        frames, cost_ns = (at_ns - self.behind_ns - newest_ns) // apart_ns, self._cost_ns
        often = apart_ns < OFTEN * self._tick_ns
        together = not often and cost_ns <= SOON_NS and (frames - 1) * cost_ns <= frame_ns - at_ns
        return Last(at_ns, stamp_ns if together else 0, frame_ns, frames)
