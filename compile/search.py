"""The fastest mix of float and INT8 whose CCC stays near that of FP32: a sweep over groups of weights, then a search that measures every mix.

    found = search_checkpoint("CKPT", Store.open("STORE"), max_drop=0.005)[1].search         # sage-edge calibrate CKPT --data STORE --search

The search begins with everything in INT8 that saves time by it, because the answer lies near there: few groups are delicate, and every group
that is not costs no measurement at all. What saves nothing for certain stays in float, unless all of a graph that is in doubt saves time
together. While the CCC of the whole mix is too low, the group that does the most harm per millisecond it saves goes back to float. Then each
of them but the last is tried in INT8 once more, the dearest first, because a later one may have been the cause. CCC and time of every mix on
that way are measured, none is added up; a graph that is no faster in its mix than in float stays float.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sage_edge.calibration import check, clips, mixes
from sage_edge.calibration.evaluation import validation
from sage_edge.calibration.mixes import Bench, Quality
from sage_edge.calibration.ranges import GraphRanges, Ranges, check_method
from sage_edge.calibration.sensitivity import Table, sweep
from sage_edge.runtime import machine
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import atomic_file
from sage_edge.runtime.progress import Progress

from . import quantize_cpu, quantize_trt
from .calibrated import EMITTERS, calibrate_graphs, check_clips, export_graphs, face_info
from .facts import HOP
from .groups import check_groups, groups

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store
    from sage_edge.training.presets import Preset


@dataclass(frozen=True)
class Mix:
    """One mix that was tried, and why."""

    why: str
    float_groups: tuple[str, ...]
    quality: Quality
    hop_ms: dict[str, float]
    """graph -> milliseconds per hop."""

    @property
    def total_ms(self) -> float:
        """Of all graphs."""
        return sum(self.hop_ms.values())


Measure = Callable[[Collection[str], str], Mix]
WORTH = 0.02
"""Share of a graph's time that groups in doubt must save together: less than that is noise, or not worth the error."""


@dataclass(frozen=True)
class Search:
    """What was found, and everything it was found by."""

    precision: str
    max_drop: float
    table: Table
    steps: tuple[Mix, ...]
    """Every mix that was tried, in that order; `chosen` is one of them."""
    chosen: Mix
    facts: dict[str, Any]
    """Windows, machine, versions, threads, seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `float_groups` is what stays in float."""
        return {
            "precision": self.precision,
            "max_drop": self.max_drop,
            "float_groups": list(self.chosen.float_groups),
            **self.facts,
            "float_hop_ms": self.table.float_ms,
            "all_int8": asdict(self.table.all_int8),
            "chosen": asdict(self.chosen),
            "rows": [{**asdict(row), "harm": row.harm, "gain_ms": row.gain_ms} for row in self.table.rows],
            "steps": [asdict(step) for step in self.steps],
        }


def search_to_files(
    checkpoint: Path,
    store: Store,
    out: Path,
    method: str = "percentile",
    count: int = clips.COUNT,
    max_drop: float | None = None,
    equalised: bool = False,
    precision: str | None = None,
) -> tuple[clips.ClipSet, Ranges]:
    """`search_checkpoint`, written into `out` and drawn into the .svg beside it: both, or none when it fails."""
    from .search_plot import check_plot, plot

    check_plot(picture := out.with_suffix(".svg"))
    drop, precision = check.MAX_DROP if max_drop is None else max_drop, precision or quantize_cpu.PRECISION
    chosen, ranges = search_checkpoint(checkpoint, store, method, count, drop, equalised=equalised, precision=precision)
    assert ranges.search is not None
    with atomic_file(picture) as work:
        plot(ranges.search, work)
        ranges.save(out)
    return chosen, ranges


