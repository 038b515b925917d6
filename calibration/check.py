"""Is a bundle what it claims to be on this machine: golden windows against stored outputs, and CCC of INT8 against FP32 on real videos.

    result = verify(Bundle.open("sage.sage"))                          # seconds; needs neither torch nor data nor onnx
    result = verify(Bundle.open("sage.sage"), Store.open("store"))     # and CCC under both protocols, with 95 % intervals over videos

`result.ok` is false when a golden window differs by more than the manifest's tolerance, or INT8 loses more than `max_drop` CCC on
valence or arousal under either protocol; `result.failures` says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sage_edge.runtime.bundle import GRAPHS, Bundle
from sage_edge.runtime.errors import BundleError
from sage_edge.runtime.flavours import flavour
from sage_edge.runtime.golden import GoldenPass
from sage_edge.runtime.graphs import open_graph
from sage_edge.runtime.progress import Progress

from .evaluation import Predictions, Score, Variant, drops, interval, live, overlap, score, too_much, validation
from .offline import Offline, runs, simulated

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store, Trial

MAX_DROP = 0.005


@dataclass(frozen=True)
class GoldenResult:
    """Greatest difference of each output to the stored one; `temporal` relative to its greatest value, the others as they are."""

    differences: dict[str, float]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Every difference is within the tolerance."""
        return all(value <= self.tolerance for value in self.differences.values())


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found. Without data the CCC fields are empty."""

    bundle: str
    digest: str
    golden: dict[str, GoldenResult]
    """precision -> result."""
    max_drop: float
    videos: int = 0
    frames: int = 0
    ccc: dict[str, dict[str, Score]] = field(default_factory=dict)
    """protocol -> precision -> valence, arousal, mean."""
    ccc_interval: dict[str, dict[str, dict[str, tuple[float, float]]]] = field(default_factory=dict)
    """The same with (low, high): 95 %, bootstrap over videos."""
    drop: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """protocol -> precision -> valence, arousal: FP32 minus it."""
    ccc_without: dict[str, Score] = field(default_factory=dict)
    """"visual", "audio" -> CCC of FP32 under `overlap` with that modality's mask off."""

    @property
    def failures(self) -> list[str]:
        """One text per failed check, empty when all is well."""
        texts = [
            f"golden windows in {precision} differ by {max(result.differences.values()):.3g}, more than {result.tolerance:g}"
            for precision, result in self.golden.items()
            if not result.ok
        ]
        return texts + [str(loss) for loss in too_much(self.drop, self.max_drop)]

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        golden = {precision: {**asdict(result), "ok": result.ok} for precision, result in self.golden.items()}
        return {**asdict(self), "golden": golden, "failures": self.failures, "ok": self.ok}


@dataclass(frozen=True)
class Evaluation:
    """Predictions over the validation videos: protocol -> precision -> trial -> [F, 2]; `without` is FP32 `overlap` with a modality off."""

    trials: list[Trial]
    predictions: dict[str, dict[str, Predictions]]
    without: dict[str, Predictions]

    @property
    def ccc(self) -> dict[str, dict[str, Score]]:
        """protocol -> precision -> valence, arousal, mean, pooled over valid frames."""
        return {protocol: {precision: score(rows, self.trials) for precision, rows in table.items()} for protocol, table in self.predictions.items()}


def verify(
    bundle: Bundle,
    store: Store | None = None,
    max_drop: float = MAX_DROP,
    backend: str = "onnxruntime",
    progress: bool = True,
    precision: str | None = None,
) -> VerifyResult:
    """Check `bundle` as the module says; with `store`, on its validation split. `precision` is one beside FP32, all that need no bf16 when None.

    Raises BundleError, DataError, EngineError or UsageError.
    """
    golden = check_golden(bundle, backend, progress, precision)
    if store is None:
        return VerifyResult(bundle.path.name, bundle.manifest.digest, golden, max_drop)
    found = evaluate(bundle, store, backend, progress, precision)
    ccc = found.ccc
    return VerifyResult(
        bundle.path.name,
        bundle.manifest.digest,
        golden,
        max_drop,
        videos=len(found.trials),
        frames=sum(int(trial.labels_valid.sum()) for trial in found.trials),
        ccc=ccc,
        ccc_interval={p: {precision: interval(rows, found.trials) for precision, rows in table.items()} for p, table in found.predictions.items()},
        drop=drops(ccc),
        ccc_without={name: score(rows, found.trials) for name, rows in found.without.items()},
    )


