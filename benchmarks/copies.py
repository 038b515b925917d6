"""Copies to a GPU and back: pinned memory against memory that is not, and against a plain copy on the host, through each binding of CUDA.

Every variant moves the same bytes there and back and waits for them; what came back is compared once before anything is timed. Needs an NVIDIA GPU;
without one it says so in a line and ends with exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import interleaved, summary

from sage_edge.runtime.engines.cuda import BINDINGS, Cuda, open_cuda
from sage_edge.runtime.errors import EngineError

SIZES = {"64_KB": 1 << 16, "2_MB": 1 << 21, "64_MB": 1 << 26}
"""One window of masks, 15 faces of 112 pixels, and enough to see the bus alone."""


def _round_trip(cuda: Cuda, there: NDArray[np.uint8], back: NDArray[np.uint8]) -> Callable[[int], None]:
    with cuda.current():
        stream, memory = cuda.stream(), cuda.alloc(there.nbytes)

    def work(_: int) -> None:
        with cuda.current():
            cuda.copy_in(memory.address, there, stream)
            cuda.copy_out(back, memory.address, stream)
            stream.synchronise()

    back[...] = 0
    work(0)
    if not np.array_equal(there, back):
        raise SystemExit(f"copies: {cuda.driver.name} brought back other bytes; nothing was measured")
    return work


def _opened(stack: ExitStack) -> dict[str, Cuda]:
    found, reasons = {}, []
    for name in BINDINGS:
        try:
            found[name] = open_cuda(name)
            stack.callback(found[name].close)
        except EngineError as error:
            reasons.append(str(error))
    if not found:
        raise SystemExit("copies: " + "; ".join(dict.fromkeys(reasons)))
    for reason in reasons:
        print(f"note: {reason}", file=sys.stderr)
    return found


def run(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """`variants`: {VARIANT: {CASE: {median, min, n}}}, microseconds there and back; `ratios` and GB/s each way per case."""
    rng = np.random.default_rng(seed)
    table: dict[str, dict[str, dict[str, float]]] = {}
    ratios: dict[str, float] = {}
    rates: dict[str, float] = {}
    with ExitStack() as stack:
        opened = _opened(stack)
        for case, size in SIZES.items():
            plain, back, once = rng.integers(0, 256, size, np.uint8), np.empty(size, np.uint8), np.empty(size, np.uint8)

            def memcpy(_: int, plain: NDArray[np.uint8] = plain, once: NDArray[np.uint8] = once, back: NDArray[np.uint8] = back) -> None:
                np.copyto(once, plain)
                np.copyto(back, once)

            variants: dict[str, Callable[[int], object]] = {"memcpy": memcpy}
            for name, cuda in opened.items():
                with cuda.current():
                    there, again = cuda.pinned(size), cuda.pinned(size)
                there[...] = plain
                variants[f"{name} pinned"] = _round_trip(cuda, there, again)
                variants[f"{name} pageable"] = _round_trip(cuda, plain, back)
            for name, seconds in interleaved(variants, min(n, max(5, (n << 21) // size))).items():
                table.setdefault(name, {})[case] = summary(seconds)
                rates[f"{case} {name}"] = round(2 * size / table[name][case]["median"] / 1e3, 2)
            for name in opened:
                pinned = table[f"{name} pinned"][case]["median"]
                for other in ("memcpy", f"{name} pageable"):
                    ratios[f"{case}_{name} pinned_over_{other}"] = round(table[other][case]["median"] / pinned, 3)
        devices = {name: f"{cuda.device.name}, SM {cuda.device.sm}, driver {cuda.device.driver}, {cuda.driver.name}" for name, cuda in opened.items()}
    return {"unit": "us", "variants": table, "ratios": ratios, "notes": {"devices": devices, "gigabytes_per_second": rates}}
