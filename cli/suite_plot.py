"""The suite drawn: weights of sound and face, spread of the weight of the moment, and CCC, each against how much is spoiled.

    write(Path("suite.svg"), report)          # `report` is what `sage-edge evaluate --suite --json` prints; .png too

Columns: sound, face, timing. Hollow: the mask says that the sense is missing. Dotted, at 0.2: what the weight of a spoiled sense should fall below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_edge.runtime.files import atomic_file

from .report import COLOURS, _tidy

ARMS = ("#1d4ed8", "#ea580c", "#15803d", "#6b7280", "#be185d", "#0891b2")
STYLES = (("-", "o"), ((0, (4, 2)), "s"), ((0, (1, 1.5)), "^"), ((0, (5, 1, 1, 1)), "D"))
"""Line and mark of each model, where colours tell the senses apart."""
LOW = 0.2
TITLES = {"audio": "sound spoiled", "visual": "face spoiled", "shift": "sound late (+) or early (\N{MINUS SIGN}), ms"}


@dataclass(frozen=True)
class _Column:
    """The cells of one modality, left to right, "clean" first (for shifts in the middle, at 0 ms)."""

    modality: str
    names: Sequence[str]
    ticks: Sequence[str]
    runs: Sequence[Sequence[int]]
    """Places that a line joins: one kind of corruption, from clean to worst."""
    masked: frozenset[int]


def _columns(cells: Mapping[str, Mapping[str, Any]]) -> list[_Column]:
    found = []
    for modality in TITLES:
        names = [name for name, cell in cells.items() if cell["modality"] == modality]
        if not names:
            continue
        if modality == "shift":
            names = sorted(["clean", *names], key=lambda name: cells[name]["severity"] if name != "clean" else 0.0)
            runs = [list(range(len(names)))]
        else:
            names = ["clean", *names]
            kinds = [_kind(name) for name in names]
            # the first kind of corruption is drawn as a line from clean on, others are marks of their own
            runs = [[i for i, kind in enumerate(kinds) if kind in ("clean", kinds[1])]]
            runs += [[i] for i, kind in enumerate(kinds) if kind not in ("clean", kinds[1])]
        masked = frozenset(i for i, name in enumerate(names) if cells[name]["masked"])
        found.append(_Column(modality, names, [_tick(name, cells[name]) for name in names], runs, masked))
    return found


def _kind(name: str) -> str:
    """A cell's name without its severity; silence is the end of the scale of noise."""
    return "snr" if name == "silence" else name.rstrip("0123456789+-")


def _tick(name: str, cell: Mapping[str, Any]) -> str:
    if name.startswith("snr"):
        return f"{cell['severity']:g} dB"
    if cell["modality"] == "shift":
        return f"{cell['severity']:+g}".replace("-", "\N{MINUS SIGN}")
    if name.startswith("occlusion"):
        return f"{cell['severity']:.0%}\nhidden"
    return {"noface": "no face"}.get(name, name) + ("\n(masked)" if cell["masked"] else "")


def _draw(axes: Any, column: _Column, values: Sequence[float | None], **style: Any) -> None:
    """One curve: a line along each run, a mark at each cell, hollow where a mask says it."""
    colour, label, mark = style["color"], style.pop("label", None), style.pop("marker", "o")
    shown = [math.nan if value is None else value for value in values]
    for number, run in enumerate(column.runs):
        axes.plot(run, [shown[i] for i in run], lw=1.5, marker=mark, ms=4.5, label=label if number == 0 else None, **style)
    for i in column.masked:
        axes.plot([i], [shown[i]], marker=mark, ms=4.5, mfc="white", mec=colour, mew=1.2, lw=0, zorder=5)


def _weights(axes: Any, column: _Column, arms: Mapping[str, Any]) -> None:
    weighing = [label for label, by_cell in arms.items() if by_cell["clean"]["weight_visual"] is not None]
    for label, (line, mark) in zip(weighing, STYLES * len(weighing), strict=False):
        for sense in ("visual", "audio"):
            name = {"visual": "face", "audio": "sound"}[sense] + (f", {label}" if len(weighing) > 1 else "")
            _draw(
                axes, column, [arms[label][cell][f"weight_{sense}"] for cell in column.names], color=COLOURS[sense], ls=line, marker=mark, label=name
            )
    axes.axhline(LOW, color="#9ca3af", lw=1.0, ls=":")
    axes.set_ylim(-0.04, 1.04)


def _lines(key: str, labels: Sequence[str]) -> Any:
    def draw(axes: Any, column: _Column, arms: Mapping[str, Any]) -> None:
        for label, colour in zip(arms, ARMS * len(arms), strict=False):
            if label in labels:
                _draw(axes, column, [arms[label][cell][key] for cell in column.names], color=colour, label=label)

    return draw


def figure(report: Mapping[str, Any]) -> Any:
    """A matplotlib figure; rows without anything to show are left out."""
    from matplotlib.figure import Figure

    arms, columns = report["suite"], _columns(report["cells"])
    rows: list[tuple[str, Any]] = []
    if any(by_cell["clean"]["weight_visual"] is not None for by_cell in arms.values()):
        rows.append(("weight of each sense", _weights))
    # a model without a weight of the moment has it at 1 everywhere
    moments = [label for label, by_cell in arms.items() if any(figures["temporal_spread"] for figures in by_cell.values())]
    if moments:
        rows.append(("spread of the\nweight of the moment", _lines("temporal_spread", moments)))
    rows.append(("CCC, mean of valence\nand arousal", _lines("mean", list(arms))))
    sizes = [len(column.names) for column in columns]
    drawn = Figure(figsize=(12.5, 0.9 + 2.5 * len(rows)), layout="constrained")
    grid = drawn.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False, width_ratios=sizes)
    for row, (name, draw) in enumerate(rows):
        for place, column in enumerate(columns):
            axes = grid[row, place]
            draw(axes, column, arms)
            axes.set_xticks(range(len(column.names)), column.ticks, fontsize=8)
            axes.set_xlim(-0.4, len(column.names) - 0.6)
            axes.tick_params(axis="y", labelsize=8)
            if row == 0:
                axes.set_title(TITLES[column.modality], fontsize=10, loc="left")
            _tidy(axes)
        grid[row, 0].set_ylabel(name, fontsize=9)
        grid[row, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False, handlelength=3)
    drawn.align_ylabels(grid[:, 0])
    title = f"Reliability against corruption: {report['split']} split, overlap, seed {report['seed']}. Hollow: masked. Dotted: {LOW}"
    drawn.suptitle(title, x=0.01, ha="left", fontsize=11)
    return drawn


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Draw into `path` (.svg or .png), whole or not at all; a file that is there is replaced. The same report gives the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "suite"}), atomic_file(path) as work:
        drawn = figure(report)
        drawn.savefig(work, dpi=150, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)
