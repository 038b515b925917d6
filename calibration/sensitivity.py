"""How much each group of weights suffers from 8 bits, and how much time it gains by them: one row per group, the worst first.

For every group: the quality of the mix that leaves it float among INT8, the quality of the mix that has it alone in INT8, and the time it saves.
The rank is by what the group does alone to the estimates of the whole chain. That is the clean measure: among others in INT8 one broken group
drowns what the rest do, and CCC itself moves both ways when errors are small.
"""

from __future__ import annotations

from dataclasses import dataclass

from sage_edge.runtime.progress import Progress

from .mixes import Bench, Gain, Quality

SURE = 0.8
"""Share of the rounds in which a group must be faster in INT8 for its gain to count: of seven rounds six, of twelve ten."""


@dataclass(frozen=True)
class Row:
    """One group."""

    group: str
    graph: str
    left_float: Quality
    """It in float, all others in INT8."""
    alone_int8: Quality
    """It in INT8, all others in float."""
    gain_alone: Gain | None
    """What INT8 saves when all others are float; None where no time was measured."""
    gain_company: Gain | None
    """What INT8 saves when all others are INT8: no Q/DQ at its borders."""

    @property
    def harm(self) -> float:
        """Mean square of what the estimates differ by when this group alone is in INT8."""
        return self.alone_int8.estimates_error

    @property
    def gain_ms(self) -> float:
        """Milliseconds per hop that INT8 saves, in company or alone, where it saves any with certainty; else 0.

        1 where no time was measured: every group is worth the same.
        """
        gains = [gain for gain in (self.gain_alone, self.gain_company) if gain is not None]
        if not gains:
            return 1.0
        return max((gain.ms for gain in gains if gain.ms > 0 and gain.faster >= SURE), default=0.0)


@dataclass(frozen=True)
class Table:
    """Rows, the worst group first, and the two ends they lie between."""

    rows: tuple[Row, ...]
    all_int8: Quality
    float_ms: dict[str, float]
    """graph -> milliseconds per hop; empty where no time was measured."""


def sweep(bench: Bench, progress: bool = True) -> Table:
    """Measure every group of `bench`."""
    # A mix runs its graph and the fusion anew; the timing costs what it costs for any group.
    weight = {graph: 1.0 + 2 * (bench.seconds[graph] + 2 * bench.seconds["fusion"]) for graph in bench.groups}
    total_s = sum(weight[graph] * len(names) for graph, names in bench.groups.items())
    rows, done_s = [], 0.0
    with Progress("sensitivity", 100, "%", shown=progress) as bar:
        all_int8 = bench.quality(())
        for graph, names in bench.groups.items():
            for group in names:
                left_float, alone_int8 = bench.quality({group}), bench.quality(bench.every - {group})
                rows.append(Row(group, graph, left_float, alone_int8, *bench.gains(graph, group)))
                done_s += weight[graph]
                bar.step(int(100 * done_s / total_s) - bar.done, note=group)
    return Table(tuple(sorted(rows, key=lambda row: (-row.harm, row.group))), all_int8, bench.float_ms)
