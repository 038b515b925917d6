"""Does reliability earn its name? SAGE against plain concatenation under every cell of the evaluation suite, on synthetic people.

    python benchmarks/reliability.py --seeds 0,1,2 --out DIR            # tables
    python benchmarks/reliability.py --seeds 0,1,2 --out DIR --json     # one object
    python benchmarks/reliability.py --seeds 0 --out DIR --set fusion_epochs=30 --arms modality,concat

Per seed: a corpus of its own (people are in one split only), encoders trained once with corruption, and every arm over the same cached features,
with the same windows, masks, corruption, epochs and learning rate, from the same seed; the epoch with the best clean validation CCC is kept, in
all arms alike. Then every cell of `sage-edge evaluate --suite`. DIR/seedN keeps corpus, encoders, checkpoints and results: what is there is
not made again. On two cores a seed takes about half an hour; other seeds can run beside it, each in a process of its own, into the same DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from sage_edge.runtime.files import atomic_file
from sage_edge.runtime.machine import machine, versions
from sage_edge.runtime.progress import Progress
from sage_edge.training import SAGE, checkpoint, presets, settings, train
from sage_edge.training.config import TrainConfig, recipe, split_settings
from sage_edge.training.data.corruption import CELLS
from sage_edge.training.data.store import Store, prepare
from sage_edge.training.data.synthetic import synthesise
from sage_edge.training.encoders.wavlm import toeplitz
from sage_edge.training.fusion.refine import Refinement, RefinementLayer
from sage_edge.training.stages.fusion import FusionStage
from sage_edge.training.suite import run_suite

ARMS: dict[str, dict[str, str]] = {
    "paper": {"reliability": "temporal", "rgf_scale": "paper"},
    "temporal": {"reliability": "temporal"},
    "modality-only": {"reliability": "modality-only"},
    "modality": {"reliability": "modality"},
    "concat": {"fusion": "concat"},
}
SETTINGS = {"views": "4", "corrupt": "0.5", "gate": "0.3", "reduction": "both", "fusion_stride": "100"}
"""Of every arm's fusion; `gate` does nothing in one without weights per modality."""
STAGE = 2
"""The fusion's number among the stages, of which its draws depend."""


def corpus_of(folder: Path, seed: int) -> Store:
    """The prepared corpus of `seed` under `folder`, made where it is not there."""
    if not (folder / "store" / "index.json").is_file():
        if not (folder / "corpus").is_dir():
            synthesise(folder / "corpus", seed=seed)
        prepare(folder / "corpus", folder / "store")
    return Store.open(folder / "store")


def encoders_of(folder: Path, store: Store, config: TrainConfig) -> SAGE:
    """A model whose two encoders are trained and whose fusion is not."""
    out = folder / "encoders"
    if not out.is_dir():
        alone = settings.replace(config, {"fusion_epochs": 0, "reduction": "batch"})
        train(store, presets.get("tiny"), out, alone, resume=out.with_name(out.name + ".run").is_dir())
    return checkpoint.load(out)[0]


def trained(arm: str, folder: Path, store: Store, shared: FusionStage, config: TrainConfig) -> tuple[SAGE, SAGE]:
    """(model with fusion `arm` before training, and after), over the features of `shared`."""
    torch.manual_seed(config.seed)
    model = SAGE(presets.get("tiny", ARMS[arm]))
    model.visual.load_state_dict(shared.model.visual.state_dict())
    model.audio.load_state_dict(shared.model.audio.state_dict())
    fresh = SAGE(model.preset).eval()
    fresh.load_state_dict(model.state_dict())
    out = folder / arm
    if out.is_dir():
        return fresh, checkpoint.load(out)[0]
    stage = FusionStage(model.eval(), shared.train, shared.val, config)
    stage.cache, stage.val_cache = shared.cache, shared.val_cache
    with Progress(f"train {arm}", stage.epochs * stage.steps, "steps") as bar:
        for epoch in range(stage.epochs):
            draws = [config.seed, STAGE, epoch]
            torch.manual_seed(int(np.random.SeedSequence(draws).generate_state(1)[0]))
            stage.epoch(epoch, np.random.default_rng(draws), lambda loss: bar.step(note=f"loss {loss:.3f}"))
    stage.finish()
    meta = {**store.meta, "digest": store.digest}
    checkpoint.save(out, model.eval(), trained_on=meta, epoch=stage.best["epoch"] + 1, metrics=stage.best["score"])
    return fresh, model


@torch.no_grad()
def scale_figures(model: SAGE, stage: FusionStage) -> dict[str, float]:
    """What the softmax over time leaves of a validation window: deviations over time of its input and its output, and of the first attention."""
    seen: dict[str, Tensor] = {}
    refine = model.fusion.core.refine
    assert isinstance(refine, Refinement)
    layer = refine.layers[0]
    assert isinstance(layer, RefinementLayer)
    hooks = [
        refine.project.register_forward_pre_hook(lambda module, args: seen.update(gated=args[0])),
        layer.register_forward_pre_hook(lambda module, args: seen.update(attended=args[0], buckets=args[1], off=args[2])),
        refine.register_forward_hook(lambda module, args, z: seen.update(refined=z)),
    ]
    full = [i for i, (_, newest, _) in enumerate(stage.val_cache.ends) if newest >= model.preset.window - 1]
    batch = stage.val_cache.batch(full[:8])
    output = model.eval().fusion(batch.visual, batch.audio, batch.visual_mask, batch.audio_mask)
    for hook in hooks:
        hook.remove()
    attention = first_attention(layer, seen["attended"], seen["buckets"], seen["off"])
    return {
        "gated_over_time": float(seen["gated"].std(1).mean()),
        "attention_over_keys": float((attention * attention.shape[-1]).std(-1).mean()),
        "refined_over_time": float(seen["refined"].std(1).mean()),
        "estimate_over_time": float(output.estimates.std(1).mean()),
        "weight_over_time": float(output.temporal.std(1).mean()),
    }


