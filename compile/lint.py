"""Whether TensorRT will take a graph, rule by rule, before anybody waits for a builder: ONNX in, findings out.

Each rule has a source (a document, an issue, a docstring of the bindings) and a graph that breaks it in the tests. A graph without errors is
no promise: no builder was asked. `sage-edge inspect NAME.sage --target trt10.3`.
"""

from __future__ import annotations

import difflib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_edge.runtime.errors import CompileError, UsageError

from .lint_rules import attention, half, operators, placement, quantization, types
from .lint_rules.rule import Found, Rule, Severity
from .lint_rules.targets import TARGETS, Target
from .lint_rules.view import View

if TYPE_CHECKING:
    import onnx

__all__ = ["RULES", "SEVERITIES", "TARGETS", "Finding", "lint", "read", "target_named"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
RULES: tuple[Rule, ...] = (*operators.RULES, *types.RULES, *quantization.RULES, *placement.RULES, *half.RULES, *attention.RULES)


@dataclass(frozen=True)
class Finding:
    """One thing that breaks a rule in one graph."""

    rule: str
    severity: Severity
    node: str
    """Name of the node or tensor."""
    fact: str
    fix: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.node}: {self.fact}; {self.fix}"


def lint(model: onnx.ModelProto | str | os.PathLike[str], target: str) -> list[Finding]:
    """What of `model` (or the ONNX file of that path) TensorRT will not take, or not well; errors first.

    Weights are read once, a piece at a time. Raises UsageError for an unknown target, CompileError for a file that is no ONNX graph.
    """
    chosen = target_named(target)
    proto = read(model) if isinstance(model, (str, os.PathLike)) else model
    view = View(proto)
    found = [Finding(rule.id, rule.severity, *each, rule.source) for rule, each in _walk(view, chosen)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def target_named(name: str) -> Target:
    """The target of that name. Raises UsageError."""
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1, cutoff=0.3)
        raise UsageError(f"unknown target {name!r}; " + (f"did you mean {near[0]!r}? " if near else "") + f"one of {', '.join(TARGETS)}")
    return TARGETS[name]


def read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """An ONNX file, its weights once in memory. Raises CompileError, or OSError for a file that cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_of_file:
            model.ParseFromString(memoryview(bytes_of_file))
    except (DecodeError, ValueError) as error:
        raise CompileError(f"{Path(path)} is no ONNX file ({error}); give the .onnx of a bundle or an export") from None
    if not model.graph.node:
        raise CompileError(f"{Path(path)} holds no graph; give the .onnx of a bundle or an export")
    return model


def _walk(view: View, target: Target) -> Iterator[tuple[Rule, Found]]:
    at: dict[str, list[Rule]] = {"graph": [], "constant": [], "node": []}
    for rule in RULES:
        at[rule.at].append(rule)
    for rule in at["graph"]:
        yield from ((rule, found) for found in rule.check(view, target))
    for name, tensor in view.constants.items():
        for rule in at["constant"]:
            yield from ((rule, found) for found in rule.check(view, target, name, tensor))
    for node in view.nodes:
        for rule in at["node"]:
            if not rule.operators or node.op_type in rule.operators:
                yield from ((rule, found) for found in rule.check(view, target, node))
