"""Train SAGE in full precision on a prepared store: faces alone, sound alone, then the fusion of both, then all end to end.

Which of these stages run is the preset's recipe and --set: tiny trains its encoders from scratch; base, paper and large take the published
ones (see 'sage-edge weights') as they are, and --set joint_epochs=N releases them layer by layer afterwards.

OUT is a checkpoint folder, written whole when all is done; until then OUT.run holds the state after each epoch, from which --resume continues,
and its TensorBoard log. With a validation split, the epoch of fusion or joint training with the best pooled CCC
(overlap) is kept.

examples:
  sage-edge train store --preset tiny --out checkpoint --set fusion_epochs=20
  sage-edge train store --preset base --out fold2 --set folds=6 --set fold=2
  torchrun --nproc-per-node 4 -m sage_edge.cli.main train store --preset base --out checkpoint
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .device import HELP, choose


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--preset", default="tiny", metavar="P", help="size of the model: tiny, base, paper, large (default tiny)")
    parser.add_argument("--out", required=True, metavar="OUT", type=Path, help="checkpoint folder to write")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the training or of the model; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, machine and threads: same weights (default 0)")
    parser.add_argument("--device", default="auto", metavar="D", help=HELP)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per core, shared by torchrun's processes)")
    parser.add_argument("--resume", action="store_true", help="continue the run that OUT.run holds")
    parser.add_argument("--json", action="store_true", help="print the checkpoint's description as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    import torch

    from sage_edge.runtime.errors import UsageError
    from sage_edge.runtime.machine import cores
    from sage_edge.training import distributed, presets, settings
    from sage_edge.training.config import recipe, split_settings
    from sage_edge.training.data.store import Store
    from sage_edge.training.loop import train

    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads} must be at least 1")
    values = settings.pairs(args.set)
    preset, config = split_settings(presets.get(args.preset), recipe(args.preset), {"seed": str(args.seed), **values})
    torch.set_num_threads(args.threads or max(1, cores() // distributed.launched()))
    device = choose(args.device)
    try:
        with distributed.processes(device) as device:
            meta = train(Store.open(args.data), preset, args.out, config, resume=args.resume, device=device)
            if not distributed.main():
                return 0
    except KeyboardInterrupt:
        kept = args.out.with_name(args.out.name + ".run")
        if (kept / "state.pt").is_file():
            print(f"{kept} holds every whole epoch; continue with --resume, or remove it", file=sys.stderr)
        elif kept.is_dir():
            print(f"{kept} holds the features so far; continue with --resume, or remove it", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps(meta, sort_keys=True))
        return 0
    metrics = meta["metrics"]
    how = f"{device.type}, {config.precision}" + (" autocast" if config.precision == "bf16" else "")
    print(f"{args.out}: preset {preset.name}, {metrics['seconds']:.0f} s ({how})")
    if "val_mean" in metrics:
        print(
            f"validation CCC (overlap): valence {_ccc(metrics['val_valence'])}  arousal {_ccc(metrics['val_arousal'])}  "
            f"mean {_ccc(metrics['val_mean'])}, best of its epochs: number {metrics['epoch']} of {metrics['stage']}"
        )
    return 0


def _ccc(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
