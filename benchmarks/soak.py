"""Hours of stream through the whole loop at simulated speed, with faults at random; prints what was found, exit code 1 when anything is wrong.

    python benchmarks/soak.py --hours 1

What it does and what it checks: `tests/runtime/soaking.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="of stream (1)")
    parser.add_argument("--faults", type=int, metavar="N", help="at random (200 an hour)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    soaking, tiny_bundle = importlib.import_module("soaking"), importlib.import_module("tiny_bundle")

    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.machine import machine, versions

    begin_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sage-edge-soak-") as folder:
        bundle = Bundle.open(tiny_bundle.make_bundle(Path(folder) / "by-hand.sage"))
        report = soaking.soak(bundle, Path(folder), 3600 * args.hours, round(200 * args.hours) if args.faults is None else args.faults, args.seed)
    found = {"name": "soak", "machine": machine(), "versions": versions(), **report.to_dict(), "took_s": round(time.perf_counter() - begin_s, 1)}
    print(json.dumps(found, indent=1))
    return 0 if not report.problems and report.growth_mb() < 4 * max(1.0, args.hours) else 1


if __name__ == "__main__":
    sys.exit(main())
