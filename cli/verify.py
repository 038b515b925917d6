"""Check a bundle on this machine: golden windows against their stored outputs, and with --data the CCC of INT8 against FP32.

Without --data it needs neither torch nor a corpus. With --data (a prepared store) every video of the validation split is evaluated, as
overlapping windows and live; the intervals are 95 %, bootstrapped over videos. Exit code 1 when a golden window is off, or INT8 loses too much.

example:
  sage-edge verify demo.sage --data store
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .plain import dumps


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.sage", type=Path, help="bundle folder, made by 'sage-edge compile'")
    parser.add_argument("--data", metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--max-drop", type=float, default=0.005, metavar="X", help="CCC that INT8 may lose (default 0.005)")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime, openvino or tensorrt (default onnxruntime)")
    parser.add_argument("--precision", metavar="P", help="one precision beside fp32, bf16 for example (default: all that need no bf16)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sage_edge.calibration.check import table, verify
    from sage_edge.runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    store = None
    if args.data is not None:
        from sage_edge.training.data.store import Store

        store = Store.open(args.data)
    result = verify(bundle, store, args.max_drop, args.backend, precision=args.precision)
    print(dumps(result.to_dict()) if args.json else "\n".join(table(result)))
    return 0 if result.ok else 1
