"""What it costs to compile a model: seconds and peak memory of `sage-edge compile`, run as people run it, in a process of its own.

    python benchmarks/compile_cost.py --preset base --json

The checkpoint has random weights and the corpus a few synthetic people, so the CCC that INT8 may lose is left open: what is measured is the
work, which does not depend on the weights. Calibration reads the same number of clips of any corpus that has as many; the last check plays the
validation split (here two videos of about 14 s) and takes longer on a larger one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from specimen import PEOPLE, synthetic_store

LIMITS = {"peak_gib": 8.0, "minutes": 15.0}


def cost(preset: str, clips: int, seed: int = 0) -> dict[str, Any]:
    """Compile a new model of `preset`; `minutes` by the clock and of all cores, `peak_gib` of the compiling process, and the bundle's size in MB."""
    with tempfile.TemporaryDirectory(prefix="sage-edge-compile-cost-") as name:
        folder = Path(name)
        store = synthetic_store(folder, seed)
        new = (
            "import sys, torch; from pathlib import Path; from sage_edge.training import SAGE, checkpoint, presets;"
            "from sage_edge.training.data.store import Store; torch.manual_seed(int(sys.argv[3]));"
            "checkpoint.save(Path(sys.argv[2]), SAGE(presets.get(sys.argv[1])), trained_on=Store.open(Path(sys.argv[4])).meta)"
        )
        subprocess.run([sys.executable, "-c", new, preset, str(folder / "ckpt"), str(seed), str(store)], check=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = ["compile", str(folder / "ckpt"), "--data", str(store), "--out", str(folder / "out.sage"), "--max-drop", "2", "--clips", str(clips)]
        begin_s = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sage_edge.cli.main", *command], stdout=sys.stderr, check=False)
        seconds = time.perf_counter() - begin_s
        if done.returncode:
            raise SystemExit(f"sage-edge compile failed with {done.returncode}; nothing was measured")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = sum(path.stat().st_size for path in (folder / "out.sage").rglob("*") if path.is_file())
    return {
        "preset": preset,
        "clips": clips,
        "minutes": round(seconds / 60, 1),
        "cpu_minutes": round((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60, 1),
        "peak_gib": round(after.ru_maxrss / 2**20, 2),
        "peak_is_of": "the compile" if after.ru_maxrss > before.ru_maxrss else "at most the making of the checkpoint, which took more",
        "bundle_mb": round(size / 1e6),
        "people": PEOPLE,
        "limits": LIMITS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", help="tiny, base or large (base)")
    parser.add_argument("--clips", type=int, default=24, help="calibration windows (24, what `sage-edge compile` takes)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    from sage_edge.runtime.machine import machine, versions

    found = {"machine": machine(), "versions": versions(), **cost(args.preset, args.clips)}
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"compiling {found['preset']}: {found['minutes']} minutes, {found['cpu_minutes']} of cores; peak {found['peak_gib']} GiB")
    return int(found["minutes"] > LIMITS["minutes"] or found["peak_gib"] > LIMITS["peak_gib"])


if __name__ == "__main__":
    sys.exit(main())
