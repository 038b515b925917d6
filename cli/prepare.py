"""Index and decode a corpus in Aff-Wild2's layout once, so that training reads it without decoding again.

SRC holds VA_Estimation_Challenge/{Train_Set,Validation_Set}/*.txt, cropped_aligned/*/ and the raw videos (anywhere below it).
OUT appears when all is done; until then OUT.partial holds every finished video, from which --resume continues. Rotation of a raw video plays
no part: faces come from cropped_aligned.

example:
  sage-edge prepare corpus store
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", type=Path, help="corpus folder in Aff-Wild2's layout")
    parser.add_argument("out", metavar="OUT", type=Path, help="store folder to write")
    parser.add_argument(
        "--rate", default="30", choices=["30", "native"], help="ticks per second, or each video's own frames (the paper's way) (default 30)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core, 16 at most)")
    parser.add_argument("--resume", action="store_true", help="continue what OUT.partial holds; videos whose files have changed are done again")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from sage_edge.runtime.errors import UsageError
    from sage_edge.training.data.partial import Partial
    from sage_edge.training.data.store import prepare

    rate = args.rate if args.rate == "native" else int(args.rate)
    try:
        summary = prepare(args.source, args.out, rate=rate, workers=args.workers, resume=args.resume)
    except UsageError:
        raise
    except BaseException:
        partial = Partial(args.out)
        if partial.holds_work():
            print(f"{partial.folder} holds every finished video; continue with --resume, or remove it", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps(dataclasses.asdict(summary), default=str))
    else:
        print("\n".join(summary.lines()))
    return 0
