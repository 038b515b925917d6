"""Which backend and precision a bundle runs in here. Named ones are looked up; "auto" is raced on this machine and remembered.

    choice = choose(bundle, "auto", "openvino")         # or backend "auto": every backend that works here
    choice.backend, choice.precision, choice.line()

A race: each candidate must first give the bundle's golden windows within their tolerance on this machine; those that do are timed in turns over
the graphs of one hop, and the fastest is taken, whatever its number format. The answer lies in the user's cache folder under a key of
bundle, candidates with their versions, threads, processor and GPU. Nothing is dropped from the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import cpu, machine
from .bundle import GRAPHS, Bundle
from .engines import BACKENDS, check_backend, default_threads, plans
from .engines.probe import installed, probe
from .errors import EngineError, UsageError
from .files import atomic_file, cache_folder
from .flavours import FLAVOURS, Flavour, flavour
from .golden import GoldenPass
from .graphs import open_graph
from .onnx_file import metadata
from .ort import load as load_onnxruntime
from .progress import Progress

AUTO = "auto"
_RUNS, _MOST_RUNS, _LEAST_S = 5, 30, 0.1


@dataclass(frozen=True)
class Choice:
    """What runs. After a race `seconds` holds what one hop's graphs take, "BACKEND PRECISION" -> median, and `refused` why others could not run."""

    backend: str
    precision: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "BACKEND PRECISION" of what runs."""
        return f"{self.backend} {self.precision}"

    @property
    def raced(self) -> bool:
        """Whether "auto" chose."""
        return bool(self.seconds)

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as long as the chosen one each loser takes, nearest first."""
        losers = sorted((seconds, name) for name, seconds in self.seconds.items() if name != self.name)
        return {name: seconds / self.seconds[self.name] for seconds, name in losers}

    def line(self) -> str:
        """The race in one line for people."""
        losers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self.ratios.items())
        text = f"auto chose {self.name}, {1e3 * self.seconds[self.name]:.1f} ms of engines per hop"
        text += f"; times as long: {losers}" if losers else "; nothing else ran"
        return text + "".join(f"; {name} refused: {why}" for name, why in self.refused.items())

    def note(self, bundle: Bundle) -> str | None:
        """The line about sums that saturate on this processor, where that concerns the graphs of `bundle` that were chosen."""
        if flavour(self.precision, self.backend).graphs != "int8-cpu" or metadata(bundle.graph("visual", "int8-cpu")).get("weight_bits") == "7":
            return None
        return cpu.saturation_note(self.backend)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "seconds_per_hop": dict(self.seconds),
            "times_as_long": {name: round(ratio, 3) for name, ratio in self.ratios.items()},
            "refused": dict(self.refused),
        }


def choose(bundle: Bundle, precision: str = AUTO, backend: str = "onnxruntime", threads: int | None = None, progress: bool = False) -> Choice:
    """What runs for `precision` ("fp32", "int8", "bf16", ..., "auto") on `backend` (or "auto").

    bf16 is nobody's calibrated precision, and kernels for it are young (OpenVINO 2026.4 on AMX computes grouped convolutions of fewer than
    16 channels per group and 16 taps wrongly): it has to pass the golden windows also where it was asked for by name, once per machine.

    Raises UsageError for an unknown precision and for one that the bundle lacks or the backend cannot run, EngineError when nothing works,
    BundleError when the bundle has no golden windows to race on.
    """
    if backend == AUTO or precision == AUTO:
        return _remembered(bundle, _candidates(bundle, precision, backend), threads, progress)
    kind = named(bundle, precision, backend)
    if kind.hint == "bf16":
        _remembered(bundle, [_Candidate(backend, kind)], threads, progress)
    return Choice(backend, kind.name)


def named(bundle: Bundle, precision: str, backend: str) -> Flavour:
    """What `precision`, not "auto", means on `backend`. Raises UsageError for one that is unknown there and for one that `bundle` lacks."""
    kind = flavour(precision, backend)
    if kind.graphs not in bundle.precisions:
        raise UsageError(
            f"{bundle.path.name} holds no {kind.graphs} graphs, only {', '.join(bundle.precisions)}; compile it again or choose another precision"
        )
    return kind


@dataclass(eq=False)
class _Candidate:
    backend: str
    kind: Flavour
    refused: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.backend} {self.kind.name}"


def _candidates(bundle: Bundle, precision: str, backend: str) -> list[_Candidate]:
    """What `precision` and `backend` may mean for this bundle, in the order of `FLAVOURS`, whether it works here or not."""
    if backend != AUTO:
        check_backend(backend)
    known = [
        (name, kind)
        for name in ((backend,) if backend != AUTO else BACKENDS)
        for asked, kind in FLAVOURS[name].items()
        if precision in (AUTO, asked, kind.name)
    ]
    if not known:
        asked = dict.fromkeys(name for kinds in FLAVOURS.values() for name in kinds)
        raise UsageError(f"precision {precision!r} is unknown; one of {', '.join(asked)}, auto")
    held = [(name, kind) for name, kind in known if kind.graphs in bundle.precisions]
    if not held:
        raise UsageError(
            f"{bundle.path.name} holds {', '.join(bundle.precisions)} and {backend} runs "
            f"{', '.join(dict.fromkeys(kind.graphs for _, kind in known))}; compile it again"
        )
    return [_Candidate(name, kind) for name, kind in held]