def evaluate(bundle: Bundle, store: Store, backend: str = "onnxruntime", progress: bool = True, precision: str | None = None) -> Evaluation:
    """Predictions of every precision of `bundle` (see `verify`) on the validation split of `store`, under both protocols; `int8-trt` is simulated,
    under `overlap` alone."""
    trials = validation(store, rate_hz=bundle.manifest.rate_hz)
    sessions = runs(bundle, backend, precision)
    precisions = sessions if precision else (*sessions, *simulated(bundle, backend))
    if "fp32" not in precisions:
        raise BundleError(f"{bundle.path.name} holds {', '.join(bundle.precisions)} and no fp32 to compare with; compile it again")
    variants = {precision: Variant.all(precision) for precision in precisions}
    variants |= {f"without {name}": Variant.all("fp32", without=name) for name in ("visual", "audio")}
    with Offline.of(bundle, backend) as offline:
        windows = overlap(offline, trials, variants, bundle.manifest.window, progress)
    predictions = {
        "overlap": {precision: windows[precision] for precision in precisions},
        "live": {precision: live(bundle, trials, precision, backend, progress) for precision in sessions},
    }
    return Evaluation(trials, predictions, {name: windows[f"without {name}"] for name in ("visual", "audio")})


def check_golden(bundle: Bundle, backend: str = "onnxruntime", progress: bool = True, precision: str | None = None) -> dict[str, GoldenResult]:
    """Run the golden windows in every precision of `bundle` (see `verify`): precision -> differences. Raises BundleError when they are incomplete."""
    golden = bundle.golden()
    results = {}
    kinds = [flavour(name, backend) for name in runs(bundle, backend, precision)]
    with Progress("golden windows", len(GRAPHS) * len(kinds), "graphs", shown=progress) as bar:
        for kind in kinds:
            if kind.graphs not in bundle.manifest.tolerance:
                raise BundleError(f"{bundle.path.name} gives no tolerance for {kind.graphs}; compile the bundle again")
            found = GoldenPass(bundle, kind, golden)
            for name in GRAPHS:
                engine = open_graph(bundle, name, kind, backend)
                try:
                    found.run(name, engine)
                finally:
                    engine.close()
                bar.step(note=kind.name)
            results[kind.name] = GoldenResult(found.differences(), found.allowed)
    return results


def table(result: VerifyResult) -> Sequence[str]:
    """`result` as lines for a terminal."""
    lines = [f"{'golden windows':<16}{'difference':>12}{'tolerance':>11}"]
    for precision, golden in result.golden.items():
        lines.append(f"  {precision:<14}{max(golden.differences.values()):>12.2g}{golden.tolerance:>11g}  {'ok' if golden.ok else 'FAILED'}")
    if result.ccc:
        lines += ["", f"CCC over {result.videos} videos, {result.frames} frames (95 % interval over videos)"]
        lines.append(f"  {'protocol':<10}{'precision':<11}" + "".join(f"{name:<27}" for name in ("valence", "arousal", "mean")).rstrip())
        for protocol, rows in result.ccc.items():
            for precision, row in rows.items():
                bounds = result.ccc_interval[protocol][precision]
                cells = [f"{row[name]:.4f} [{bounds[name][0]:.4f}, {bounds[name][1]:.4f}]" for name in row]
                lines.append(f"  {protocol:<10}{precision:<11}" + "".join(f"{cell:<27}" for cell in cells).rstrip())
        for protocol, losses in result.drop.items():
            for precision, loss in losses.items():
                lines.append(f"  {protocol:<10}{precision} loses {loss['valence']:+.4f} valence, {loss['arousal']:+.4f} arousal")
        for name, row in result.ccc_without.items():
            lines.append(f"  without {name}: {row['valence']:.4f} valence, {row['arousal']:.4f} arousal, {row['mean']:.4f} mean (overlap, fp32)")
    return [*lines, "", *(f"FAILED: {text}" for text in result.failures)] if result.failures else [*lines, "", "ok"]
