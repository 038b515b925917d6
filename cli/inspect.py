"""Say what is in a bundle: model, clock, faces, what it was trained on, graphs, sizes, CCC. Every file's hash is checked first.

Where the onnx package is installed, the operators of each graph and the share of its weights in INT8 are counted too.

With --target a linter says instead what that release of TensorRT will not take of the graphs meant for it (fp32 and int8-trt), rule by rule, each
with its source; any ONNX file can be given. Exit code 1 when there are errors. It needs the onnx package, and no TensorRT: no builder is asked.

example:
  sage-edge inspect demo.sage
  sage-edge inspect demo.sage --target trt10.3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_edge.runtime.bundle import Bundle

FOR_TENSORRT = ("fp32", "int8-trt")
"""Precisions whose graphs --target lints."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.sage", type=Path, help="bundle folder, made by 'sage-edge compile'; with --target also a .onnx file")
    parser.add_argument("--target", metavar="T", help="lint the graphs for TensorRT: trt10.3, trt10.13, trt10.16 or trt11.4")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    from sage_edge.runtime.bundle import Bundle

    if args.target is not None:
        return _lint(args)
    facts = describe(Bundle.open(args.bundle))
    print(json.dumps(facts) if args.json else "\n".join(lines(facts)))
    return 0


def _lint(args: argparse.Namespace) -> int:
    import json

    from sage_edge.compile.lint import target_named
    from sage_edge.runtime.bundle import GRAPHS, Bundle

    from .lint_text import describe, lines

    target_named(args.target)
    if args.bundle.suffix == ".onnx":
        paths = {args.bundle.name: args.bundle}
    else:
        bundle = Bundle.open(args.bundle)
        held = [precision for precision in FOR_TENSORRT if precision in bundle.precisions]
        paths = {f"{name}.{precision}": bundle.graph(name, precision) for precision in held for name in GRAPHS}
    facts = describe(paths, args.target)
    print(json.dumps(facts) if args.json else "\n".join(lines(facts)))
    return 0 if facts["ok"] else 1


def describe(bundle: Bundle) -> dict[str, Any]:
    """The manifest with its digest, `path`, `bytes` of all files, `graphs`: "visual.fp32" -> facts of that file, and `search`. JSON types."""
    import importlib.util
    import json

    from sage_edge.runtime.bundle import GRAPHS, SEARCH, graph_path

    manifest = bundle.manifest
    graphs: dict[str, dict[str, Any]] = {}
    for precision in bundle.precisions:
        for name in GRAPHS:
            facts: dict[str, Any] = {"bytes": manifest.files[graph_path(name, precision)].size}
            if importlib.util.find_spec("onnx") is not None:
                facts |= _onnx_facts(bundle.graph(name, precision))
            graphs[f"{name}.{precision}"] = facts
    total = sum(info.size for info in manifest.files.values())
    search = json.loads((bundle.path / SEARCH).read_text(encoding="utf-8")) if SEARCH in manifest.files else None
    found = {"digest": manifest.digest, "path": str(bundle.path), "bytes": total, "hashes": "ok", "graphs": graphs, "search": search}
    return {**manifest.to_dict(), **found}


def _onnx_facts(path: Path) -> dict[str, Any]:
    import onnx

    from sage_edge.compile.facts import operators, quantized_share, weights_bytes

    model = onnx.load(path)
    counts = operators(model)
    return {
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "nodes": sum(counts.values()),
        "weights_bytes": weights_bytes(model),
        "quantized_share": quantized_share(model),
        "operators": dict(counts.most_common()),
        "metadata": {prop.key: prop.value for prop in model.metadata_props},
    }


def _search(found: dict[str, Any]) -> str:
    drop = max(found["chosen"]["quality"]["drop"].values())
    groups = ", ".join(found["float_groups"]) or "nothing"
    return f"CCC drop {drop:+.4f} of {found['max_drop']:g} on {found['windows']} windows, {len(found['steps'])} mixes tried; float: {groups}"


def lines(facts: dict[str, Any]) -> list[str]:
    """`facts` as lines for a terminal."""
    model, face, trained_on, calibration = facts["model"], facts["face"], facts["trained_on"], facts["calibration"]
    corpus = f"{trained_on['name']}, synthetic: for demonstration only" if trained_on["synthetic"] else trained_on["name"]
    rows = [
        ("bundle", facts["path"]),
        ("digest", f"{facts['digest'][:16]}, {len(facts['files'])} files, {facts['bytes'] / 1e6:.2f} MB, every hash right"),
        ("model", f"{model['name']} {model['preset']}, revision {model['revision']}, reliability {model['reliability']}, {model['rgf_scale']} scale"),
        ("trained on", corpus),
        ("clock", f"{facts['rate_hz']} ticks/s, window {facts['window']}, hop {facts['hop']}, sound {facts['sample_rate_hz']} Hz"),
        (
            "face",
            f"inner {face['input_size']} of {face['crop_size']} px, margin {face['margin']:g}, {face['colour']}, up to {face['max_age_ms']:g} ms old",
        ),
        ("output", f"{', '.join(facts['output']['names'])} in {facts['output']['range']}"),
    ]
    if calibration is not None:
        rows.append(("calibration", f"{calibration['method']} over {calibration['clips']} clips, set {calibration['set_sha256'][:16]}"))
    if facts["search"] is not None:
        rows.append(("search", _search(facts["search"])))
    rows.append(("weights", ", ".join(f"{precision} {size / 1e6:.2f} MB" for precision, size in facts["weights_bytes"].items())))
    text = [f"{name:<13}{value}" for name, value in rows]
    for protocol, table in facts["ccc"].items():
        for precision, row in table.items():
            text.append(f"{'CCC':<13}{protocol:<9}{precision:<10}valence {row['valence']:.4f}  arousal {row['arousal']:.4f}  mean {row['mean']:.4f}")
    text += [
        "",
        f"{'graph':<19}{'bytes':>10}"
        + f"{'opset':>7}{'nodes':>7}{'int8':>7}  operators" * any("opset" in graph for graph in facts["graphs"].values()),
    ]
    for name, graph in facts["graphs"].items():
        line = f"{name:<19}{graph['bytes']:>10}"
        if "opset" in graph:
            most = ", ".join(f"{count} {operator}" for operator, count in list(graph["operators"].items())[:5])
            line += f"{graph['opset']:>7}{graph['nodes']:>7}{graph['quantized_share']:>7.0%}  {most}"
        text.append(line)
    return text
