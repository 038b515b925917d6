"""Our int8-trt files beside NVIDIA ModelOpt's, node by node: the same float graphs of a bundle, the same calibration, the same groups in float.

    python benchmarks/emitters.py out/demo/demo.sage
    python benchmarks/emitters.py out/demo/demo.sage --graph visual --json

Both calibrate on the bundle's golden windows but the last (synthetic, so no data is needed), by greatest magnitude; the signal to quantization noise,
in dB against float32, is that of the last window, simulated with ONNX Runtime on the CPU. Needs `pip install 'sage-edge[modelopt]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sage_edge.calibration.offline import Offline
from sage_edge.calibration.ranges import collect
from sage_edge.compile import modelopt, quantize_trt
from sage_edge.compile.compare import compare, summary
from sage_edge.runtime.bundle import GRAPHS, Bundle
from sage_edge.runtime.engines import open_engine
from sage_edge.runtime.errors import SageError
from sage_edge.runtime.machine import machine, versions

FACES = 16
"""Faces per window."""

Feed = dict[str, Any]


def feeds_of(bundle: Bundle) -> dict[str, list[Feed]]:
    """Graph -> one feed per golden window."""
    golden, found = bundle.golden(), dict[str, list[Feed]]((name, []) for name in GRAPHS)
    with Offline({(name, "fp32"): bundle.graph(name, "fp32") for name in GRAPHS}, bundle.manifest.face) as offline:
        for faces, samples, seen, heard in zip(*(golden[name] for name in ("faces", "samples", "visual_mask", "audio_mask")), strict=True):
            visual = np.zeros((len(seen), offline.visual_dim("fp32")), np.float32)
            visual[seen] = offline.faces(faces[seen], "fp32")
            some = np.flatnonzero(seen)[np.linspace(0, seen.sum() - 1, FACES).astype(int)]
            found["visual"].append({"faces": offline.pixels(faces[some])})
            found["audio"].append({"samples": samples[None]})
            masks = {name: mask[None].astype(np.float32) for name, mask in (("visual_mask", seen), ("audio_mask", heard))}
            found["fusion"].append({"visual": visual[None], "audio": offline.sound(samples, "fp32")[None], **masks})
    return found


def outputs(path: Path, feed: Feed) -> dict[str, Any]:
    """Every output of the graph at `path`."""
    engine = open_engine(path, batch=len(next(iter(feed.values()))))
    for name, value in feed.items():
        engine.inputs[name][...] = value
    engine.run()
    found = {name: value.copy() for name, value in engine.outputs.items()}
    engine.close()
    return found


def decibels(want: Any, got: Any) -> float:
    noise = float(np.square(want - got).sum())
    return round(float(10 * np.log10(float(np.square(want).sum()) / noise)), 1) if noise else float("inf")


def graph(bundle: Bundle, name: str, feeds: list[Feed], folder: Path) -> dict[str, Any]:
    """Both files of one graph, compared."""
    path, calibration, held_out = bundle.graph(name, "fp32"), feeds[:-1], feeds[-1]
    ranges = collect(path, lambda: iter(calibration), quantize_trt.tensors(onnx.load(path)), "minmax")
    files = {"ours": quantize_trt.emit(path, ranges), "modelopt": modelopt.emit(path, {}, feeds=calibration)}
    noise = {}
    for who, model in files.items():
        onnx.save(model, folder / f"{name}.{who}.onnx")
        got = outputs(folder / f"{name}.{who}.onnx", held_out)
        noise[who] = {output: decibels(value, got[output]) for output, value in outputs(path, held_out).items()}
    rows = [{"node": r.node, "op": r.op, "ours": r.inputs[0], "modelopt": r.inputs[1]} for r in compare(*files.values()) if not r.same]
    return {**summary(*files.values()), "sqnr_db": noise, "different": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a compiled bundle, NAME.sage")
    parser.add_argument("--graph", choices=GRAPHS, help="one graph instead of all")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    args = parser.parse_args()
    try:
        bundle = Bundle.open(args.bundle)
        feeds = feeds_of(bundle)
        with tempfile.TemporaryDirectory(prefix="sage-emitters-") as folder:
            found = {name: graph(bundle, name, feeds[name], Path(folder)) for name in GRAPHS if args.graph in (None, name)}
    except SageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    command = "python benchmarks/emitters.py " + " ".join(sys.argv[1:])
    if args.json:
        print(json.dumps({"name": "emitters", "machine": machine(), "versions": versions(), "command": command, "graphs": found}, indent=1))
        return 0
    for name, result in found.items():
        ratio = result["scale_ratio"]
        print(f"{name}: " + ", ".join(f"{count} {what}" for what, count in result["nodes"].items()))
        print(f"  scales, ours over ModelOpt's: {ratio['min']:.3f} to {ratio['max']:.3f}, median {ratio['median']:.3f}")
        print(f"  quantizers {result['quantizers'][0]} and {result['quantizers'][1]}, casts {result['casts'][0]} and {result['casts'][1]}")
        for who, noise in result["sqnr_db"].items():
            print(f"  {who}: " + ", ".join(f"{output} {value} dB" for output, value in noise.items()))
        for row in result["different"]:
            print(f"    {row['op']} {row['node']}: inputs {list(row['ours'])} and {list(row['modelopt'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