def first_attention(layer: RefinementLayer, x: Tensor, buckets: Tensor, keys_off: Tensor) -> Tensor:
    """Softmax of `layer`'s attention, [n, heads, W, W], which its forward pass keeps to itself."""
    y = layer.norm1(x)
    query, key = layer._split(layer.q_proj(y) * layer.head_dim**-0.5), layer._split(layer.k_proj(y))
    return torch.softmax(query @ key.transpose(2, 3) + toeplitz(layer.distance(buckets).t(), x.shape[1]) + keys_off, dim=-1)


def one_seed(seed: int, out: Path, arms: Sequence[str], values: Mapping[str, str]) -> dict[str, Any]:
    """{"cells": {arm: {cell: {...}}}, "scale": {arm: {"initial", "trained"}}}."""
    folder = out / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "result.json"
    _, config = split_settings(presets.get("tiny"), recipe("tiny"), {"seed": str(seed), **SETTINGS, **values})
    if kept.is_file():
        known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if known["config"] == vars(config) and set(arms) <= set(known["cells"]):
            return known
    store = corpus_of(folder, seed)
    encoders = encoders_of(folder, store, config)
    result: dict[str, Any] = {"cells": {}, "scale": {}, "config": vars(config) | {}}
    shared = FusionStage(encoders, store.trials("train"), store.trials("val"), config)
    shared.corpus = store.digest
    shared.start(folder)
    models = {arm: trained(arm, folder, store, shared, config) for arm in arms}
    for arm, (fresh, model) in models.items():
        result["scale"][arm] = {"initial": scale_figures(fresh, shared), "trained": scale_figures(model, shared)}
    result["cells"] = run_suite({arm: model for arm, (_, model) in models.items()}, store, "val", seed, progress=True)
    with atomic_file(kept) as file:
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def over_seeds(results: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each cell and arm: CCC and weight of the sense that the cell spoils; and of modality - concat."""

    def spread(numbers: Sequence[float]) -> dict[str, float]:
        return {"mean": round(float(np.mean(numbers)), 4), "deviation": round(float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0, 4)}

    def of(arm: str, cell: str, key: str) -> list[float]:
        return [float(result["cells"][arm][cell][key]) for result in results]

    table: dict[str, Any] = {}
    for name, cell in CELLS.items():
        row: dict[str, Any] = {arm: {key: spread(of(arm, name, key)) for key in ("valence", "arousal", "mean")} for arm in arms}
        for arm in arms:
            if cell.modality in ("visual", "audio") and results[0]["cells"][arm][name][f"weight_{cell.modality}"] is not None:
                row[arm]["weight_of_spoiled"] = spread(of(arm, name, f"weight_{cell.modality}"))
        if {"modality", "concat"} <= set(arms):
            row["modality_minus_concat"] = spread(np.subtract(of("modality", name, "mean"), of("concat", name, "mean")).tolist())
        table[name] = row
    unmasked = [name for name, cell in CELLS.items() if cell.modality in ("visual", "audio") and not cell.masked]
    if {"modality", "concat"} <= set(arms):
        gaps = np.array([np.subtract(of("modality", name, "mean"), of("concat", name, "mean")) for name in unmasked])
        table["corrupted, unmasked"] = {"cells": unmasked, "modality_minus_concat": spread(gaps.mean(0).tolist())}
    return table


def show(table: Mapping[str, Any], results: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[str]:
    """Lines of text."""

    def cell(value: Mapping[str, float] | None) -> str:
        return f"{value['mean']:7.3f} +-{value['deviation']:5.3f}" if value else " " * 15

    lines = [f"{'CCC, mean of V and A':<14}" + "".join(f"{arm:>16}" for arm in arms) + f"{'modality-concat':>18}{'spoiled weight':>18}"]
    for name in CELLS:
        row = table[name]
        weight = row.get("modality", {}).get("weight_of_spoiled")
        lines.append(
            f"{name:<14}" + "".join(f" {cell(row[arm]['mean'])}" for arm in arms) + f"   {cell(row.get('modality_minus_concat'))}   {cell(weight)}"
        )
    if "corrupted, unmasked" in table:
        lines.append(f"modality - concat over the corrupted, unmasked cells: {cell(table['corrupted, unmasked']['modality_minus_concat'])}")
    keys = list(results[0]["scale"][arms[0]]["initial"])
    lines.append(f"\n{'softmax over time':<26}" + "".join(f"{key:>22}" for key in keys))
    for arm in arms:
        for when in ("initial", "trained"):
            means = [np.mean([result["scale"][arm][when][key] for result in results]) for key in keys]
            lines.append(f"{arm + ', ' + when:<26}" + "".join(f"{mean:>22.4g}" for mean in means))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="of corpus, encoders and arms alike (0,1,2)")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"some of {', '.join(ARMS)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of all arms' training; repeatable")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args()
    arms = args.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"no arm {unknown[0]!r}; one of {', '.join(ARMS)}")
    results = [one_seed(int(seed), args.out, arms, settings.pairs(args.set)) for seed in args.seeds.split(",")]
    table = over_seeds(results, arms)
    if args.json:
        command = "python benchmarks/reliability.py " + " ".join(sys.argv[1:])
        print(json.dumps({"name": "reliability", "machine": machine(), "versions": versions(), "command": command, "table": table, "seeds": results}))
    else:
        print("\n".join(show(table, results, arms)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