def search_checkpoint(
    checkpoint: Path,
    store: Store,
    method: str = "percentile",
    count: int = clips.COUNT,
    max_drop: float = check.MAX_DROP,
    windows: int = mixes.WINDOWS,
    equalised: bool = False,
    precision: str = quantize_cpu.PRECISION,
    progress: bool = True,
) -> tuple[clips.ClipSet, Ranges]:
    """As `calibrate_checkpoint`, and in `Ranges.search` what `search` found for `precision`: "int8-cpu", timed here, or "int8-trt", by its float32
    twin on the CPU and without times, which only its device could tell.

    Raises CheckpointError, DataError, UsageError, CompileError.
    """
    from sage_edge.training import checkpoint as checkpoints

    check_method(method)
    check_drop(max_drop)
    model, meta = checkpoints.load(checkpoint)
    validation(store, rate_hz=model.preset.rate_hz)
    check_clips(store, model.preset, count)
    with tempfile.TemporaryDirectory(prefix="sage-export-") as folder:
        paths = export_graphs(model, meta, Path(folder), "{graph}.onnx", progress)
        chosen, ranges = calibrate_graphs(paths, model.preset, store, method, count, dict.fromkeys(EMITTERS, ()), progress, equalised)
        here = precision == quantize_cpu.PRECISION
        emit = quantize_cpu.emit if here else functools.partial(quantize_trt.emit, half=False)
        found = search(
            paths, ranges.graphs, store, model.preset, max_drop, emit=emit, precision=precision, windows=windows, timed=here, progress=progress
        )
    return chosen, dataclasses.replace(ranges, search=found.to_dict())


def search(
    graphs: Mapping[str, Path],
    ranges: Mapping[str, GraphRanges],
    store: Store,
    preset: Preset,
    max_drop: float = check.MAX_DROP,
    *,
    candidates: Collection[str] | None = None,
    emit: mixes.Emit = quantize_cpu.emit,
    precision: str = quantize_cpu.PRECISION,
    windows: int = mixes.WINDOWS,
    timed: bool = True,
    progress: bool = True,
) -> Search:
    """The fastest mix of the float32 `graphs` (graph name -> path) that loses at most `max_drop` CCC on valence and on arousal.

    CCC is under `overlap` on `windows` windows of the validation videos in `store`. `ranges` (graph -> tensor -> (low, high)) cover what `emit`
    quantizes; of all groups only `candidates` may go to INT8. `timed=False` is for graphs that are made to run elsewhere, such as the float32
    twins of `int8-trt`: every group is worth the same then, and few go back to float. Raises UsageError for a drop or a group that cannot be,
    DataError for a store without validation videos, CompileError where a range is missing.
    """
    from sage_edge.training.data.windows import STRIDE

    check_drop(max_drop)
    held = {name: list(groups(onnx.load(path))) for name, path in graphs.items()}
    every = {group for names in held.values() for group in names}
    tried = every if candidates is None else set(candidates)
    check_groups(tried, every)
    videos = validation(store, rate_hz=preset.rate_hz)
    trials = mixes.stretches(videos, preset.window, min(STRIDE, preset.window), windows)
    hop, face = min(HOP, preset.window), face_info(preset)
    start_s = time.monotonic()
    pinned = sorted(every - tried)
    held = {graph: [group for group in names if group in tried] for graph, names in held.items()}
    with (
        tempfile.TemporaryDirectory(prefix="sage-mixes-") as folder,
        Bench(graphs, held, ranges, emit, face, trials, preset.window, hop, Path(folder), pinned, timed=timed) as bench,
    ):
        table = sweep(bench, progress)
        with Progress("search", None, "mixes", shown=progress) as bar:

            def measure(float_groups: Collection[str], why: str) -> Mix:
                names = tuple(sorted({*float_groups, *pinned}))
                mix = Mix(why, names, bench.quality(float_groups), bench.hop_ms(float_groups))
                speed = f", {mix.total_ms:.1f} ms per hop" if timed else ""
                bar.step(note=f"drop {mix.quality.worst_drop:+.4f}{speed}")
                return mix

            chosen, steps = choose(table, measure, max_drop)
        facts = {
            "protocol": "overlap",
            "split": videos[0].split,
            "store_digest": store.digest,
            "windows": bench.windows,
            "window": preset.window,
            "hop": hop,
            "videos": {trial.name: trial.n_ticks for trial in trials},
            "threads": bench.threads,
            "machine": machine.machine(),
            "versions": machine.versions(),
            "seconds": round(time.monotonic() - start_s, 1),
            "float_ccc": bench.float_ccc,
        }
    return Search(precision, max_drop, table, tuple(steps), chosen, facts)


