"""Make a corpus of synthetic people in Aff-Wild2's layout: videos with sound, face crops, labels.

Faces and voices are drawn and synthesised from the seed; no real person is in it. Nobody is in two videos, so nobody is in both splits.
DIR is written whole or not at all.

example:
  sage-edge synth corpus --seed 1
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="DIR", type=Path, help="corpus folder to write")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same corpus (default 0)")
    parser.add_argument("--train", type=int, metavar="N", help="people to train on")
    parser.add_argument("--val", type=int, metavar="N", help="people to validate on")
    parser.add_argument("--seconds", type=float, metavar="S", help="mean length of a video")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: two, where there are two cores)")


def run(args: argparse.Namespace) -> int:
    from sage_edge.training.data.synthetic import SECONDS, TRAIN_PEOPLE, VAL_PEOPLE, synthesise

    train = args.train if args.train is not None else TRAIN_PEOPLE
    val = args.val if args.val is not None else VAL_PEOPLE
    seconds = args.seconds if args.seconds is not None else SECONDS
    path = synthesise(args.out, seed=args.seed, train=train, val=val, seconds=seconds, workers=args.workers)
    print(f"{path}: {train} people to train on, {val} to validate on, seed {args.seed}")
    return 0
