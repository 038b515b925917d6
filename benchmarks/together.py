"""Faces together: one run of the visual engine for several faces, as the live loop makes it for frames that waited, against a run for each.

    python benchmarks/run.py together --preset base --json

ONNX Runtime with one thread, so that milliseconds are CPU time on an idle machine; the weights are random (specimen.py). `largest_difference` is
between the features of both, over the largest feature: 0 means the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from specimen import Specimen, specimen
from timing import interleaved, summary

PRECISIONS = ("fp32", "int8-cpu")
FACES = (1, 4, 10, 15)
CALLS = 20
"""A variant is timed n / CALLS times,"""
REPEAT = 8
"""so many calls in a row each: what ran before it leaves the caches cold for the first."""


def run(n: int = 400, seed: int = 0, preset: str = "base") -> dict[str, Any]:
    """`variants`: {PRECISION: {"COUNT_together" or "COUNT_apart": {median, min, n}}} in milliseconds; `ratios`: how many times faster together is."""
    variants: dict[str, dict[str, dict[str, float]]] = {}
    differences: dict[str, float] = {}
    with specimen(preset, seed) as made:
        for precision in PRECISIONS:
            variants[precision], differences[precision] = _compare(made, precision, max(3, n // CALLS))
        facts = dict(made.facts)
    ratios = {
        f"{precision}_{count}_together_over_apart": round(rows[f"{count}_apart"]["median"] / rows[f"{count}_together"]["median"], 2)
        for precision, rows in variants.items()
        for count in FACES
    }
    notes = {"model": f"{preset}, random weights", "threads": 1, "largest_difference": differences, "specimen": facts}
    return {"unit": "ms", "variants": variants, "ratios": ratios, "notes": notes}


def _compare(made: Specimen, precision: str, times: int) -> tuple[dict[str, dict[str, float]], float]:
    from sage_edge.runtime.engines import open_engine

    faces = made.feeds("visual")[0]["faces"][: max(FACES)]
    engine, single = (open_engine(made.graph("visual", precision), "onnxruntime", room, 1) for room in (len(faces), 1))
    engine.inputs["faces"][...] = faces
    found = np.zeros_like(engine.outputs["visual"])

    def together(count: int) -> None:
        engine.run(count)

    def apart(count: int) -> None:
        for item in range(count):
            single.inputs["faces"][0] = faces[item]
            single.run()
            found[item] = single.outputs["visual"][0]

    def repeated(call: Callable[[int], None], count: int) -> Callable[[int], None]:
        def calls(_: int) -> None:
            for _ in range(REPEAT):
                call(count)

        return calls

    calls = {f"{count}_{call.__name__}": repeated(call, count) for count in FACES for call in (together, apart)}
    rows = {name: summary(seconds, per_second=1e3 / REPEAT) for name, seconds in interleaved(calls, times, warmup=2).items()}
    largest = 0.0
    for count in FACES:
        together(count)
        apart(count)
        difference = np.abs(engine.outputs["visual"][:count] - found[:count]).max() / np.abs(found[:count]).max()
        largest = max(largest, float(difference))
    return rows, largest