def choose(table: Table, measure: Measure, max_drop: float) -> tuple[Mix, list[Mix]]:
    """The search itself: the mix it ends with, and all it measured. The same `table` and answers of `measure` give the same end."""
    rows, steps = table.rows, list[Mix]()

    def tried(float_groups: Collection[str], why: str) -> Mix:
        steps.append(measure(float_groups, why))
        return steps[-1]

    gain_ms = {row.group: row.gain_ms for row in rows if row.gain_ms}
    left = frozenset(row.group for row in rows) - set(gain_ms)
    now = tried(left, "in INT8 what saves time by it")
    for graph in table.float_ms:
        doubtful = {row.group for row in rows if row.graph == graph and row.group in left}
        if doubtful:
            again = tried(left - doubtful, f"the rest of {graph} in INT8, too")
            saved_ms = now.hop_ms[graph] - again.hop_ms[graph]
            if saved_ms > WORTH * table.float_ms[graph]:
                left, now = left - doubtful, again
                gain_ms.update(dict.fromkeys(doubtful, saved_ms / len(doubtful)))
    back: list[str] = []
    for row in sorted((row for row in rows if row.group in gain_ms), key=lambda row: (-row.harm / gain_ms[row.group], row.group)):
        if now.quality.worst_drop <= max_drop:
            break
        left |= {row.group}
        back.append(row.group)
        now = tried(left, f"{row.group} in float: most harm per millisecond")
    for group in sorted(back[:-1], key=lambda group: (-gain_ms[group], group)):
        again = tried(left - {group}, f"{group} in INT8 again")
        if again.quality.worst_drop <= max_drop and again.total_ms <= now.total_ms:
            left, now = left - {group}, again
    for graph in table.float_ms:
        names = {row.group for row in rows if row.graph == graph}
        if not names <= left and now.hop_ms[graph] >= table.float_ms[graph]:
            again = tried(left | names, f"all of {graph} in float: its mix is no faster")
            if again.quality.worst_drop <= max_drop:
                left, now = left | names, again
    return now, steps


def check_drop(max_drop: float) -> None:
    """UsageError for a drop that no mix can keep: with all in float it is 0."""
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"--max-drop is {max_drop:g}, and with everything in float the CCC drops by 0; give 0 or more")


def report(found: Mapping[str, Any]) -> list[str]:
    """`Search.to_dict()` as lines for a terminal, the worst group first."""
    lines = [f"{'group':<24}{'SQNR dB, in float':>18}{'alone INT8':>12}{'CCC drop, in float':>20}{'alone INT8':>12}{'saves ms/hop':>14}  in the mix"]
    for row in found["rows"]:
        left, alone = row["left_float"], row["alone_int8"]
        decibels = [_decibels(quality["sqnr_db"][row["graph"]]) for quality in (left, alone)]
        drops = [f"{max(quality['drop'].values()):+.4f}" for quality in (left, alone)]
        mix = "float" if row["group"] in found["float_groups"] else "INT8"
        saves = "not timed" if row["gain_company"] is None else f"{row['gain_ms']:.2f}" if row["gain_ms"] else "no"
        lines.append(f"{row['group']:<24}{decibels[0]:>18}{decibels[1]:>12}{drops[0]:>20}{drops[1]:>12}{saves:>14}  {mix}")
    whole, mix = found["all_int8"], found["chosen"]
    decibels = [f"{graph} {_decibels(value)}" for graph, value in whole["sqnr_db"].items()]
    lines.append(f"{'all in INT8':<24}CCC drop {max(whole['drop'].values()):+.4f}, SQNR {', '.join(decibels)} dB")
    drop = max(mix["quality"]["drop"].values())
    speed = ""
    if found["float_hop_ms"]:
        before, after = (sum(times.values()) for times in (found["float_hop_ms"], mix["hop_ms"]))
        speed = f", {after:.1f} ms per hop instead of {before:.1f} ({before / after:.2f}x)"
    lines.append(f"{'chosen':<24}CCC drop {drop:+.4f} of {found['max_drop']:g}{speed}")
    lines.append(f"float: {', '.join(found['float_groups']) or 'nothing'}")
    lines.append(
        f"measured on {found['windows']} windows of {len(found['videos'])} videos ({found['protocol']}), {len(found['steps'])} mixes tried, "
        f"{found['threads']} threads, {found['seconds']:.0f} s"
    )
    return lines


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"
