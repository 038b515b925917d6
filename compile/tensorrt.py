"""TensorRT engines for a bundle, built on the device that will run them: no torch, no data.

    for engine in build_bundle(Bundle.open("demo.sage")): print(engine.graph, engine.rung)

Each graph climbs the ladder of `ladder.py`; what passes the bundle's golden windows is stored in the user's cache folder, under the key of the graph
that was asked for. An engine of another TensorRT or GPU is never loaded: it stays where it is, and a new one is built beside it.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sage_edge.calibration.offline import BATCH
from sage_edge.runtime import trt as tensorrt_module
from sage_edge.runtime.bundle import GRAPHS, Bundle
from sage_edge.runtime.engines import Engine, plans
from sage_edge.runtime.errors import BundleError, CompileError, EngineError, UsageError
from sage_edge.runtime.files import sha256_file

from .golden_engine import GoldenWindows
from .ladder import Failure, Rung, climb, rungs
from .trt_build import WORKSPACE_MB, Batches, Built, PlanBuilder

PRECISIONS = {"int8": "int8-trt", "fp32": "fp32"}
"""What `precision` means in a bundle."""
BATCHES = {"visual": Batches(1, 1, BATCH), "audio": Batches(), "fusion": Batches(1, 1, 4)}
"""A session encodes one face at a time, whatever its hop, so kernels are chosen for one; `verify` and evaluation run many, and a session that follows
all faces a few, up to its `most_faces` of 4."""

_WARM_UP, _TURNS = 3, 30
"""Runs of each plan in a race: those that are not counted (CUDA graphs are captured in the first), and those that are."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuiltGraph:
    """One engine in the cache folder. `difference` is how far it moved the golden windows, of `allowed`; `reused` means that it was there already."""

    graph: str
    precision: str
    rung: str
    reused: bool
    seconds: float
    size_bytes: int
    layers: int
    precisions: dict[str, int]
    """Precision -> layers whose first output has it, after TensorRT's fusions."""
    difference: float
    allowed: float
    ms: dict[str, float]
    """Rung -> median of a run on one item, where several were raced."""
    failed: tuple[Failure, ...]
    """Rungs that did not build or pass, and why."""
    warnings: tuple[str, ...]
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def build_bundle(
    bundle: Bundle,
    *,
    precision: str = "int8",
    workspace_mb: int = WORKSPACE_MB,
    fastest: bool = False,
    rebuild: bool = False,
    progress: bool = True,
    say: Say | None = None,
) -> list[BuiltGraph]:
    """Build what is missing of the three engines of `bundle` for this TensorRT and GPU; with `rebuild`, all three.

    `precision` is "int8" or "fp32"; "int8" ends at FP32 where nothing else builds, and with `fastest` all that builds but FP32 is timed and the
    fastest kept. `workspace_mb` is the scratch memory that one layer may take. `say` gets lines about what happens (default: standard error).
    Raises UsageError, BundleError, EngineError where TensorRT or the GPU is missing, and CompileError for a graph of which no rung builds and
    passes. Engines that were finished before a failure or Ctrl-C stay, and are whole.
    """
    say = say or _to_stderr
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision {precision!r} for TensorRT; one of {', '.join(PRECISIONS)}")
    if workspace_mb < 1:
        raise UsageError(f"a workspace of {workspace_mb} MB is too small; give at least 1")
    if PRECISIONS[precision] not in bundle.precisions:
        raise BundleError(
            f"{bundle.path.name} holds {', '.join(bundle.precisions)} and no {PRECISIONS[precision]} graphs; compile its checkpoint again, "
            "or give --precision fp32"
        )
    trt = tensorrt_module.load()
    device = _device()
    flags = ("strongly-typed", "no-tf32", f"workspace-mb={workspace_mb}")
    cache = plans.folder() / f"timing-{trt.__version__}-{_slug(device.name)}-sm{device.sm}.cache"
    golden = GoldenWindows(bundle)
    builder: PlanBuilder | None = None
    results = []
    for graph in GRAPHS:
        onnx = bundle.graph(graph, PRECISIONS[precision])
        key = plans.Key(sha256_file(onnx), trt.__version__, device.sm, device.name, (*flags, f"batch={BATCHES[graph]}"))
        found = None if rebuild else _there(key, say)
        if found is None or (fastest and precision == "int8" and not found.facts.get("ms")):
            if found is None and not rebuild:
                _tell_others(onnx, key, say)
            builder = builder or PlanBuilder(trt, workspace_mb=workspace_mb, cache=cache, progress=progress, say=say)
            ladder = rungs(onnx if precision == "int8" else None, bundle.graph(graph, "fp32"))
            found, reused = _build(bundle, graph, key, onnx, ladder, builder, golden, fastest, say), False
        else:
            reused = True
        results.append(BuiltGraph(graph, precision, reused=reused, size_bytes=found.path.stat().st_size, path=str(found.path), **_facts(found)))
    return results


