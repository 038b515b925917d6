"""Latency of every stage of a bundle on this device, and the real-time factor of the whole loop: seconds of work per second of media.

The loop is that of `run`: decode, find the face, crop, encode, and at every hop sound, fusion and one line of JSON. Without --video it is fed a
drawn face and a voice. A warm-up comes first and is not counted. Two precisions take turns on the same frames.

example:
  sage-edge profile out/demo/demo.sage --precision both --seconds 30
"""

from __future__ import annotations

import argparse
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.sage", help="bundle folder, made by 'sage-edge compile'")
    parser.add_argument("--precision", default="int8", help="fp32, int8, bf16, int8-bf16, both, or auto: the fastest on this device (default int8)")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime, openvino, tensorrt, or auto: the fastest here (default onnxruntime)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="seconds of media to measure over (default 30)")
    parser.add_argument("--video", metavar="FILE", help="measure on this video, repeated as needed")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="size of the drawn video (default 640x480)")
    parser.add_argument("--hop", type=int, metavar="N", help="ticks between estimates, 30 a second (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the backend (default: by the machine)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    import cv2

    from sage_edge.runtime.profile import profile

    # As in `run`: the engines have the cores.
    cv2.setNumThreads(1)
    precisions = ["fp32", "int8"] if args.precision == "both" else [args.precision]
    result = profile(
        args.bundle, precisions, args.backend, seconds=args.seconds, video=args.video, size=_size(args.size), hop=args.hop, threads=args.threads
    )
    print(json.dumps(result.to_dict()) if args.json else "\n".join(_table(result.to_dict())))
    return 0


def _size(text: str) -> tuple[int, int]:
    from sage_edge.runtime.errors import UsageError

    width, cross, height = text.partition("x")
    if not cross or not width.isdecimal() or not height.isdecimal():
        raise UsageError(f"--size {text!r} is not WIDTHxHEIGHT; write 640x480")
    return int(width), int(height)


def _table(result: dict[str, Any]) -> list[str]:
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"{result['bundle']} with {result['backend']}, {result['threads']} thread(s), a hop of {result['hop']} ticks; "
        f"{result['seconds']:.1f} s of {result['feed']}, after {result['warm_up_s']:.0f} s of warm-up that are not counted",
        f"{machine['cpu']}, {machine['cores']} core(s), {machine['arch']}, {machine['system']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    lines += [f"note: {note}" for note in result["notes"]]
    for name, timing in result["precisions"].items():
        lines += ["", f"{name + ' (ms)':<16}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'times':>8}{'share':>8}"]
        work_s = result["seconds"] * timing["real_time_factor"]
        for stage, s in timing["latency_ms"].items():
            share = f"{s['total_s'] / work_s:.0%}" if work_s else "-"
            lines.append(f"  {stage:<14}{s['p50']:>9.3f}{s['p95']:>9.3f}{s['p99']:>9.3f}{s['max']:>9.3f}{s['count']:>8}{share:>8}")
        lines.append(
            f"  real-time factor {timing['real_time_factor']:.3f} (below 1 keeps up); ready {timing['cold_start_ms']:.0f} ms after the start, "
            f"{timing['load_ms']:.0f} of them for its graphs"
        )
    lines += ["", f"peak memory {result['peak_rss_mb']:.0f} MB" + (", all precisions loaded" if len(result["precisions"]) > 1 else "")]
    return lines
