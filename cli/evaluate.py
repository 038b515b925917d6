"""CCC of a checkpoint on a prepared store: both protocols, pooled and per video, on every original frame, and with one modality masked.

overlap: windows of 300 ticks every 200, averaged. live: the newest tick of a window every --hop ticks, held until the next.

example:
  sage-edge evaluate checkpoint store --split val
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .plain import dumps


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="checkpoint folder, made by 'sage-edge train'")
    parser.add_argument("data", metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--split", default="val", choices=["train", "val", "test"], help="which trials (default val)")
    parser.add_argument("--preset", metavar="P", help="refuse a checkpoint of another preset")
    parser.add_argument("--hop", type=int, default=15, metavar="TICKS", help="of the live protocol (default 15)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    import torch

    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.machine import cores
    from sage_edge.training import checkpoint
    from sage_edge.training.data.store import Store
    from sage_edge.training.evaluation import full_report

    if args.hop < 1 or (args.threads is not None and args.threads < 1):
        raise UsageError(f"--hop {args.hop} and --threads {args.threads} must be at least 1")
    torch.set_num_threads(args.threads or cores())
    model, meta = checkpoint.load(args.checkpoint, args.preset)
    report = full_report(model, Store.open(args.data), args.split, args.hop, progress=True)
    if args.json:
        print(dumps({"checkpoint": str(args.checkpoint), "trained_on": meta["trained_on"], **report}, sort_keys=True))
    else:
        print("\n".join(_table(report)))
    return 0


def _table(report: dict[str, Any]) -> list[str]:
    rows = [
        ("overlap", report["overlap"]),
        ("live", report["live"]),
        ("overlap, visual masked", report["without"]["visual"]),
        ("overlap, audio masked", report["without"]["audio"]),
    ]
    videos = report["overlap"]["per_video"]
    width = max(24, *(len(name) + 2 for name in videos))
    lines = [f"{'CCC, ' + report['split']:<{width}} valence  arousal     mean", *(_line(name, score, width) for name, score in rows)]
    lines.append("per video, overlap")
    return lines + [_line("  " + name, videos[name], width) for name in sorted(videos)]


def _line(name: str, score: dict[str, float], width: int) -> str:
    return f"{name:<{width}} {score['valence']:7.3f}  {score['arousal']:7.3f}  {score['mean']:7.3f}"
