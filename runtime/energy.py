"""What a bundle costs in watts and joules at the speed of a live run, and whether the machine was slowed down: asked of a meter that the caller has.

    profile(path, meter=sage_edge.jetson.meter.open_meter())

Each precision has the machine to itself for some seconds, twice, in turns: power monitors average, so turns of milliseconds would mix them.
The frames and the sound of one hop come again and again in real time; decoding a video or a camera's pictures is not in it. What the machine draws
while this process only waits is measured first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .progress import Progress
from .sources import AudioEvent, Event, FrameEvent
from .ticks import NS_PER_S, SAMPLE_RATE_HZ

IDLE_S = 3.0
SETTLE_S = 1.0
STRETCH_S = 4.0
ROUNDS = 2
_CHUNKS_HZ = 10


@dataclass(frozen=True)
class Drawn:
    """Mean watts over `seconds`: of the whole, and of each rail by its label."""

    seconds: float
    watts: float
    rails: dict[str, float]


class Meter(Protocol):
    """What knows the power that this machine draws."""

    source: str
    """What `Drawn.watts` is: the name of the rail that all hangs on, or of those whose sum it is."""

    def begin(self) -> None:
        """Measure from now on."""

    def end(self) -> Drawn:
        """What was drawn since `begin`."""

    def look(self) -> None:
        """Note clocks and heat, and what slows the machine down; a few ms once a second, nothing otherwise."""

    def slowed(self) -> dict[str, Any]:
        """What was seen since the meter was made, in JSON types; "throttled" says whether anything slowed the machine down."""


class Player(Protocol):
    """What takes events and counts its estimates."""

    estimates: int

    def take(self, block: Sequence[tuple[Event, int]]) -> None:
        """Take events, each with the ns that it took to get it."""


@dataclass(frozen=True)
class Energy:
    """One precision at the speed of a live run; what is above idle is what the work itself costs."""

    seconds: float
    estimates: int
    watts: float
    rails: dict[str, float]
    joules_per_estimate: float
    joules_above_idle: float

    @staticmethod
    def of(stretches: Sequence[tuple[Drawn, int]], at_rest: Drawn) -> Energy:
        """Of stretches of time, each with what was drawn and how many estimates came."""
        seconds, estimates = sum(drawn.seconds for drawn, _ in stretches), sum(count for _, count in stretches)
        shares = [drawn.seconds / seconds if seconds else 1 / len(stretches) for drawn, _ in stretches]
        watts = sum(drawn.watts * share for (drawn, _), share in zip(stretches, shares, strict=True))
        rails = {
            label: sum(drawn.rails[label] * share for (drawn, _), share in zip(stretches, shares, strict=True)) for label in stretches[0][0].rails
        }
        per_estimate_s = seconds / max(1, estimates)
        return Energy(seconds, estimates, watts, rails, watts * per_estimate_s, (watts - at_rest.watts) * per_estimate_s)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "seconds": round(self.seconds, 2),
            "estimates": self.estimates,
            "watts": round(self.watts, 3),
            "rails": {label: round(watts, 3) for label, watts in self.rails.items()},
            "joules_per_estimate": round(self.joules_per_estimate, 4),
            "joules_above_idle": round(self.joules_above_idle, 4),
        }


def idle(meter: Meter) -> Drawn:
    """What is drawn while this process waits."""
    meter.begin()
    time.sleep(IDLE_S)
    return meter.end()


def measure(
    meter: Meter, players: dict[str, Player], block: Sequence[Event], start_ns: int, block_ns: int, at_rest: Drawn, progress: bool = True
) -> dict[str, Energy]:
    """The energy of every player with `block`, the events of the hop of `block_ns` from `start_ns` on, the last that each of them has had."""
    again = {name: _again(block, start_ns, block_ns) for name in players}
    hops = math.ceil(STRETCH_S * NS_PER_S / block_ns)
    stretches: dict[str, list[tuple[Drawn, int]]] = {name: [] for name in players}
    with Progress("power", ROUNDS * len(players), "stretches", shown=progress) as bar:
        for name, player in [*players.items()] * ROUNDS:
            _play(meter, player, again[name], math.ceil(SETTLE_S * NS_PER_S / block_ns), block_ns)
            before = player.estimates
            meter.begin()
            _play(meter, player, again[name], hops, block_ns)
            stretches[name].append((meter.end(), player.estimates - before))
            bar.step()
    return {name: Energy.of(each, at_rest) for name, each in stretches.items()}


def _play(meter: Meter, player: Player, again: Iterator[list[Event]], hops: int, hop_ns: int) -> None:
    """Hand on so many hops, each event when it is due."""
    began_ns = time.perf_counter_ns()
    for hop in range(hops):
        events = next(again)
        for event in events:
            _sleep_until(began_ns + hop * hop_ns + event.t_ns - events[0].t_ns)
            player.take([(event, 0)])
        meter.look()
    _sleep_until(began_ns + hops * hop_ns)


def _sleep_until(due_ns: int) -> None:
    if (early_ns := due_ns - time.perf_counter_ns()) > 0:
        time.sleep(early_ns / NS_PER_S)


def _again(block: Sequence[Event], start_ns: int, block_ns: int) -> Iterator[list[Event]]:
    """The block after itself, and again, without an end: its frames, its sound in even pieces, at stamps that go on."""
    frames = [event for event in block if isinstance(event, FrameEvent)]
    sound = [event.samples for event in block if isinstance(event, AudioEvent)]
    begin_ns = start_ns
    while True:
        begin_ns += block_ns
        events: list[Event] = [FrameEvent(begin_ns + event.t_ns - start_ns, event.pixels, event.format) for event in frames]
        if sound:
            first, last = (round(at_ns * SAMPLE_RATE_HZ / NS_PER_S) for at_ns in (begin_ns, begin_ns + block_ns))
            pieces = np.array_split(np.resize(np.concatenate(sound), last - first), math.ceil(block_ns * _CHUNKS_HZ / NS_PER_S))
            for piece in pieces:
                events.append(AudioEvent(round(first * NS_PER_S / SAMPLE_RATE_HZ), piece))
                first += len(piece)
        yield sorted(events, key=lambda event: event.t_ns)
