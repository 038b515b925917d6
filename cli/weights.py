"""Import published encoder weights (ResNet-50, WavLM base and large), once; train takes them from there.

import  recognises FILE by its names and shapes, whatever it is called: torchvision, torchaudio, Hugging Face (file or folder), the original WavLM
        release, safetensors or torch files of plain tensors. What does not fit whole is refused, and no file can run code. FILE may also be
        torchaudio:WAVLM_BASE or torchaudio:WAVLM_LARGE where torchaudio is installed.
list    says what is there, what is missing, where to get it and under which licence.

The place is $SAGE_EDGE_WEIGHTS, or ~/.cache/sage-edge/weights.

example:
  sage-edge weights import resnet50-0676ba61.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="recognise and convert a file of published weights")
    importing.add_argument("file", metavar="FILE", help="published file, folder from Hugging Face, or torchaudio:WAVLM_BASE")
    importing.add_argument("--out", metavar="PATH", type=Path, help="safetensors file to write (default: where train looks for it)")
    importing.add_argument("--json", action="store_true", help="print what it is as one JSON object")
    listing = actions.add_parser("list", help="what is there and what is missing")
    listing.add_argument("--json", action="store_true", help="print the list as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json

    if args.action == "list":
        facts = listed()
        print(json.dumps(facts) if args.json else "\n".join(_list_lines(facts)))
        return 0

    from sage_edge.training.encoders.weights import convert

    facts = convert(args.file, args.out)
    print(json.dumps(facts) if args.json else "\n".join(_import_lines(facts)))
    return 0


def listed() -> dict[str, Any]:
    """`folder` and `weights`: name, path, state ("missing", "damaged" or "from SOURCE"), urls, licence of each. JSON types."""
    from sage_edge.runtime.errors import CheckpointError
    from sage_edge.training.encoders import published, reading

    weights = []
    for item in published.PUBLISHED:
        state = "missing"
        if item.path.is_file():
            try:
                state = f"from {reading.metadata(item.path).get('source', 'elsewhere')}"
            except CheckpointError:
                state = "damaged: import it again"
        weights.append({"name": item.name, "path": str(item.path), "state": state, "urls": list(item.urls), "licence": item.licence})
    return {"folder": str(published.folder()), "weights": weights}


def _import_lines(facts: dict[str, Any]) -> list[str]:
    rows = [
        ("recognised", f"{facts['architecture']}, {facts['layout']}"),
        ("parameters", f"{facts['parameters']:,} in {facts['tensors']} tensors"),
        ("ignored", ", ".join(facts["ignored"]) or "nothing"),
        *(("note", note) for note in facts["notes"]),
        ("replaced" if facts["replaced"] else "written", facts["out"]),
    ]
    return [f"{name:<12}{value}" for name, value in rows]


def _list_lines(facts: dict[str, Any]) -> list[str]:
    lines = [f"weights in {facts['folder']}"]
    for row in facts["weights"]:
        lines += ["", f"{row['name']:<12}{row['state']}"]
        lines += [f"{'':<12}{url}" for url in row["urls"]]
        lines.append(f"{'':<12}{row['licence']}")
    return lines
