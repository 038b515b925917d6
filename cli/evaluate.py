"""CCC of checkpoints on a prepared store: both protocols, pooled and per video, on every original frame, and with one modality masked.

overlap: windows of 300 ticks every 200, averaged. live: the newest tick of a window every --hop ticks, held until the next.
Several checkpoints are evaluated side by side, or as one with --ensemble. --suite corrupts sound, faces and their timing instead, protocol
overlap: a spoiled sense keeps its mask, but in noface.

example:
  sage-edge evaluate checkpoint store --split val
  sage-edge evaluate fold0 fold1 fold2 store --ensemble mean --smooth one-euro:0.5,1 --submission out/submission --split test
  sage-edge evaluate paper ours concat store --suite --plot out/suite.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .device import HELP, choose
from .plain import dumps

if TYPE_CHECKING:
    from sage_edge.runtime.smoothing import Smoothing
    from sage_edge.training.data.store import Store
    from sage_edge.training.ensemble import Ensemble
    from sage_edge.training.model import SAGE

SMOOTHINGS = ("one-euro", "average")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", metavar="CKPT", type=Path, nargs="+", help="checkpoint folder, made by 'sage-edge train'; one or more")
    parser.add_argument("data", metavar="DATA", type=Path, help="store folder, made by 'sage-edge prepare'")
    parser.add_argument("--split", default="val", choices=["train", "val", "test"], help="which trials (default val)")
    parser.add_argument("--preset", metavar="P", help="refuse a checkpoint of another preset")
    parser.add_argument("--hop", type=int, default=15, metavar="TICKS", help="of the live protocol (default 15)")
    parser.add_argument(
        "--ensemble",
        choices=["mean", "best"],
        help="also all checkpoints as one: averaged, or each target from the one whose own validation CCC of it was best",
    )
    parser.add_argument(
        "--smooth",
        action="append",
        default=[],
        metavar="FILTER",
        help="also smoothed, and what that changes: one-euro[:MIN_CUTOFF_HZ,BETA] (causal), average[:TICKS or SECONDSs] (centred in overlap, "
        "trailing in live), or all; may be repeated",
    )
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="DIR",
        help="write the challenge's file of predictions (overlap; of the ensemble, smoothed, where asked for) into a new folder",
    )
    parser.add_argument("--suite", action="store_true", help="CCC and weights under corruption, a column per checkpoint")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg|png", help="with --suite: draw it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the suite's corruption (default 0)")
    parser.add_argument("--device", default="auto", metavar="D", help=HELP)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    _check(args)

    import torch

    from sage_edge.runtime.machine import cores
    from sage_edge.training import checkpoint
    from sage_edge.training.data.store import Store
    from sage_edge.training.ensemble import check_alike

    torch.set_num_threads(args.threads or cores())
    paths = dict(zip(labels(args.checkpoints), args.checkpoints, strict=True))
    device = choose(args.device)
    models, metas = {}, {}
    for label, path in paths.items():
        model, meta = checkpoint.load(path, args.preset)
        models[label] = model.to(device)
        metas[label] = {"checkpoint": str(path), "metrics": meta["metrics"], "trained_on": meta["trained_on"]}
    check_alike(models)
    store = Store.open(args.data)
    return _suite(args, models, metas, store) if args.suite else _scores(args, models, metas, store)


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together before anything is loaded. Raises UsageError."""
    from sage_edge.runtime.errors import UsageError

    if args.hop < 1 or (args.threads is not None and args.threads < 1):
        raise UsageError(f"--hop {args.hop} and --threads {args.threads} must be at least 1")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed} must be at least 0")
    if args.suite:
        for name in ("ensemble", "smooth", "submission"):
            if getattr(args, name):
                raise UsageError(f"--suite evaluates each checkpoint as it is; leave --{name} away, or run it without --suite")
    if args.plot is not None:
        if not args.suite:
            raise UsageError("--plot draws the suite; give --suite too")
        if args.plot.suffix not in (".svg", ".png"):
            raise UsageError(f"--plot {args.plot} is neither .svg nor .png; give it one of these suffixes")
    if args.submission is not None:
        from sage_edge.training.submission import refuse_existing

        refuse_existing(args.submission)
        if len(args.checkpoints) > 1 and args.ensemble is None:
            raise UsageError(
                f"--submission writes one model's estimates, {len(args.checkpoints)} are given; add --ensemble mean or best, or give one"
            )
        if len(_smoothings(args.smooth)) > 1:
            raise UsageError("--submission writes one file, several --smooth are given; give one of them")
    _smoothings(args.smooth)


def _smoothings(texts: list[str]) -> list[Smoothing]:
    """What --smooth asks for, each once. Raises UsageError."""
    from sage_edge.runtime.smoothing import Smoothing

    names = [name for text in texts for name in (SMOOTHINGS if text == "all" else (text,))]
    return list(dict.fromkeys(Smoothing.parse(name) for name in names))