def _working(candidates: list[_Candidate]) -> list[_Candidate]:
    """Those whose backend runs one node here. Raises EngineError with the first one's reason when there is none."""
    tried = [(each, probe(each.backend, _device(each.backend, each.kind))) for each in candidates]
    works = [each for each, found in tried if found.ok and _computes(each)]
    if not works:
        lost = tried[0][1]
        if lost.ok:
            raise EngineError("this processor computes no bf16; choose precision fp32 or int8")
        raise EngineError(f"{lost.backend} does not work on this machine ({lost.why})" + (f": {lost.fix}" if lost.fix else "; see sage-edge doctor"))
    return works


def _device(backend: str, kind: Flavour) -> str:
    return "cuda" if backend == "tensorrt" or kind.hint == "cuda" else "cpu"


def _computes(each: _Candidate) -> bool:
    """False for bf16 on a processor that would take float32 for it."""
    if each.kind.hint != "bf16":
        return True
    from .engines.openvino import has_bf16

    return has_bf16()


def _remembered(bundle: Bundle, candidates: list[_Candidate], threads: int | None, progress: bool) -> Choice:
    key: dict[str, Any] = {
        "bundle": bundle.manifest.digest,
        "candidates": [[each.backend, installed(each.backend), each.kind.name] for each in candidates],
        "threads": default_threads() if threads is None else threads,
        "processor": [platform.machine(), machine.processor(), machine.cores(), *sorted(cpu.features())],
    }
    if any(_device(each.backend, each.kind) == "cuda" for each in candidates):
        key["gpus"] = machine.gpus()
    if any(each.backend == "onnxruntime" for each in candidates):
        # onnxruntime and onnxruntime-gpu of one version differ in them
        with contextlib.suppress(ImportError):
            key["providers"] = load_onnxruntime().get_available_providers()
    if any(each.backend == "tensorrt" and version for each, (_, version, _) in zip(candidates, key["candidates"], strict=True)):
        # what was refused for want of an engine may run by now, and one that was built again may be another
        key["plans"] = sorted([path.name, path.stat().st_mtime_ns] for path in plans.folder().glob("*.engine"))
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder() / f"precision-{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(file.read_text())
        seconds = {str(each): float(value) for each, value in kept["seconds_per_hop"].items()}
        for each in candidates:
            if each.name == kept["fastest"] and seconds[each.name] > 0:
                return Choice(each.backend, each.kind.name, seconds, {str(other): str(why) for other, why in kept["refused"].items()})
    candidates = _working(candidates)
    if len(candidates) == 1 and candidates[0].kind.hint != "bf16":
        return Choice(candidates[0].backend, candidates[0].kind.name)
    race(bundle, candidates, threads, progress=progress)
    fit = [each for each in candidates if not each.refused]
    if not fit:
        why = "; ".join(f"{each.name}: {each.refused}" for each in candidates)
        raise EngineError(f"nothing that was asked for runs {bundle.path.name} on this machine: {why}")
    best = min(fit, key=lambda each: each.seconds)
    choice = Choice(best.backend, best.kind.name, {each.name: each.seconds for each in fit}, {c.name: c.refused for c in candidates if c.refused})
    # A read-only home costs the race again at the next start, nothing else.
    with contextlib.suppress(OSError), atomic_file(file) as work:
        kept = {**key, "seconds_per_hop": dict(choice.seconds), "refused": dict(choice.refused), "fastest": best.name}
        work.write_text(json.dumps(kept, indent=1) + "\n")
    return choice


def race(bundle: Bundle, candidates: list[_Candidate], threads: int | None, progress: bool = False) -> None:
    """Set `seconds` of each candidate (a hop's visual runs, one audio, one fusion), or `refused`. One graph of all of them is in memory at a time."""
    golden = bundle.golden()
    passes = {each: GoldenPass(bundle, each.kind, golden) for each in candidates}
    with Progress("time precisions", len(GRAPHS) * len(candidates), shown=progress) as bar:
        for graph in GRAPHS:
            with contextlib.ExitStack() as stack:
                engines = {}
                for each in candidates:
                    if not each.refused:
                        try:
                            engine = open_graph(bundle, graph, each.kind, each.backend, threads)
                            stack.callback(engine.close)
                            passes[each].run(graph, engine)
                            engines[each] = engine
                        except EngineError as error:
                            each.refused = str(error)
                    bar.step(note=f"{graph} {each.name}")
                times: dict[_Candidate, list[float]] = {each: [] for each in engines}
                start_s = time.perf_counter()
                for turn in range(_MOST_RUNS):
                    if turn >= _RUNS and time.perf_counter() - start_s > _LEAST_S * len(engines):
                        break
                    for each, engine in engines.items():
                        if not each.refused:
                            before_s = time.perf_counter()
                            try:
                                engine.run()
                            except EngineError as error:
                                each.refused = str(error)
                            times[each].append(time.perf_counter() - before_s)
                for each, values in times.items():
                    each.seconds += statistics.median(values) * (bundle.manifest.hop if graph == "visual" else 1)
    for each in candidates:
        if not each.refused:
            worst, allowed = max(passes[each].differences().values()), passes[each].allowed
            if not worst <= allowed:
                each.refused = f"its golden windows differ by {worst:.2g}, more than {allowed:g}"
