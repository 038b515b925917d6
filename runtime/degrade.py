"""Doing less on purpose while the machine is overloaded or hot, and more again when it is not: a state machine without a clock of its own.

It is told of every estimate how late it was, and of the temperature now and then; `step` says what changes. Late beyond the budget, again and
again for `LATE_S`, or at a thermal zone's limit: one level down in work, first the rate of faces, then the hop. On time and `COOLER_C` below the
limit for a while: one level back. The while begins at `PATIENCE_S` and doubles, up to `MOST_PATIENCE_S`, each time a level that was given back
did not hold; so a machine that is just too slow does not swing.
"""

from __future__ import annotations

from dataclasses import dataclass

from .thermal import Heat
from .ticks import NS_PER_S

LATE_S = 3
LATE_HOPS = 3
"""Late for `LATE_S` and for this many hops, whichever is longer."""
FREE_S, FREE_HOPS = 1, 2
"""The lateness is over when nothing was late for `FREE_S` and for this many hops: of two estimates in a turn, the second is always the fresher."""
HOT_S = 10
"""Between two levels down for heat: silicon cools in seconds, a case in minutes."""
COOLER_C = 5.0
PATIENCE_S = 30
MOST_PATIENCE_S = 480


@dataclass(frozen=True)
class Level:
    """At most one frame in `face_every` ticks is read; a hop is `hop` ticks."""

    face_every: int
    hop: int


@dataclass(frozen=True)
class Change:
    """`level` is what to do from now on, `why` "overloaded", "hot" or None (as asked for); `detail` is a line for people."""

    level: Level
    why: str | None
    worse: bool
    detail: str


def levels(hop: int, window: int, has_camera: bool) -> tuple[Level, ...]:
    """From all that was asked for down to the least, for a hop of `hop` ticks that may not exceed the window."""
    faces = (1, 2, 3) if has_camera else (1,)
    hops = tuple(dict.fromkeys(min(hop * times, window) for times in (1, 2, 4)))
    return (*(Level(every, hop) for every in faces), *(Level(faces[-1], ticks) for ticks in hops[1:]))


class Degrader:
    """`plan` is `levels(...)`; `rate_hz` is that of ticks; an estimate may be `budget_ms` late. Every time is in ns of one clock."""

    def __init__(self, plan: tuple[Level, ...], rate_hz: int, budget_ms: float) -> None:
        self._plan, self._rate_hz, self._budget_ms = plan, rate_hz, budget_ms
        self._at = 0
        self.why: str | None = None
        """Why less is done than was asked for; None while it is not."""
        self._late_ms = 0.0
        self._late_since_ns: int | None = None
        self._late_at_ns = 0
        self._calm_since_ns: int | None = None
        self._heat: Heat | None = None
        self._changed_ns: int | None = None
        self._gave_back = False
        self._patience_s = PATIENCE_S

    @property
    def level(self) -> Level:
        """What is done now."""
        return self._plan[self._at]

    def late(self, now_ns: int, late_ms: float) -> None:
        """The newest estimate is, or the next one will be at best, `late_ms` late."""
        if late_ms > self._budget_ms:
            self._late_ms, self._late_at_ns = late_ms, now_ns
            if self._late_since_ns is None:
                self._late_since_ns = now_ns

    def heat(self, heat: Heat | None) -> None:
        """What the thermometer says; None where there is none."""
        self._heat = heat

    def forget(self, now_ns: int) -> None:
        """Time has jumped to `now_ns`: what was late then says nothing."""
        self._late_since_ns = self._calm_since_ns = None
        self._changed_ns = now_ns

    def step(self, now_ns: int) -> Change | None:
        """What changes at `now_ns`, None when nothing does."""
        hop_s = self.level.hop / self._rate_hz
        if self._since(self._late_at_ns, now_ns) > max(FREE_S, FREE_HOPS * hop_s):
            self._late_since_ns = None
        hot = self._heat is not None and self._heat.room <= 0
        late = self._late_since_ns is not None
        if hot and self._since(self._changed_ns, now_ns) >= HOT_S:
            return self._down(now_ns, "hot")
        if late and self._since(self._late_since_ns, now_ns) >= max(LATE_S, LATE_HOPS * hop_s):
            return self._down(now_ns, "overloaded")
        cool = self._heat is None or self._heat.room >= COOLER_C
        if late or hot or (self.why == "hot" and not cool):
            self._calm_since_ns = None
        elif self._calm_since_ns is None:
            self._calm_since_ns = now_ns
        elif self._at and self._since(self._calm_since_ns, now_ns) >= self._patience_s:
            return self._up(now_ns)
        return None

    def _since(self, then_ns: int | None, now_ns: int) -> float:
        return float("inf") if then_ns is None else (now_ns - then_ns) / NS_PER_S

    def _down(self, now_ns: int, why: str) -> Change | None:
        if self._at + 1 == len(self._plan):
            return None
        relapse = self._gave_back and self._since(self._changed_ns, now_ns) < self._patience_s
        self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S) if relapse else PATIENCE_S
        heat = self._heat
        if why == "hot" and heat is not None:
            cause = f"{heat.zone} is at {heat.celsius:.0f} C, its limit is {heat.limit:.0f} C"
        else:
            cause = f"estimates are {self._late_ms:.0f} ms late, the budget is {self._budget_ms:.0f} ms"
        return self._go(now_ns, self._at + 1, why, cause)

    def _up(self, now_ns: int) -> Change:
        cause = f"{'cool enough' if self.why == 'hot' else 'on time'} for {self._patience_s} s"
        return self._go(now_ns, self._at - 1, self.why if self._at > 1 else None, cause)

    def _go(self, now_ns: int, at: int, why: str | None, cause: str) -> Change:
        worse = at > self._at
        self._at, self.why, self._gave_back, self._changed_ns = at, why, not worse, now_ns
        self._late_since_ns = self._calm_since_ns = None
        level = self.level
        frames = "every frame" if level.face_every == 1 else f"one frame in {level.face_every} ticks"
        return Change(level, why, worse, f"{cause}; now {frames} and a hop of {level.hop} ticks")
