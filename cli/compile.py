"""Compile a training checkpoint into a bundle; or, with --target tensorrt, build a bundle's TensorRT engines on this device.

CKPT -> bundle: ONNX graphs in FP32 and INT8, checked against each other. DATA is a prepared store: its training split calibrates, its validation
split decides. Fails, and writes nothing, when INT8 loses more CCC than --max-drop on valence or arousal, as overlapping windows or live, and
says which graph does it.

NAME.sage -> engines: needs TensorRT and its GPU, and neither PyTorch nor data. Each graph is tried in INT8, then partly in INT8, then in FP16, at
last in FP32; the first that builds and computes the bundle's golden windows is kept in the user's cache folder. The first build takes minutes. With
--fastest it is the fastest of them that is kept.

examples:
  sage-edge compile checkpoint --data store --out demo.sage --max-drop 0.005
  sage-edge compile demo.sage --target tensorrt
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sage_edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from sage_edge.compile.tensorrt import BuiltGraph

_OF_CHECKPOINT = ("data", "out", "max_drop", "method", "clips", "ranges", "float", "reduce_range", "modelopt", "preset")
_OF_BUNDLE = ("precision", "workspace_mb", "fastest")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="CKPT|NAME.sage", type=Path, help="checkpoint folder; with --target, a bundle")
    parser.add_argument("--force", action="store_true", help="replace NAME.sage if it exists; with --target, build engines that are there again")
    parser.add_argument("--json", action="store_true", help="print the manifest, or what was built, as one JSON object")
    checkpoint = parser.add_argument_group("checkpoint -> bundle")
    checkpoint.add_argument("--data", metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'; needed")
    checkpoint.add_argument("--out", metavar="NAME.sage", type=Path, help="bundle folder to write; needed")
    checkpoint.add_argument("--max-drop", type=float, metavar="X", help="CCC that INT8 may lose (default 0.005)")
    checkpoint.add_argument("--method", help="calibration: minmax, entropy, percentile (default), mse, or auto: the best of them per tensor")
    checkpoint.add_argument("--clips", type=int, metavar="N", help="windows to calibrate on (default 24)")
    checkpoint.add_argument("--ranges", type=Path, metavar="FILE", help="ranges that 'sage-edge calibrate' wrote, instead of calibrating")
    checkpoint.add_argument("--float", action="append", metavar="GROUP", help="leave a group of weights in float, besides the usual ones; repeatable")
    checkpoint.add_argument(
        "--reduce-range",
        action="store_true",
        default=None,
        help="int8-cpu weights of 7 bits, for x86 without VNNI (see 'sage-edge doctor')",
    )
    checkpoint.add_argument(
        "--modelopt", action="store_true", default=None, help="let NVIDIA ModelOpt make the int8-trt graphs, from the same ranges"
    )
    checkpoint.add_argument("--preset", metavar="P", help="fail unless the checkpoint is of this preset")
    bundle = parser.add_argument_group("bundle -> engines of this device")
    bundle.add_argument("--target", choices=("tensorrt",), help="what to build engines for")
    bundle.add_argument("--precision", choices=("int8", "fp32", "both"), help="int8 (default; where it does not build, what does), fp32 or both")
    bundle.add_argument(
        "--fastest", action="store_true", default=None, help="build all that builds but FP32, time it here, keep the fastest of each graph"
    )
    bundle.add_argument("--workspace-mb", type=int, metavar="N", help="GPU memory that one layer may take while it computes (default 1024)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    return _compile(args) if args.target is None else _build(args)


def _check(args: argparse.Namespace) -> None:
    """UsageError for options of the one way given with the other."""
    from sage_edge.runtime.bundle import MANIFEST

    is_bundle = (args.source / MANIFEST).is_file()
    if args.target is None:
        if is_bundle:
            raise UsageError(f"{args.source} is a bundle; give --target tensorrt to build its engines, or a checkpoint with --data and --out")
        wrong = _given(args, _OF_BUNDLE)
        if wrong:
            raise UsageError(f"{wrong[0]} needs --target tensorrt and a bundle; {args.source} is compiled with --data and --out")
        if args.ranges and (wrong := _given(args, ("method", "clips"))):
            raise UsageError(f"{wrong[0]} says how to find ranges, and --ranges gives some; leave one of the two out")
        if missing := [option for option in ("--data", "--out") if getattr(args, option[2:]) is None]:
            raise UsageError(f"the following arguments are required: {', '.join(missing)}; sage-edge compile --help shows the options and an example")
    else:
        if args.source.is_dir() and not is_bundle:
            raise UsageError(f"{args.source} is no bundle (it has no {MANIFEST}), and --target takes one; compile the checkpoint first")
        wrong = _given(args, _OF_CHECKPOINT)
        if wrong:
            raise UsageError(f"{wrong[0]} is for compiling a checkpoint; leave it out with --target {args.target}")


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]


def _compile(args: argparse.Namespace) -> int:
    import json
    import time

    from sage_edge.calibration import check, clips
    from sage_edge.calibration.ranges import Ranges
    from sage_edge.compile import compile_bundle
    from sage_edge.runtime.bundle import MANIFEST
    from sage_edge.runtime.machine import PeakMemory

    ranges = Ranges.load(args.ranges) if args.ranges else None
    begin_s = time.monotonic()
    with PeakMemory() as memory:
        path = compile_bundle(
            args.source,
            args.data,
            args.out,
            max_drop=check.MAX_DROP if args.max_drop is None else args.max_drop,
            method=args.method or "percentile",
            count=clips.COUNT if args.clips is None else args.clips,
            ranges=ranges,
            float_groups=args.float or (),
            reduce_range=bool(args.reduce_range),
            by_modelopt=bool(args.modelopt),
            preset=args.preset,
            replace=args.force,
        )
    seconds = time.monotonic() - begin_s
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if args.json:
        print(json.dumps(manifest, sort_keys=True))
        return 0
    weights = ", ".join(f"{size / 1e6:.2f} MB in {precision}" for precision, size in manifest["weights_bytes"].items())
    print(f"{path}: weights {weights}; {seconds:.0f} s, {memory.peak_mb / 1e3:.1f} GB at most")
    print(f"{'CCC':<10}{'precision':<11}{'valence':>9}{'arousal':>9}{'mean':>9}")
    for protocol, rows in sorted(manifest["ccc"].items(), reverse=True):
        for precision, row in rows.items():
            print(f"{protocol:<10}{precision:<11}{row['valence']:>9.4f}{row['arousal']:>9.4f}{row['mean']:>9.4f}")
    return 0


def _build(args: argparse.Namespace) -> int:
    import json

    from sage_edge.compile.tensorrt import build_bundle
    from sage_edge.compile.trt_build import WORKSPACE_MB
    from sage_edge.runtime.bundle import Bundle

    bundle = Bundle.open(args.source)
    wanted = ("int8", "fp32") if args.precision == "both" else (args.precision or "int8",)
    options = {"workspace_mb": WORKSPACE_MB if args.workspace_mb is None else args.workspace_mb, "fastest": bool(args.fastest), "rebuild": args.force}
    built = [each for name in wanted for each in build_bundle(bundle, precision=name, **options)]
    if args.json:
        print(json.dumps({"bundle": bundle.manifest.digest, "engines": [each.to_dict() for each in built]}, sort_keys=True))
    else:
        print("\n".join(_table(built)))
    return 0


def _table(built: list[BuiltGraph]) -> list[str]:
    lines = [f"{'graph':<8}{'wanted':<8}{'built':<13}{'s':>8}{'MB':>9}{'layers':>8}{'difference':>12}{'allowed':>9}"]
    for each in built:
        seconds = "there" if each.reused else f"{each.seconds:.1f}"
        row = f"{each.graph:<8}{each.precision:<8}{each.rung:<13}{seconds:>8}{each.size_bytes / 1e6:>9.2f}{each.layers:>8}"
        kinds = ", ".join(f"{count} {name}" for name, count in each.precisions.items())
        lines.append(f"{row}{each.difference:>12.2g}{each.allowed:>9.2g}" + (f"  {kinds}" if kinds else ""))
        if each.ms:
            lines.append("  one run: " + ", ".join(f"{name} {ms:.3g} ms" for name, ms in sorted(each.ms.items(), key=lambda item: item[1])))
        lines += [f"  {failure.rung} failed: {failure.why}" for failure in each.failed]
    return [*lines, f"in {Path(built[0].path).parent}"]
