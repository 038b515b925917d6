"""The demo's report: one self-contained HTML file, drawn from `summary.json` and one recorded run.

Nothing is computed here that `summary.json` does not already hold; the traces are what `Session` returned for the sample video.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.files import atomic_file

DIMENSIONS = ("valence", "arousal")
COLOURS = {"truth": "#6b7280", "fp32": "#1d4ed8", "int8": "#ea580c", "visual": "#0f766e", "audio": "#9333ea", "temporal": "#374151"}
SHADES = {"occlusion": "#fbbf24", "darkness": "#94a3b8", "away": "#86efac", "noise": "#f472b6", "mute": "#a5b4fc"}


@dataclass(frozen=True)
class Stretch:
    """A corrupted part of the sample video: what was done to it, from when to when in seconds."""

    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Trace:
    """The sample video, tick by tick: times in seconds [n], estimates [n, 2], and the weights of each hop's newest tick."""

    truth_t_s: NDArray[np.float64]
    truth: NDArray[np.float32]
    estimate_t_s: NDArray[np.float64]
    fp32: NDArray[np.float64]
    int8: NDArray[np.float64]
    hop_t_s: NDArray[np.float64]
    temporal: NDArray[np.float64]
    visual: NDArray[np.float64] | None
    audio: NDArray[np.float64] | None
    stretches: Sequence[Stretch]


def _svg(figure: Any) -> str:
    """The figure as inline SVG, without the XML preamble that HTML does not want."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _figure(rows: int, height: float, width: float = 9.6, **kwargs: Any) -> tuple[Any, Any]:
    """A figure on its own canvas: no pyplot, so no global state and no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **kwargs)


def _shade(axes: Any, stretches: Sequence[Stretch], labels: bool) -> None:
    for stretch in stretches:
        axes.axvspan(stretch.start_s, stretch.end_s, color=SHADES.get(stretch.kind, "#cbd5e1"), alpha=0.35, lw=0)
        if labels:
            middle = (stretch.start_s + stretch.end_s) / 2
            axes.annotate(stretch.kind, (middle, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8, color="#374151")


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)


def traces_svg(trace: Trace) -> str:
    """Truth, FP32 and INT8 over the sample video, valence above arousal, corrupted stretches shaded."""
    figure, both = _figure(2, 4.6, sharex=True)
    for i, (axes, name) in enumerate(zip(both, DIMENSIONS, strict=True)):
        _shade(axes, trace.stretches, labels=i == 0)
        axes.plot(trace.truth_t_s, trace.truth[:, i], color=COLOURS["truth"], lw=2.4, alpha=0.55, label="truth")
        axes.plot(trace.estimate_t_s, trace.fp32[:, i], color=COLOURS["fp32"], lw=1.3, label="FP32")
        axes.plot(trace.estimate_t_s, trace.int8[:, i], color=COLOURS["int8"], lw=1.1, ls=(0, (3, 2)), label="INT8")
        axes.set(ylim=(-1.05, 1.05), ylabel=name)
        _tidy(axes)
    both[0].legend(loc="upper right", ncols=3, fontsize=8, framealpha=0.85)
    both[1].set_xlabel("seconds of video")
    return _svg(figure)


def reliability_svg(trace: Trace) -> str:
    """Weight of each modality and of the moment over time, one value per hop, corrupted stretches shaded."""
    rows = 2 if trace.visual is not None else 1
    figure, axes_list = _figure(rows, 1.9 * rows, sharex=True, squeeze=False)
    top, bottom = axes_list[0, 0], axes_list[-1, 0]
    _shade(top, trace.stretches, labels=True)
    if trace.visual is not None and trace.audio is not None:
        _shade(bottom, trace.stretches, labels=False)
        top.plot(trace.hop_t_s, trace.visual, color=COLOURS["visual"], lw=1.4, label="visual")
        top.plot(trace.hop_t_s, trace.audio, color=COLOURS["audio"], lw=1.4, label="audio")
        top.set(ylim=(-0.03, 1.03), ylabel="modality weight")
        top.legend(loc="upper right", ncols=2, fontsize=8, framealpha=0.85)
        _tidy(top)
    bottom.plot(trace.hop_t_s, trace.temporal, color=COLOURS["temporal"], lw=1.4)
    bottom.axhline(1.0, color="#9ca3af", lw=0.8, ls=":")
    bottom.set(ylabel="weight of moment", xlabel="seconds of video", ylim=(0, None))
    _tidy(bottom)
    return _svg(figure)


