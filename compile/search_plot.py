"""A search over precisions drawn: one line per group, the worst first, with what it costs in 8 bits and what it saves.

    plot(ranges.search, Path("ranges.svg"))          # what `Search.to_dict` gave; .png too

Panels: decibels that the graph's output gains when the group alone stays in float; CCC that the group alone costs in INT8, the worse of
valence and arousal; milliseconds per hop that INT8 saves, in company of others in INT8 and alone, where time was measured. A hollow bar is a
group that the chosen mix leaves in float.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import atomic_file

COLOURS = {"visual": "#0f766e", "audio": "#9333ea", "fusion": "#1d4ed8"}
SUFFIXES = (".svg", ".png")
ALLOWED = "#b91c1c"
_LINE, _FRAME = 0.235, 1.75
"""Inches: height of one group, and of all that is not groups."""


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw into `path` (.svg or .png), whole or not at all; a file that is there is replaced. The same search gives the same bytes."""
    check_plot(path)
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "search"}), atomic_file(path) as work:
        figure(found).savefig(work, dpi=130, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)


def check_plot(path: Path) -> None:
    """UsageError where nothing can be drawn into `path`; loads nothing, so it can come before the work."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} ends in {path.suffix or 'nothing'}; a plot is {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"{path.name} is drawn with matplotlib, which is not installed; pip install matplotlib")


def figure(found: Mapping[str, Any]) -> Any:
    """A matplotlib figure on a canvas of its own."""
    from matplotlib.figure import Figure

    rows = found["rows"]
    drawn = Figure(figsize=(12.5, _FRAME + _LINE * max(len(rows), 5)), layout="constrained")
    timed = bool(found["float_hop_ms"])
    decibels, ccc, *times = panels = drawn.subplots(1, 3 if timed else 2, sharey=True)
    _bars(decibels, found, [_gained_db(found, row) for row in rows], "+.1f")
    decibels.set_title("signal to noise gained in float, dB", fontsize=10, loc="left")
    _bars(ccc, found, [max(row["alone_int8"]["drop"].values()) for row in rows], "+.4f")
    ccc.set_title("CCC lost alone in INT8", fontsize=10, loc="left")
    if found["max_drop"] < ccc.get_xlim()[1]:
        ccc.axvline(found["max_drop"], color=ALLOWED, lw=1.0, ls=":")
        ccc.annotate(
            "allowed",
            (found["max_drop"], 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7.5,
            color=ALLOWED,
        )
    for time in times:
        alone = [row["gain_alone"]["ms"] for row in rows]
        _bars(time, found, [row["gain_company"]["ms"] for row in rows], "+.2f", alone)
        time.plot(alone, range(len(rows)), "|", color="#111827", ms=8, mew=1.6)
        time.set_title("saved by INT8, ms per hop", fontsize=10, loc="left")
    decibels.set_yticks(range(len(rows)), [row["group"] for row in rows], fontsize=8.5)
    decibels.set_ylim(len(rows) - 0.4, -0.6)
    for axes in panels:
        axes.axvline(0, color="#374151", lw=0.8)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e5e7eb", lw=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    drawn.legend(handles=_legend(timed), loc="outside lower left", ncols=6, fontsize=8.5, frameon=False)
    drawn.suptitle(_title(found), x=0.01, ha="left", fontsize=11)
    return drawn


def _bars(axes: Any, found: Mapping[str, Any], values: Sequence[float | None], form: str, marks: Sequence[float] = ()) -> None:
    """A bar of each of `values` with its figure behind it, and behind the mark that will be there; None is more than any bar can show."""
    for place, (row, value) in enumerate(zip(found["rows"], values, strict=True)):
        colour = COLOURS[row["graph"]]
        left = row["group"] in found["float_groups"]
        axes.barh(place, value or 0.0, height=0.66, color="white" if left else colour, edgecolor=colour, lw=1.0)
        end = max(value or 0.0, *marks[place : place + 1], 0.0)
        text = "exact" if value is None else f"{value:{form}}"
        axes.annotate(text, (end, place), xytext=(5, 0), textcoords="offset points", va="center", color="#4b5563", fontsize=7)
    known = [value for value in values if value is not None]
    low, high = min([*known, *marks, 0.0]), max([*known, *marks, 0.0])
    # room for the figures behind the bars
    axes.set_xlim(low - 0.03 * (high - low or 1.0), high + 0.14 * (high - low or 1.0))


def _gained_db(found: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Decibels, None where the output becomes exact."""
    whole, left = found["all_int8"]["sqnr_db"][row["graph"]], row["left_float"]["sqnr_db"][row["graph"]]
    return None if whole is None or left is None else float(left - whole)


def _legend(timed: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    graphs = [Patch(facecolor=colour, edgecolor=colour, label=f"{graph}, INT8 in the mix") for graph, colour in COLOURS.items()]
    hollow = Patch(facecolor="white", edgecolor="#374151", label="float in the mix")
    alone = Line2D([], [], marker="|", color="#111827", lw=0, ms=8, mew=1.6, label="saved when all others are float")
    return [*graphs, hollow, *([alone] if timed else [])]


def _title(found: Mapping[str, Any]) -> str:
    drop = max(found["chosen"]["quality"]["drop"].values())
    whole = max(found["all_int8"]["drop"].values())
    speed = ""
    if found["float_hop_ms"]:
        before, after = (sum(times.values()) for times in (found["float_hop_ms"], found["chosen"]["hop_ms"]))
        speed = f" and takes {after:.1f} ms per hop, float takes {before:.1f} ms"
    return (
        f"{found['precision']}: the mix loses {drop:+.4f} CCC{speed}; all INT8 loses {whole:+.4f}\n"
        f"{found['windows']} windows of {len(found['videos'])} videos, {found['threads']} threads, {found['machine']['cpu']}"
    )
