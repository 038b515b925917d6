"""What `sage-edge evaluate` prints: tables of CCC. A CCC that is undefined says so and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_edge.training.ensemble import Ensemble
    from sage_edge.training.submission import Written

DIMENSIONS = ("valence", "arousal")
COLUMNS = (*DIMENSIONS, "mean")
CELL = 11
"""Width of a column."""


def scores(split: str, blocks: Mapping[str, Mapping[str, Any]], ensemble: Ensemble | None, labelled: bool) -> list[str]:
    """The blocks of `evaluation.report`: rows for each model, and CCC per video under `overlap`."""
    if not labelled:
        return [f"no CCC: no frame of the {split} split has a label"]
    videos = sorted(next(iter(blocks.values()))["overlap"]["per_video"])
    rows: list[tuple[str, Mapping[str, Any] | None, str]] = []
    for label, block in blocks.items():
        if len(blocks) > 1:
            rows.append((f"ensemble, {ensemble}" if ensemble and label == "ensemble" else label, None, ""))
        rows += [("  " * (len(blocks) > 1) + name, score, note) for name, score, note in _rows(block)]
    width = max(24, *(len(name) + 2 for name, score, _ in rows if score), *(len(name) + 4 for name in videos))
    lines = [f"{'CCC, ' + split:<{width}}" + "".join(f"{name:>{CELL}}" for name in COLUMNS)]
    lines += [name if score is None else _line(name, score, width) + note for name, score, note in rows]
    if len(blocks) == 1:
        (block,) = blocks.values()
        lines.append("per video, overlap")
        return lines + [_line("  " + name, block["overlap"]["per_video"][name], width) for name in videos]
    return [*lines, *_videos(blocks, videos, width)]


def _rows(block: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """(name, score, what stands behind it) of each row of a block."""
    rows = [(name, block[name], "") for name in ("overlap", "live")]
    rows += [(f"overlap, {sense} masked", block["without"][sense], "") for sense in ("visual", "audio")]
    for chosen, by_protocol in block.get("smooth", {}).items():
        rows += [(f"{name}, {chosen}", score, f"   change {_changes(score['change'])}") for name, score in by_protocol.items()]
    for label, by_protocol in block.get("against", {}).items():
        rows += [(f"{name}, gained on {label}", gain, "") for name, gain in by_protocol.items()]
    return rows


def _videos(blocks: Mapping[str, Mapping[str, Any]], videos: Sequence[str], width: int) -> list[str]:
    """Mean CCC per video, a column per model."""
    columns = {label: max(CELL, len(label) + 2) for label in blocks}
    lines = [f"{'per video, overlap, mean':<{width}}" + "".join(f"{label:>{size}}" for label, size in columns.items())]
    for name in videos:
        means = {label: blocks[label]["overlap"]["per_video"][name] for label in blocks}
        text = f"{'  ' + name:<{width}}" + "".join(f"{number(means[label]['mean']):>{size}}" for label, size in columns.items())
        lines.append(text + _why(next(iter(means.values()))))
    return lines


def _line(name: str, score: Mapping[str, Any], width: int) -> str:
    sign = "+" if "undefined" not in score else ""
    return f"{name:<{width}}" + "".join(f"{number(score[key], sign):>{CELL}}" for key in COLUMNS) + _why(score)


def _changes(change: Mapping[str, float]) -> str:
    return " ".join(number(change[key], "+") for key in COLUMNS)


def number(value: float | None, sign: str = "", digits: int = 3) -> str:
    """A figure as text, "undefined" where it is none."""
    return "undefined" if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def _why(score: Mapping[str, Any]) -> str:
    """Why a score is undefined, where it is."""
    reasons = score.get("undefined") or {}
    if not reasons:
        return ""
    if len(set(reasons.values())) == 1 and len(reasons) == len(DIMENSIONS):
        return f"  ({next(iter(reasons.values()))})"
    return "  (" + ", ".join(f"{name}: {reason}" for name, reason in reasons.items()) + ")"


def submission(written: Written | None) -> list[str]:
    """What was written, if anything was."""
    return [] if written is None else [f"wrote {written.file}: {written.rows} frames of {written.videos} videos"]


def suite(report: Mapping[str, Any]) -> list[str]:
    """A row per cell: for each model CCC (mean of valence and arousal), its change against clean, and the weight of the spoiled sense."""
    cells, arms = report["cells"], report["suite"]
    with_weights = {label: any(figures["weight_visual"] is not None for figures in by_cell.values()) for label, by_cell in arms.items()}
    heads = {label: f"{'CCC':>9}{'change':>9}" + f"{'weight':>8}" * with_weights[label] for label in arms}
    width = max(len("suite, val, seed 0"), *(len(name) + 18 for name in cells)) + 2
    lines = [
        f"{'suite, ' + report['split'] + ', seed ' + str(report['seed']):<{width}}" + "  ".join(f"{label:>{len(heads[label])}}" for label in arms),
        " " * width + "  ".join(heads.values()),
    ]
    for name, cell in cells.items():
        parts = []
        for label, by_cell in arms.items():
            own, clean = by_cell[name], by_cell["clean"]
            text = f"{number(own['mean']):>9}" + f"{'' if name == 'clean' else number(own['mean'] - clean['mean'], '+'):>9}"
            parts.append(text + f"{_weight(own, cell):>8}" * with_weights[label])
        sense = {"none": "", "shift": "sound early" if cell["severity"] < 0 else "sound late"}.get(cell["modality"], cell["modality"])
        lines.append(f"{f'{name:<12} ' + sense + (', masked' if cell['masked'] else ''):<{width}}" + "  ".join(parts))
    spreads = ", ".join(f"{label} {number(by_cell['clean']['temporal_spread'])}" for label, by_cell in arms.items())
    return [*lines, _UNDER_THE_TABLE, f"spread of the weight of the moment within a window, clean: {spreads}", *_undefined(arms)]


_UNDER_THE_TABLE = (
    "CCC: overlap, mean of valence and arousal. weight: of the spoiled sense, 1 being all; of the sound in clean and shift; 0.5 when both count alike"
)


def _weight(figures: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    weight = figures["weight_visual" if cell["modality"] == "visual" else "weight_audio"]
    return "" if weight is None else f"{weight:.2f}"


def _undefined(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why a CCC is undefined: it depends on the labels alone, so it is the same in every cell."""
    figures = next(iter(next(iter(arms.values())).values()))
    return ["undefined" + _why(figures)] if figures["undefined"] else []