def labels(paths: list[Path]) -> list[str]:
    """A short name for each checkpoint: its folder's, with as many parents as it takes to tell them apart. Raises UsageError for one given twice."""
    from sage_edge.runtime.errors import UsageError

    whole = [path.absolute() for path in paths]
    for i, path in enumerate(whole):
        if path in whole[:i]:
            raise UsageError(f"{paths[i]} is given twice; give each checkpoint once")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole) or any(path.parts[-depth:] == ("ensemble",) for path in whole):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]


def _scores(args: argparse.Namespace, models: dict[str, SAGE], metas: dict[str, dict[str, Any]], store: Store) -> int:
    from sage_edge.runtime.errors import DataError
    from sage_edge.training import evaluation, submission
    from sage_edge.training.prediction import BOTH

    from . import evaluate_text

    labelled = any(trial.labels_valid.any() for trial in store.trials(args.split))
    if not labelled and args.submission is None:
        raise DataError(
            f"no frame of the {args.split!r} split of {store.path} has a label, so it has no CCC; --submission DIR writes predictions without one"
        )
    ensemble, smoothings = _ensemble(args.ensemble, metas), _smoothings(args.smooth)
    variants, wanted = ([BOTH, *evaluation.WITHOUT.values()], evaluation.PROTOCOLS) if labelled else ([BOTH], ["overlap"])
    found = evaluation.gather(models, store, args.split, variants, wanted, args.hop, ensemble=ensemble, smoothings=smoothings, progress=True)
    blocks = evaluation.report(found) if labelled else dict.fromkeys(found.frames, evaluation.NO_SCORES)
    written = None
    if args.submission is not None:
        label = evaluation.ENSEMBLE if ensemble else next(iter(models))
        kind = evaluation.Kind("overlap", BOTH, smoothings[0] if smoothings else None)
        written = submission.write(args.submission, found.trials, found.frames[label][kind])
    if args.json:
        print(dumps(_as_json(args.split, metas, blocks, written), sort_keys=True))
    else:
        print("\n".join(evaluate_text.scores(args.split, blocks, ensemble, labelled) + evaluate_text.submission(written)))
    return 0


def _ensemble(how: str | None, metas: dict[str, dict[str, Any]]) -> Ensemble | None:
    from sage_edge.training.ensemble import best_of, mean_of

    if how is None:
        return None
    return mean_of(list(metas)) if how == "mean" else best_of({label: meta["metrics"] for label, meta in metas.items()})


def _as_json(split: str, metas: dict[str, dict[str, Any]], blocks: dict[str, dict[str, Any]], written: Any) -> dict[str, Any]:
    """One checkpoint: its block and where it comes from. Several: {"checkpoints": [...], "ensemble": {...} or absent}."""
    from dataclasses import asdict

    own = [{"checkpoint": meta["checkpoint"], "trained_on": meta["trained_on"], **blocks[label]} for label, meta in metas.items()]
    result: dict[str, Any] = {"split": split, **own[0]} if len(own) == 1 else {"split": split, "checkpoints": own}
    if "ensemble" in blocks:
        result["ensemble"] = blocks["ensemble"]
    return result if written is None else {**result, "submission": asdict(written)}


def _suite(args: argparse.Namespace, models: dict[str, SAGE], metas: dict[str, dict[str, Any]], store: Store) -> int:
    from dataclasses import asdict

    from sage_edge.training.data.corruption import CELLS
    from sage_edge.training.suite import run_suite

    from . import evaluate_text

    arms = arm_labels({label: model.preset for label, model in models.items()})
    result = run_suite({arms[label]: model for label, model in models.items()}, store, args.split, args.seed, progress=True)
    report = {
        "split": args.split,
        "seed": args.seed,
        "checkpoints": {arms[label]: {"checkpoint": meta["checkpoint"], "trained_on": meta["trained_on"]} for label, meta in metas.items()},
        "cells": {name: asdict(cell) for name, cell in CELLS.items()},
        "suite": result,
    }
    if args.plot is not None:
        from . import suite_plot

        suite_plot.write(args.plot, report)
    print(dumps(report, sort_keys=True) if args.json else "\n".join(evaluate_text.suite(report)))
    return 0


def arm_labels(presets: dict[str, Any]) -> dict[str, str]:
    """{label: what weighs in that model}: "temporal", "modality-only", "modality" or "concat"; the label itself where two are of one kind.

    Labels throughout where one of them is another's kind: no two are alike.
    """
    kinds = {label: "concat" if preset.fusion == "concat" else preset.reliability for label, preset in presets.items()}
    arms = {label: kind if list(kinds.values()).count(kind) == 1 else label for label, kind in kinds.items()}
    return arms if len(set(arms.values())) == len(arms) else {label: label for label in arms}
