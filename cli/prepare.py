"""Index and decode a corpus in Aff-Wild2's layout once, so that training reads it without decoding again.

SRC holds VA_Estimation_Challenge/{Train_Set,Validation_Set}/*.txt, cropped_aligned/*/ and the raw videos (anywhere below it).
OUT is written whole or not at all. A store of --rate native is for 'sage-edge evaluate' only so far: training and compiling want 30.

example:
  sage-edge prepare corpus store
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=Path, help="corpus folder in Aff-Wild2's layout")
    parser.add_argument("out", metavar="OUT", type=Path, help="store folder to write")
    parser.add_argument(
        "--rate", default="30", choices=["30", "native"], help="ticks per second, or each video's own frames, for evaluate only so far (default 30)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: two, where there are two cores)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from sage_edge.training.data.store import prepare

    summary = prepare(args.source, args.out, rate=args.rate if args.rate == "native" else int(args.rate), workers=args.workers)
    if args.json:
        print(json.dumps(dataclasses.asdict(summary), default=str))
    else:
        print("\n".join(summary.lines()))
    return 0