def plane_svg(trace: Trace) -> str:
    """The valence-arousal plane: where the truth went and where the INT8 model said it went."""
    figure, axes = _figure(1, 4.4, width=4.6)
    axes.axhline(0, color="#9ca3af", lw=0.8)
    axes.axvline(0, color="#9ca3af", lw=0.8)
    axes.plot(trace.truth[:, 0], trace.truth[:, 1], color=COLOURS["truth"], lw=2.2, alpha=0.5, label="truth")
    axes.plot(trace.int8[:, 0], trace.int8[:, 1], color=COLOURS["int8"], lw=0.9, label="INT8")
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xlabel="valence", ylabel="arousal", aspect="equal")
    axes.legend(loc="upper left", fontsize=8, framealpha=0.85)
    _tidy(axes)
    return _svg(figure)


def scatter_svg(trace: Trace) -> str:
    """INT8 against FP32 at every tick: what quantization changed, and where."""
    figure, axes = _figure(1, 4.4, width=4.6)
    axes.plot([-1, 1], [-1, 1], color="#9ca3af", lw=0.8)
    for i, (name, colour) in enumerate(zip(DIMENSIONS, (COLOURS["visual"], COLOURS["audio"]), strict=True)):
        axes.scatter(trace.fp32[:, i], trace.int8[:, i], s=5, alpha=0.5, lw=0, color=colour, label=name, rasterized=True)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xlabel="FP32", ylabel="INT8", aspect="equal")
    axes.legend(loc="upper left", fontsize=8, framealpha=0.85)
    _tidy(axes)
    return _svg(figure)


