"""Latency of every stage of a bundle on this device, and the real-time factor of the whole loop: seconds of work per second of media.

With --camera, --mic or both it is measured over the live devices, one precision after the other: what they grant, how late estimates come, losses.

The loop is that of `run`: decode, find the face, crop, encode, and at every hop sound, fusion and one line of JSON. Without --video it is fed a
drawn face and a voice. A warm-up comes first and is not counted. Two precisions take turns on the same frames. On a Jetson, watts and joules per
estimate follow, measured at the speed of a live run, and what slowed the board down.

example:
  sage-edge profile out/demo/demo.sage --precision both --seconds 30
  sage-edge profile out/demo/demo.sage --camera camera:0 --mic mic:default
"""

from __future__ import annotations

import argparse
from typing import Any

SHOWN = 20
"""Layers of a graph in the table."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.sage", help="bundle folder, made by 'sage-edge compile'")
    parser.add_argument("--precision", default="int8", help="fp32, fp32-cuda, int8, bf16, int8-bf16, both, or auto: the fastest here (default int8)")
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime, openvino, tensorrt, or auto: the fastest here (default onnxruntime)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="seconds of media to measure over (default 30)")
    parser.add_argument("--video", metavar="FILE", help="measure on this video, repeated as needed")
    parser.add_argument("--camera", metavar="URI", help="measure on this live camera: any that 'run' takes")
    parser.add_argument("--mic", metavar="NAME", help="measure on this live microphone: mic:NAME, mic:default")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="size of the drawn video (default 640x480)")
    parser.add_argument("--hop", type=int, metavar="N", help="ticks between estimates, 30 a second (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the backend (default: by the machine)")
    parser.add_argument("--layers", action="store_true", help="with --backend tensorrt: the time of each layer of its engines instead")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    if args.layers:
        return _layers(args)
    import cv2

    from sage_edge.jetson.meter import open_meter
    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.profile import profile
    from sage_edge.runtime.profile_live import profile_live

    # As in `run`: the engines have the cores.
    cv2.setNumThreads(1)
    precisions = ["fp32", "int8"] if args.precision == "both" else [args.precision]
    if args.camera is None and args.mic is None:
        result = profile(
            args.bundle, precisions, args.backend, seconds=args.seconds, video=args.video, size=_size(args.size), hop=args.hop,
            threads=args.threads, meter=open_meter(),
        )  # fmt: skip
    elif args.video is not None:
        raise UsageError(f"--video is a recording; leave it or the live devices away (--camera {args.video} plays it as if it were live)")
    else:
        result = profile_live(
            args.bundle, precisions, args.backend, camera=args.camera or "none", microphone=args.mic or "none", seconds=args.seconds, hop=args.hop,
            threads=args.threads, meter=open_meter(),
        )  # fmt: skip
    print(json.dumps(result.to_dict()) if args.json else "\n".join(_table(result.to_dict())))
    return 0


def _layers(args: argparse.Namespace) -> int:
    import json

    from sage_edge.runtime.bundle import Bundle
    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.layers import time_layers
    from sage_edge.runtime.machine import machine

    if args.backend != "tensorrt":
        raise UsageError(f"--layers is for engines of TensorRT, not of {args.backend}; add --backend tensorrt")
    bundle = Bundle.open(args.bundle)
    times = {name: each.to_dict() for name, each in time_layers(bundle, args.precision).items()}
    result = {"bundle": bundle.path.name, "digest": bundle.manifest.digest, "machine": machine(), "graphs": times}
    print(json.dumps(result) if args.json else "\n".join(_layer_table(times)))
    return 0


def _layer_table(graphs: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, graph in graphs.items():
        total_ms = sum(ms for _, ms in graph["layers"])
        lines += [
            "",
            f"{name} as {graph['rung']}, {graph['key']}: {graph['run_ms']:.3f} ms a run, {total_ms:.3f} ms in {len(graph['layers'])} layers",
        ]
        costliest = sorted(graph["layers"], key=lambda layer: -float(layer[1]))
        shown = costliest[:SHOWN]
        lines += [f"  {ms:>9.3f} ms{f'{ms / total_ms:.0%}' if total_ms else '-':>6}  {layer}" for layer, ms in shown]
        if rest := costliest[SHOWN:]:
            lines.append(f"  {sum(ms for _, ms in rest):>9.3f} ms in {len(rest)} more (--json has all)")
    return lines[1:]


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
        work_s = timing["seconds"] * timing["real_time_factor"]
        for stage, s in timing["latency_ms"].items():
            age = result["live"] and stage == "capture"  # of a frame, which is no work
            share = f"{s['total_s'] / work_s:.0%}" if work_s and not age else "-"
            lines.append(f"  {stage:<14}{s['p50']:>9.3f}{s['p95']:>9.3f}{s['p99']:>9.3f}{s['max']:>9.3f}{s['count']:>8}{share:>8}")
        lines.append(
            f"  real-time factor {timing['real_time_factor']:.3f} (below 1 keeps up); ready {timing['cold_start_ms']:.0f} ms after the start, "
            f"{timing['load_ms']:.0f} of them for its graphs"
        )
        if result["live"]:
            lines += _live_lines(result["live"][name])
    if result["power"]:
        lines += _power_table(result["power"])
    lines += [
        "",
        f"peak memory {result['peak_rss_mb']:.0f} MB" + (", all precisions loaded" if len(result["precisions"]) > 1 and not result["live"] else ""),
    ]
    return lines


def _live_lines(live: dict[str, Any]) -> list[str]:
    devices = [device for device in (live["camera"], live["microphone"]) if device is not None]
    late = live["late_ms"]
    return [
        f"  estimates {late['p50']:.0f} ms late at p50, {late['p95']:.0f} at p95, {late['max']:.0f} at most; {live['frames_stale']} stale frames, "
        f"{live['audio_overruns']} audio overruns, reopened {live['reopened']}, degraded {live['degraded']} times",
        *(f"  {device['uri']}: asked {_known(device['asked'])}; granted {_known(device['granted'])}" for device in devices),
    ]


def _known(mode: dict[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (mode or {}).items() if value is not None) or "nothing"


def _power_table(power: dict[str, Any]) -> list[str]:
    lines = ["", f"power of {power['source']}: {power['idle_watts']:.2f} W at rest; at the speed of a live run"]
    for name, used in power["precisions"].items():
        rails = ", ".join(f"{label} {watts:.2f}" for label, watts in used["rails"].items())
        lines.append(
            f"  {name:<14}{used['watts']:.2f} W ({rails}); {used['joules_per_estimate']:.2f} J an estimate, "
            f"{used['joules_above_idle']:.2f} of them above rest"
        )
    clocks = ", ".join(f"{name} {mhz['mean']:.0f} of {mhz['most']:.0f} MHz" for name, mhz in power["clocks_mhz"].items())
    load = "" if power["gpu_load"] is None else f"; GPU busy {power['gpu_load']:.0%}"
    hottest = power["hottest"]
    heat = "no thermal zone" if hottest is None else f"{hottest['zone']} {hottest['celsius']:.0f} C"
    heat += f" (slows down at {hottest['limit']:.0f})" if hottest and hottest["limit"] is not None else ""
    return [*lines, f"  {_slowed(power)}; hottest: {heat}" + (f"; mean clocks: {clocks}" if clocks else "") + load]


def _slowed(power: dict[str, Any]) -> str:
    causes = [f"{count} x {cause}" for cause, count in power["events"].items() if count]
    causes += [f"cooling by {kind}" for kind in power["cooling"]]
    causes += [f"too hot {power['hot']:.0%} of the time"] if power["hot"] else []
    return ("slowed down: " if power["throttled"] else "not slowed down") + ("" if power["throttled"] or not causes else ": ") + ", ".join(causes)
