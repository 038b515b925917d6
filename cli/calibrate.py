"""Find the activation ranges of a checkpoint on real clips, and write them as a file that people can read and compare.

DATA is a prepared store, of whose training split a fixed choice of windows is used: in turn from every person, with silence and missing
faces among them. 'sage-edge compile --ranges' takes the file. With --search it also says which groups of weights stay in float: those of the
fastest mix that keeps the CCC of the validation videos, every mix measured on this machine; the sweep is drawn in FILE with the suffix .svg.

example:
  sage-edge calibrate checkpoint --data store --out ranges.json --search --max-drop 0.005
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="checkpoint folder, made by 'sage-edge train'")
    parser.add_argument("--data", required=True, metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="JSON file to write")
    parser.add_argument("--method", default="percentile", help="minmax, entropy, percentile (default), mse, or auto: the best of them per tensor")
    parser.add_argument("--clips", type=int, default=24, metavar="N", help="windows to calibrate on (default 24)")
    parser.add_argument("--equalise", action="store_true", help="fold factors into channels first, exactly, where that lowers the error of 8 bits")
    parser.add_argument("--search", action="store_true", help="look for the fastest mix of float and INT8, too: minutes for tiny, an hour for base")
    parser.add_argument("--max-drop", type=float, metavar="X", help="CCC that the mix of --search may lose (default 0.005)")
    parser.add_argument(
        "--for", dest="precision", choices=("int8-cpu", "int8-trt"), help="what --search is for (default int8-cpu; int8-trt without times)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print clips, number of ranges and what --search found as one JSON object")


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from sage_edge.calibration.clips import check_count
    from sage_edge.compile.calibrated import calibrate_checkpoint
    from sage_edge.compile.search import report, search_to_files
    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.files import check_file
    from sage_edge.training.data.store import Store

    if args.max_drop is not None and not args.search:
        raise UsageError(f"--max-drop {args.max_drop:g} bounds what --search looks for; give --search, too")
    if args.precision is not None and not args.search:
        raise UsageError(f"--for {args.precision} says what --search is for; give --search, too")
    if args.search and args.out.suffix == ".svg":
        raise UsageError(f"{args.out} is where the picture of --search goes; give the ranges another suffix, such as .json")
    for path in (args.out, args.out.with_suffix(".svg")) if args.search else (args.out,):
        check_file(path, args.force)
    check_count(args.clips)
    if args.search:
        chosen, ranges = search_to_files(
            args.checkpoint, Store.open(args.data), args.out, args.method, args.clips, args.max_drop, args.equalise, args.precision
        )
    else:
        chosen, ranges = calibrate_checkpoint(args.checkpoint, Store.open(args.data), args.method, args.clips, args.equalise)
        ranges.save(args.out)
    counts = {name: len(tensors) for name, tensors in ranges.graphs.items()}
    if args.json:
        facts = {"out": str(args.out), "method": ranges.method, "set_sha256": chosen.sha256, "tensors": counts, **dataclasses.asdict(chosen)}
        print(json.dumps({**facts, "search": ranges.search} if args.search else facts))
        return 0
    why = ", ".join(f"{sum(clip.why == name for clip in chosen.clips)} {name}" for name in ("person", "no-face", "silence"))
    print(f"{args.out}: {ranges.method} over {len(chosen.clips)} clips ({why}), set {chosen.sha256[:12]}")
    print("tensors: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    if ranges.equalised:
        print("equalised: " + ", ".join(f"{name} {len(places)} places" for name, places in ranges.equalised.items()))
    if ranges.search is not None:
        print("\n".join(report(ranges.search)))
    return 0
