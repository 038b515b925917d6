"""Which graphs `precision=` means on a backend, and for "auto" which are faster on this device.

"auto" times one hop of every precision that the bundle holds for the backend, interleaved, and keeps the answer in the user's cache folder;
bundle, backend, its version, threads and processor are in the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import statistics
import time

from . import machine
from .bundle import Bundle
from .engines import check_backend, default_threads
from .errors import UsageError
from .files import atomic_file, cache_folder
from .graphs import Graphs
from .ort import load as load_onnxruntime

_FLAVOURS = {"onnxruntime": {"fp32": "fp32", "int8": "int8-cpu"}}
_RUNS = 5


def resolve(bundle: Bundle, precision: str, backend: str, threads: int | None = None) -> str:
    """The bundle's name of `precision` ("fp32", "int8", "auto" or already a bundle's name) on `backend`.

    Raises UsageError for an unknown precision and for one that the bundle lacks or the backend cannot run.
    """
    check_backend(backend)
    flavours = _FLAVOURS[backend]
    if precision == "auto":
        held = [name for name in flavours.values() if name in bundle.precisions]
        if not held:
            raise UsageError(
                f"{bundle.path.name} holds {', '.join(bundle.precisions)} and {backend} runs {', '.join(flavours.values())}; compile it again"
            )
        return held[0] if len(held) == 1 else _fastest(bundle, held, backend, threads)
    name = flavours.get(precision, precision)
    if name not in flavours.values():
        raise UsageError(f"precision {precision!r} is unknown to {backend}; one of {', '.join(flavours)}, auto")
    if name not in bundle.precisions:
        raise UsageError(
            f"{bundle.path.name} holds no {name} graphs, only {', '.join(bundle.precisions)}; compile it again or choose another precision"
        )
    return name


def time_hops(bundle: Bundle, precisions: list[str], backend: str, threads: int | None, runs: int = _RUNS) -> dict[str, float]:
    """Median seconds that the graphs of one hop take (a hop's visual runs, one audio, one fusion), the precisions taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in precisions}
    with contextlib.ExitStack() as stack:
        graphs = {name: stack.enter_context(Graphs(bundle, name, backend, threads)) for name in precisions}
        for each in graphs.values():
            each.warm_up()
        for _ in range(runs):
            for name, each in graphs.items():
                start_s = time.perf_counter()
                each.visual.run()
                visual_s = time.perf_counter()
                each.audio.run()
                each.fusion.run()
                seconds[name].append((visual_s - start_s) * bundle.manifest.hop + time.perf_counter() - visual_s)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _fastest(bundle: Bundle, precisions: list[str], backend: str, threads: int | None) -> str:
    key = {
        "bundle": bundle.manifest.digest,
        "backend": backend,
        # Its wheels have several names (onnxruntime-gpu, ...); the module has one.
        "version": str(load_onnxruntime().__version__),
        "threads": default_threads() if threads is None else threads,
        "processor": [platform.machine(), machine.processor(), machine.cores()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder() / f"precision-{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())["fastest"]
        if kept in precisions:
            return str(kept)
    seconds = time_hops(bundle, precisions, backend, threads)
    fastest = min(seconds, key=lambda name: seconds[name])
    # A read-only home costs the timing again at the next start, nothing else.
    with contextlib.suppress(OSError), atomic_file(file) as work:
        work.write_text(json.dumps({**key, "seconds_per_hop": seconds, "fastest": fastest}, indent=1) + "\n")
    return fastest
