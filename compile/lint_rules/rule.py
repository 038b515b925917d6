"""What a rule is: a name, how bad it is, where it comes from, and a function that yields what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
At = Literal["graph", "node", "constant"]


class Found(NamedTuple):
    """One thing that breaks a rule."""

    node: str
    """Name of the node or tensor."""
    fact: str
    """What is wrong, with its value."""
    fix: str


@dataclass(frozen=True)
class Rule:
    """`error`: TensorRT refuses it or computes something else. `warning`: it builds, slower or less exact. `note`: good to know."""

    id: str
    severity: Severity
    says: str
    """The rule in one line."""
    source: str
    at: At
    operators: frozenset[str]
    """A rule `at` a node is asked about these only; about all when empty."""
    check: Callable[..., Iterator[Found]]
    """(view, target) at the graph, (view, target, NodeProto) at a node, (view, target, name, TensorProto) at a constant."""


def rule(
    name: str, severity: Severity, says: str, source: str, at: At = "node", operators: tuple[str, ...] = ()
) -> Callable[[Callable[..., Iterator[Found]]], Rule]:
    """Make a Rule of the function below."""

    def make(check: Callable[..., Iterator[Found]]) -> Rule:
        return Rule(name, severity, says, source, at, frozenset(operators), check)

    return make


def values(*items: Any) -> str:
    """A few values, for a fact."""
    return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)


QDQ = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
STRONG = "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-11/11.0.0.html, strongly typed networks"
PARSER = "https://github.com/onnx/onnx-tensorrt, onnxOpImporters.cpp"
LAYERS = "docstrings of the tensorrt bindings, 10.3.0 to 11.4.0"