def _build(
    bundle: Bundle,
    graph: str,
    key: plans.Key,
    onnx: Path,
    ladder: list[Rung],
    builder: PlanBuilder,
    golden: GoldenWindows,
    fastest: bool,
    say: Say,
) -> plans.Plan:
    """Climb the ladder of one graph and store what is to be kept."""

    def attempt(rung: str, source: Path | bytes) -> tuple[Built, float]:
        built = builder.build(source, BATCHES[graph], f"{graph} {rung}")
        with _opened(onnx, key, built.plan) as engine:
            moved = golden.difference(graph, engine)
        if not moved <= golden.allowed(rung):
            raise CompileError(f"its engine moves the golden windows by {moved:.3g}, more than {golden.allowed(rung):.3g}")
        return built, moved

    try:
        reached, failed = climb(ladder, attempt, lambda text: say(f"{graph}: {text}"), fastest)
    except CompileError as error:
        memory = "memory" in str(error).lower()
        fix = "give more with --workspace-mb, or close what else uses the GPU" if memory else _lint(bundle, key.tensorrt)
        raise CompileError(f"{graph}: {error}; {fix}") from None
    ms = race(onnx, key, {rung: built.plan for rung, (built, _) in reached.items()}) if fastest else {}
    rung = min(ms, key=lambda name: ms[name]) if ms else next(iter(reached))
    built, moved = reached[rung]
    facts = {
        "rung": rung,
        "seconds": built.seconds,
        "layers": built.layers,
        "precisions": built.precisions,
        "difference": moved,
        "allowed": golden.allowed(rung),
        "ms": ms,
        "failed": [asdict(failure) for failure in failed],
        "warnings": list(built.warnings),
    }
    try:
        return plans.store(key, built.plan, facts)
    except OSError as error:
        raise CompileError(f"{error.filename or plans.folder()}: {error.strerror or error}; free some space, or set CACHE_DIRECTORY") from error


def race(onnx: Path, key: plans.Key, candidates: Mapping[str, bytes]) -> dict[str, float]:
    """Median milliseconds of a run on one item, copies included, of each plan of one graph, the plans taking turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    with contextlib.ExitStack() as stack:
        engines = {name: stack.enter_context(_opened(onnx, key, plan)) for name, plan in candidates.items()}
        for turn in range(_WARM_UP + _TURNS):
            for name, engine in engines.items():
                start_s = time.perf_counter()
                engine.run()
                if turn >= _WARM_UP:
                    times[name].append(1e3 * (time.perf_counter() - start_s))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def _there(key: plans.Key, say: Say) -> plans.Plan | None:
    """The plan of this key, unless what is told of it is not what this version tells."""
    found = plans.get(key, say)
    try:
        if found is not None:
            _facts(found)
    except (KeyError, TypeError):
        say(f"{found.path if found else key} was described by another version of sage-edge: building it again")
        return None
    return found


def _facts(plan: plans.Plan) -> dict[str, Any]:
    facts = {name: plan.facts[name] for name in ("rung", "seconds", "layers", "precisions", "difference", "allowed", "ms")}
    return {**facts, "failed": tuple(Failure(**each) for each in plan.facts["failed"]), "warnings": tuple(plan.facts["warnings"])}


def _tell_others(onnx: Path, key: plans.Key, say: Say) -> None:
    """One line when there are engines of this graph for another TensorRT or GPU, or with other flags: they are left alone."""
    try:
        other = plans.find(onnx, key.tensorrt, key.sm, key.gpu, say).key
    except EngineError as error:
        fact = str(error).partition(";")[0]
        if ", only for " in fact:
            say(f"{fact}: building it")
    else:
        if other != key:
            say(f"the engine of {onnx.name} for {key} was built with other settings: building it again")


def _device() -> Any:
    """The GPU: its name and compute capability."""
    from sage_edge.runtime.engines.cuda import open_cuda

    with contextlib.closing(open_cuda()) as cuda:
        return cuda.device


@dataclass(frozen=True)
class _Candidate(plans.Plan):
    """A plan that is in no file yet."""

    engine: bytes = field(repr=False)

    def read(self) -> bytes:
        return self.engine


@contextlib.contextmanager
def _opened(onnx: Path, key: plans.Key, plan: bytes) -> Iterator[Engine]:
    """The runtime's engine over a plan that is not stored yet."""
    from sage_edge.runtime.engines.tensorrt import TensorRTEngine

    with contextlib.closing(TensorRTEngine(onnx, 1, plan=_Candidate(key, onnx, {}, plan))) as engine:
        yield engine


def _lint(bundle: Bundle, version: str) -> str:
    """How to see what a graph has that a TensorRT of `version` does not take."""
    from .lint_rules.targets import TARGETS

    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    fitting = [name for name, target in sorted(TARGETS.items(), key=lambda item: item[1].version) if target.version <= found]
    return f"`sage-edge inspect {bundle.path.name} --target {fitting[-1] if fitting else next(iter(TARGETS))}` may say more"


def _slug(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text).strip("-").lower()


def _to_stderr(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
