"""What the linter found in some graphs, as JSON types and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN = 3
"""Findings of one rule in one graph that a terminal gets; --json has them all."""


def describe(paths: Mapping[str, Path], target: str) -> dict[str, Any]:
    """`target`, `release`, `found_on`, `opsets`, `ok` (no errors), `rules` (how many were asked) and `graphs`: name -> counts and findings."""
    from sage_edge.compile.facts import operators, quantized_share
    from sage_edge.compile.lint import RULES, SEVERITIES, lint, read, target_named
    from sage_edge.compile.lint_rules.targets import MIN_OPSET

    chosen, graphs = target_named(target), {}
    for name, path in paths.items():
        model = read(path)
        found = lint(model, target)
        graphs[name] = {
            "opset": next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
            "nodes": len(model.graph.node),
            "qdq": operators(model)["DequantizeLinear"],
            "int8": quantized_share(model),
            **{f"{severity}s": sum(finding.severity == severity for finding in found) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in found],
        }
    return {
        "target": chosen.name,
        "release": ".".join(map(str, chosen.version)),
        "found_on": chosen.found_on,
        "opsets": [MIN_OPSET, chosen.max_opset],
        "rules": len(RULES),
        "ok": not any(graph["errors"] for graph in graphs.values()),
        "graphs": graphs,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """`facts` of `describe` as lines: a row per graph, findings, where their rules come from."""
    graphs = facts["graphs"]
    width = max(len("graph"), *map(len, graphs))
    text = [
        f"TensorRT {facts['release']} ({facts['found_on']}), opsets {facts['opsets'][0]} to {facts['opsets'][1]}, {facts['rules']} rules; "
        "no builder was asked",
        "",
        f"{'graph':<{width}}{'opset':>7}{'nodes':>7}{'Q/DQ':>7}{'errors':>8}{'warnings':>10}{'notes':>7}",
    ]
    sources: dict[str, str] = {}
    for name, graph in graphs.items():
        row = f"{name:<{width}}{graph['opset']:>7}{graph['nodes']:>7}{graph['qdq']:>7}"
        text.append(row + f"{graph['errors']:>8}{graph['warnings']:>10}{graph['notes']:>7}")
    for name, graph in graphs.items():
        rules: dict[str, list[dict[str, Any]]] = {}
        for finding in graph["findings"]:
            rules.setdefault(finding["rule"], []).append(finding)
            sources[finding["rule"]] = finding["source"]
        for rule, found in rules.items():
            text += ["", f"{found[0]['severity']} [{rule}] in {name}: {found[0]['fix']}"]
            text += [f"  {finding['node']}: {finding['fact']}" for finding in found[:SHOWN]]
            text += [f"  and {len(found) - SHOWN} more (--json lists them)"] * (len(found) > SHOWN)
    if sources:
        text += ["", "sources"] + [f"  {rule}: {source}" for rule, source in sources.items()]
    return text
