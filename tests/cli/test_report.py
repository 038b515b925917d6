"""The report: self-contained, holds the summary's own figures, survives a model without modality weights and an undefined CCC."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sage_edge.cli import report

pytest.importorskip("matplotlib")


def example_summary() -> dict:
    score = {"valence": 0.8123, "arousal": 0.7456, "mean": 0.77895}
    interval = {k: [v - 0.05, v + 0.05] for k, v in score.items()}
    return {
        "model": {"name": "sage-tiny"},
        "ccc": {p: {"fp32": score, "int8": {k: v - 0.0021 for k, v in score.items()}} for p in ("overlap", "live")},
        "ccc_interval": {p: dict.fromkeys(("fp32", "int8"), interval) for p in ("overlap", "live")},
        "ccc_without": {"visual": {"mean": 0.4321}, "audio": {"mean": 0.5432}},
        "latency_ms": {s: {"p50": 1.25, "p95": 2.5, "p99": 3.75} for s in ("find", "crop", "visual", "audio", "fusion", "hop")},
        "real_time_factor": 0.1472,
        "weights_bytes": {"fp32": 4_000_000, "int8": 1_234_567},
        "seconds": {"synth": 80.0, "train": 300.0},
        "peak_rss_mb": 2100.0,
        "machine": {"cpu": "a <b>cpu</b>"},
        "threads": 2,
        "versions": {"python": "3.11"},
        "seed": 1,
        "commands": ["sage-edge demo --out out/demo"],
    }


def example_trace(modality: bool = True) -> report.Trace:
    t, hops = np.arange(0, 40, 1 / 30), np.arange(0.5, 40, 0.5)
    truth = np.stack([np.sin(t / 3), np.cos(t / 5)], 1) * 0.7
    weight = 0.5 + 0.4 * np.sin(hops / 4)
    return report.Trace(
        t,
        truth.astype(np.float32),
        t,
        truth * 0.9,
        truth * 0.89 + 0.01,
        hops,
        1 + 0.3 * np.sin(hops / 2),
        weight if modality else None,
        1 - weight if modality else None,
        [report.Stretch("occlusion", 8, 12), report.Stretch("noise", 20, 24)],
    )


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data") and v and not v.startswith(("#", "data:"))]


def test_the_page_fetches_nothing_and_shows_the_summary(tmp_path: Path) -> None:
    summary = example_summary()
    report.write(tmp_path / "report.html", summary, example_trace())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.outside == []
    assert "<script" not in page
    for figure in ("0.812", "0.746", "+0.0021", "0.432", "0.543", "1.25", "1,234,567", "0.147"):
        assert figure in page, figure
    assert "a &lt;b&gt;cpu" in page
    assert page.count('role="img"') == 4
    assert "occlusion" in page
    assert re.search(r"synthetic data: these figures", page)


def test_a_model_without_modality_weights_and_an_undefined_score_still_render() -> None:
    summary = json.loads(json.dumps(example_summary()))
    summary["ccc_without"]["audio"]["mean"] = float("nan")
    page = report.render(summary, example_trace(modality=False))
    assert "undefined" in page
    assert "modality weight" not in page
