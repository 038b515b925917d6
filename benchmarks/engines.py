"""Engines: each graph on each backend and precision, against PyTorch eager and against ONNX Runtime in FP32; two threads, in turns.

    python benchmarks/run.py engines --preset base --json

One call is 15 faces (`visual`, one batch), one window of sound (`audio`) or one window of features (`fusion`). Weights are random, INT8 graphs are
quantized with ranges found on synthetic clips (specimen.py). Variants are GRAPH_BACKEND_PRECISION; OpenVINO's bf16 ones are there where the processor
has bf16. What compiling costs, time and peak memory, is another command: `python benchmarks/compile_cost.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from specimen import FRAMES, GRAPHS, Specimen, specimen
from timing import interleaved, summary

THREADS = 2
CALLS = {"visual": 20, "audio": 80, "fusion": 20}
"""A variant of this graph is timed n / CALLS times."""
REFERENCES = ("onnxruntime_fp32", "torch_fp32")
BACKENDS = ("onnxruntime", "openvino")


def run(n: int = 400, seed: int = 0, preset: str = "base") -> dict[str, Any]:
    """`variants`: {GRAPH_BACKEND_PRECISION: {median, min, n}} in milliseconds; `ratios`: each over ONNX Runtime FP32 and over PyTorch."""
    import torch

    torch.set_num_threads(THREADS)
    variants: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    with specimen(preset, seed) as made:
        modules = _modules(preset, seed)
        for graph in GRAPHS:
            calls, missing = _calls(made, graph, modules[graph])
            left_out |= missing
            print(f"{graph}: {', '.join(calls)}", file=sys.stderr, flush=True)
            for name, seconds in interleaved(calls, max(3, n // CALLS[graph]), warmup=2).items():
                variants[f"{graph}_{name}"] = summary(seconds, per_second=1e3)
        facts = dict(made.facts)
    return {
        "unit": "ms",
        "variants": variants,
        "ratios": ratios(variants),
        "notes": {
            "timed": f"{FRAMES} faces in one batch (visual), one window of {made.preset.window} ticks (audio, fusion)",
            "model": f"{preset}, random weights",
            "threads": THREADS,
            "specimen": facts,
            "left out": left_out,
        },
    }


def ratios(variants: dict[str, dict[str, float]]) -> dict[str, float]:
    """`A_over_B` for every variant A of a graph and its references B."""
    found = {}
    for name, row in variants.items():
        graph = name.split("_")[0]
        for reference in (f"{graph}_{each}" for each in REFERENCES):
            if reference in variants and reference != name:
                found[f"{name}_over_{reference}"] = round(variants[reference]["median"] / row["median"], 2)
    return found


def _modules(preset: str, seed: int) -> dict[str, Any]:
    """The model as PyTorch runs it at its best: the weights of the specimen, weight norms folded."""
    import torch

    from sage_edge.training import SAGE, presets

    torch.manual_seed(seed)
    model = SAGE(presets.get(preset)).eval().folded()
    return {graph: getattr(model, graph) for graph in GRAPHS}


def _calls(made: Specimen, graph: str, module: Any) -> tuple[dict[str, Callable[[int], object]], dict[str, str]]:
    """BACKEND_PRECISION -> one call of it; and why others are left out."""
    import torch

    from sage_edge.runtime.engines import Engine, open_engine
    from sage_edge.runtime.errors import EngineError
    from sage_edge.runtime.flavours import FLAVOURS

    feed = made.feeds(graph)[0]
    tensors = [torch.from_numpy(value) for value in feed.values()]

    def eager(_: int) -> None:
        with torch.inference_mode():
            module(*tensors)

    def of(engine: Engine) -> Callable[[int], object]:
        return lambda _: engine.run()

    calls: dict[str, Callable[[int], object]] = {"torch_fp32": eager}
    missing: dict[str, str] = {}
    for backend in BACKENDS:
        for asked, kind in FLAVOURS[backend].items():
            if kind.hint == "cuda":
                continue
            try:
                engine = open_engine(made.graph(graph, kind.graphs), backend, len(next(iter(feed.values()))), THREADS, kind.hint)
            except EngineError as error:
                missing[f"{graph}_{backend}_{asked}"] = str(error)
                continue
            for name, value in feed.items():
                engine.inputs[name][...] = value
            calls[f"{backend}_{asked}"] = of(engine)
    return calls, missing