def _number(value: Any, digits: int = 3) -> str:
    if isinstance(value, float):
        return "undefined" if math.isnan(value) else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 3) -> str:
    first, *rest = head
    top = f"<th scope=col>{html.escape(first)}</th>" + "".join(f"<th scope=col class=n>{html.escape(h)}</th>" for h in rest)
    body = "".join(
        f"<tr><th scope=row>{html.escape(str(label))}</th>" + "".join(f"<td class=n>{html.escape(_number(v, digits))}</td>" for v in values) + "</tr>"
        for label, *values in rows
    )
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _ccc_rows(summary: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for protocol in ("overlap", "live"):
        for precision in ("fp32", "int8"):
            score = summary["ccc"][protocol][precision]
            interval = summary["ccc_interval"][protocol][precision]["mean"]
            rows.append(
                [f"{protocol}, {precision.upper()}", score["valence"], score["arousal"], score["mean"], f"{interval[0]:.3f} to {interval[1]:.3f}"]
            )
        drops = [summary["ccc"][protocol]["fp32"][d] - summary["ccc"][protocol]["int8"][d] for d in (*DIMENSIONS, "mean")]
        rows.append([f"{protocol}, lost by INT8", *(f"{d:+.4f}" for d in drops), ""])
    return rows


STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}body{font:16px/1.55 system-ui,sans-serif;margin:0 auto;max-width:62rem;padding:2rem 1.2rem 4rem;color:#111827;background:#fff}
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.4rem 0 .5rem;border-bottom:1px solid #e5e7eb;padding-bottom:.25rem}p{max-width:46rem}
.warn{background:#fef3c7;border-left:4px solid #d97706;padding:.5rem .8rem;margin:1rem 0}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:.8rem;margin:1.2rem 0}
.tile{border:1px solid #e5e7eb;border-radius:.5rem;padding:.7rem .9rem}.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}.tile span{color:#4b5563;font-size:.85rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}th,td{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid #f3f4f6;font-weight:normal}
thead th{font-weight:600;border-bottom:1px solid #d1d5db}.n{text-align:right}svg{max-width:100%;height:auto}.pair{display:flex;flex-wrap:wrap;gap:1rem}.pair>figure{flex:1 1 20rem}figure{margin:.6rem 0}
figcaption{color:#4b5563;font-size:.88rem}code,pre{font:.88rem ui-monospace,monospace}pre{background:#f9fafb;border:1px solid #e5e7eb;padding:.8rem;overflow-x:auto}
"""


def _tile(value: str, caption: str) -> str:
    return f"<div class=tile><b>{html.escape(value)}</b><span>{html.escape(caption)}</span></div>"


def _figure_html(svg: str, title: str, caption: str) -> str:
    """Inline SVG with a name for screen readers and a caption for everyone."""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title, quote=True)}"', 1)
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def render(summary: dict[str, Any], trace: Trace) -> str:
    """The whole page as a string. `summary` is what `summary.json` holds."""
    ccc, latency, weights, without = summary["ccc"], summary["latency_ms"], summary["weights_bytes"], summary["ccc_without"]
    worst = max(ccc[p]["fp32"][d] - ccc[p]["int8"][d] for p in ("overlap", "live") for d in DIMENSIONS)
    tiles = "".join(
        [
            _tile(_number(ccc["overlap"]["fp32"]["mean"]), "CCC, FP32, overlap protocol"),
            _tile(_number(ccc["live"]["int8"]["mean"]), "CCC, INT8, live protocol"),
            _tile(f"{worst:+.4f}", "largest CCC lost by INT8, any dimension and protocol"),
            _tile(f"{summary['real_time_factor']:.3f}", "real-time factor, INT8, this machine: below 1 keeps up"),
            _tile(f"{latency['hop']['p95']:.1f} ms", "per estimate, p95 of a hop"),
            _tile(f"{weights['int8'] / weights['fp32']:.0%}", "of the FP32 weights' bytes"),
        ]
    )
    both = ccc["overlap"]["fp32"]["mean"]
    without_rows = [["both", both, ""]] + [[f"{m} masked off", without[m]["mean"], f"{without[m]['mean'] - both:+.3f}"] for m in ("visual", "audio")]
    stages = [[stage, v["p50"], v["p95"], v["p99"]] for stage, v in latency.items()]
    facts = [[k, v] for part in ("machine", "versions") for k, v in summary[part].items()]
    steps = [[step, seconds] for step, seconds in summary["seconds"].items()]
    shaded = ", ".join(sorted({s.kind for s in trace.stretches})) or "none in this video"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>sage-edge demo report</title><style>{STYLE}</style></head><body>
<h1>SAGE, trained, quantized, checked and run on this machine</h1>
<p>A {html.escape(summary["model"]["name"])} model was trained in full precision on a synthetic corpus, compiled to INT8, held against FP32 on people it never saw,
profiled stage by stage and run over a recorded video with sound by the session that a live camera uses.</p>
<p class=warn>Trained on synthetic data: these figures show that the chain works and what quantization costs. They say nothing about real people.</p>
<div class=tiles>{tiles}</div>
<h2>Truth, FP32 and INT8 over a validation video</h2>
{_figure_html(traces_svg(trace), "Valence and arousal over time: truth, FP32 and INT8", "Every tick of every hop, as the live session emitted it. Shaded: corrupted stretches (" + shaded + ").")}
<h2>Reliability over time</h2>
{_figure_html(reliability_svg(trace), "Reliability weights over time", "Per hop, at its newest tick. Modality weights sum to 1; the weight of a moment averages 1 over the window.")}
<h2>The plane, and INT8 against FP32</h2>
<div class=pair>{_figure_html(plane_svg(trace), "Valence-arousal plane", "Path of the sample video: truth and INT8.")}
{_figure_html(scatter_svg(trace), "INT8 against FP32, every tick", "Every tick of the sample video.")}</div>
<h2>CCC on unseen people</h2>
<p>Validation split, every annotated frame pooled. <code>overlap</code>: overlapping windows averaged. <code>live</code>: through the session, newest tick, held until the next
estimate. Intervals: 95 %, bootstrap over videos.</p>
{_table(["protocol, precision", "valence", "arousal", "mean", "mean, 95 % interval"], _ccc_rows(summary))}
<h2>What each modality is worth</h2>
<p>Same FP32 model, <code>overlap</code>, one modality's mask off for the whole clip.</p>
{_table(["input", "CCC mean", "change"], without_rows)}
<h2>Latency</h2>
<p>Milliseconds, INT8, {summary["threads"]} thread(s); a hop is all that happens when an estimate is due: sound, audio, fusion.</p>
{_table(["stage", "p50", "p95", "p99"], stages, digits=2)}
<h2>Size, time and memory</h2>
{_table(["weights", "bytes"], [["FP32", weights["fp32"]], ["INT8", weights["int8"]]])}
{_table(["step", "seconds"], steps, digits=1)}
<p>Peak memory of the whole chain, all its processes: {summary["peak_rss_mb"]:,.0f} MB. Seed {summary["seed"]}.</p>
<h2>Machine and versions</h2>
{_table(["what", "value"], facts)}
<h2>Try it again</h2>
<pre>{html.escape(chr(10).join(summary["commands"]))}</pre>
</body></html>
"""


def write(path: Path, summary: dict[str, Any], trace: Trace) -> None:
    """Render into `path`, whole or not at all."""
    with atomic_file(path) as work:
        work.write_text(render(summary, trace), encoding="utf-8")
