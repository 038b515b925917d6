"""Run one comparison and print what it found, with the machine and the versions it was found on.

    python benchmarks/run.py crop --json

A benchmark is a module beside this file, listed in BENCHMARKS, with `run(n: int, seed: int) -> dict` that gives `unit`, `variants` (leaves are
`median`, `min`, `n`) and `ratios` (`A_over_B`: how many times faster A is than B), and may give `notes`. Its variants take turns (timing.py).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from sage_edge.runtime.machine import machine, versions

BENCHMARKS = {
    "cache": "a training epoch on cached features, against computing them",
    "copies": "memory to a GPU and back: pinned, pageable, memcpy",
    "crop": "face crop: libsage, the cv2 chain, memcpy",
    "engines": "each graph on each backend and precision, against PyTorch and ONNX Runtime FP32",
    "loop": "the live loop beside its engines: CPU time per second, against one percent of a core",
    "microphone": "lateness of the sound callback: libsage and Python, with the interpreter free and held",
    "precision": "signal to quantization noise of each graph and precision, CCC of a trained model",
    "together": "one run of the visual engine for several faces, against a run for each",
}
NEEDS_GPU = {"copies"}
TAKES = {"cache": {"preset"}, "engines": {"preset"}, "precision": {"preset", "checkpoint", "data"}, "together": {"preset"}}
"""Options that only these benchmarks have."""


def _table(variants: dict[str, Any], depth: int = 0) -> list[str]:
    lines = []
    for name, value in variants.items():
        if any(isinstance(inner, dict) for inner in value.values()):
            lines += [f"{'  ' * depth}{name}", *_table(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{name:<32} " + "  ".join(f"{key} {number:>9}" for key, number in value.items()))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items()))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--n", type=int, default=400, help="timed calls of each variant and case (400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", help="of cache, engines, precision and together: tiny, base or large (base)")
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="of precision: a trained model, with --data")
    parser.add_argument("--data", type=Path, metavar="STORE", help="of precision: the prepared store it was trained on")
    parser.add_argument("--list", action="store_true", help="print the names of all benchmarks that need no GPU")
    args = parser.parse_args()
    if args.list:
        print("\n".join(name for name in BENCHMARKS if name not in NEEDS_GPU))
        return 0
    if args.name is None:
        parser.error(f"name one benchmark: {', '.join(BENCHMARKS)}")
    given = {name: value for name in ("preset", "checkpoint", "data") if (value := getattr(args, name)) is not None}
    if wrong := sorted(given.keys() - TAKES.get(args.name, set())):
        parser.error(f"{args.name} has no {wrong[0]}; leave --{wrong[0]} away")
    found = importlib.import_module(args.name).run(n=args.n, seed=args.seed, **given)
    command = "python benchmarks/run.py " + " ".join(sys.argv[1:])
    result = {"name": args.name, "machine": machine(), "versions": versions(), "command": command, **found}
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{result['machine']['cpu']}, {result['machine']['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()))
    print("\n".join(_table(result["variants"])))
    print("\n".join(f"{name:<72} {value:>8}" for name, value in result["ratios"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
