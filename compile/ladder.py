"""The fallback ladder of one graph: int8 -> partly int8 -> fp16 -> int8 in fp32 -> fp32. The first rung that builds and passes is kept.

Builders refuse graphs that they should take, on one GPU of several and in one version of several; and an engine that builds can still compute
something else than the golden windows. So every rung is tried where it will run, and what failed is kept with its reason. INT8 need not be the
fastest of them: `every` rung can be reached, for a race.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sage_edge.runtime.errors import CompileError, EngineError
from sage_edge.runtime.trt import line

if TYPE_CHECKING:
    import onnx

INT8, PARTLY, FP16, SINGLE, FP32 = "int8", "partly int8", "fp16", "int8 in fp32", "fp32"
_TRANSFORMER = re.compile(r"\.(attention|feed_forward)\.")
"""Groups that "partly int8" leaves in FP16: GEMMs of transformers, which several boards are slower at, or fail at, in INT8."""


@dataclass(frozen=True)
class Rung:
    """One way to build a graph. `source` gives the ONNX file or the bytes of one, None where it would be what a rung above was."""

    name: str
    source: Callable[[], Path | bytes | None]


@dataclass(frozen=True)
class Failure:
    """A rung that was tried in vain."""

    rung: str
    why: str


def rungs(int8: Path | None, fp32: Path) -> list[Rung]:
    """The ladder of a graph, given its int8-trt file (None: there is none, or FP32 is wanted) and its fp32 file."""
    if int8 is None:
        return [Rung(FP32, lambda: fp32)]
    return [
        Rung(INT8, lambda: int8),
        Rung(PARTLY, lambda: _partly(int8)),
        Rung(FP16, lambda: _float(int8)),
        # one builder that is known refuses FP16 scales; what is not in INT8 is slow here, so FP16 comes first
        Rung(SINGLE, lambda: _single(int8)),
        Rung(FP32, lambda: fp32),
    ]


T = TypeVar("T")


def climb(
    ladder: list[Rung], attempt: Callable[[str, Path | bytes], T], say: Callable[[str], None], every: bool = False
) -> tuple[dict[str, T], list[Failure]]:
    """Try rung after rung with `attempt(name, source)`, which raises CompileError or EngineError for one that fails, until one does not.

    With `every` the rungs below it are tried too, but for the last, which is the last resort. Returns name -> what its attempt returned, and the
    failures; raises CompileError when all failed. `say` gets a line for each failure as it happens.
    """
    reached: dict[str, T] = {}
    failures: list[Failure] = []
    for i, rung in enumerate(ladder):
        if reached and (not every or i == len(ladder) - 1):
            break
        try:
            source = rung.source()
            if source is not None:
                reached[rung.name] = attempt(rung.name, source)
        except (CompileError, EngineError) as error:
            failures.append(Failure(rung.name, line(error)))
            say(f"{rung.name} failed: {failures[-1].why}")
    if not reached:
        raise CompileError("no rung could be built: " + "; ".join(f"{failure.rung}: {failure.why}" for failure in failures))
    return reached, failures


def _partly(path: Path) -> bytes | None:
    """The graph with the transformers' GEMMs in FP16; None where none of them is in INT8, or nothing else is."""
    from .groups import graph_name, group_of

    model = _load(path)
    graph = graph_name(model)
    names = {group for node in model.graph.node if _TRANSFORMER.search(group := group_of(graph, node.name))}
    stripped = _strip(model, names)
    return stripped.SerializeToString() if 0 < _quantized(stripped) < _quantized(model) else None


def _float(path: Path) -> bytes | None:
    """The graph without any Q/DQ: FP16 is left. None where there are none."""
    model = _load(path)
    return bytes(_strip(model, None).SerializeToString()) if _quantized(model) else None


def _single(path: Path) -> bytes | None:
    """The graph in INT8 with float32 in place of FP16, scales included; None where nothing is in INT8."""
    model = _load(path)
    if not _quantized(model):
        return None
    from .quantize_trt import single

    return bytes(single(model).SerializeToString())


def _load(path: Path) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError:
        raise CompileError("taking Q/DQ out of a graph needs the package onnx: pip install onnx") from None
    return onnx.load(path)


def _strip(model: onnx.ModelProto, groups: set[str] | None) -> onnx.ModelProto:
    from .quantize_trt import strip

    return strip(model, groups)


def _quantized(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
