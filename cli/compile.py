"""Compile a training checkpoint into a bundle: ONNX graphs in FP32 and INT8, checked against each other on the validation videos.

DATA is a prepared store: its training split calibrates, its validation split decides. Fails, and writes nothing, when INT8 loses more CCC
than --max-drop on valence or arousal, as overlapping windows or live, and says which graph does it.

example:
  sage-edge compile checkpoint --data store --out demo.sage --max-drop 0.005
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="checkpoint folder, made by 'sage-edge train'")
    parser.add_argument("--data", required=True, metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--out", required=True, metavar="NAME.sage", type=Path, help="bundle folder to write")
    parser.add_argument("--max-drop", type=float, default=0.005, metavar="X", help="CCC that INT8 may lose (default 0.005)")
    parser.add_argument("--method", default="percentile", help="calibration: minmax, entropy or percentile (default)")
    parser.add_argument("--clips", type=int, default=24, metavar="N", help="windows to calibrate on (default 24)")
    parser.add_argument("--ranges", type=Path, metavar="FILE", help="ranges that 'sage-edge calibrate' wrote, instead of calibrating")
    parser.add_argument("--float", action="append", metavar="GROUP", help="leave a group of weights in float, besides the usual ones; repeatable")
    parser.add_argument("--preset", metavar="P", help="fail unless the checkpoint is of this preset")
    parser.add_argument("--force", action="store_true", help="replace NAME.sage if it exists")
    parser.add_argument("--json", action="store_true", help="print the manifest as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    from sage_edge.calibration.ranges import Ranges
    from sage_edge.compile import compile_bundle
    from sage_edge.compile.groups import FLOAT
    from sage_edge.runtime.bundle import MANIFEST

    ranges = Ranges.load(args.ranges) if args.ranges else None
    path = compile_bundle(
        args.checkpoint,
        args.data,
        args.out,
        max_drop=args.max_drop,
        method=args.method,
        count=args.clips,
        ranges=ranges,
        float_groups=(*FLOAT, *(args.float or ())),
        preset=args.preset,
        replace=args.force,
    )
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if args.json:
        print(json.dumps(manifest, sort_keys=True))
        return 0
    weights = manifest["weights_bytes"]
    print(f"{path}: weights {weights['fp32'] / 1e6:.2f} MB in FP32, {weights['int8-cpu'] / 1e6:.2f} MB in INT8")
    print(f"{'CCC':<10}{'precision':<11}{'valence':>9}{'arousal':>9}{'mean':>9}")
    for protocol, rows in sorted(manifest["ccc"].items(), reverse=True):
        for precision, row in rows.items():
            print(f"{protocol:<10}{precision:<11}{row['valence']:>9.4f}{row['arousal']:>9.4f}{row['mean']:>9.4f}")
    return 0
