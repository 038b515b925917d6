"""What works on this machine, tried and not assumed: libsage, video, faces, the default microphone, every
backend with a graph of one node, CUDA, the cache folder. On a Jetson also power mode, rails, what slows it down, GStreamer's elements, access.

Each line says what was found; what does not work says why and what to do about it. Nothing is sent anywhere. Exit code 1 when something
is missing that 'run' cannot do without; a missing GPU or optional backend is not that. A camera and a microphone that are named are opened
for a second, as 'run' would open them, and have to work. Its output belongs into a bug report.

example:
  sage-edge doctor --json
  sage-edge doctor --camera camera:0 --mic mic:default
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_edge.runtime.checkup import Check

ROOT = Path("/")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--camera", metavar="URI", default="none", help="try this camera, too: any that 'run' takes (default: none)")
    parser.add_argument("--mic", metavar="NAME", default="none", help="try this microphone, too: mic:NAME, mic:default (default: none)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from sage_edge.jetson.checks import board_checks
    from sage_edge.jetson.facts import board_facts
    from sage_edge.runtime import checkup
    from sage_edge.runtime.clock import MonotonicClock
    from sage_edge.runtime.cpu import features, saturates
    from sage_edge.runtime.machine import machine, versions
    from sage_edge.runtime.source_check import try_camera, try_microphone
    from sage_edge.runtime.sources.uri import parse_camera, parse_microphone

    tries = [(try_camera, args.camera)] if parse_camera(args.camera) else []
    tries += [(try_microphone, args.mic)] if parse_microphone(args.mic) else []
    found, engines = checkup.backends()
    everything = [checkup.processor(), *checkup.checks(), *engines, *board_checks(ROOT)]
    everything += [tried(text, MonotonicClock()) for tried, text in tries]
    ok = all(check.ok for check in everything if check.needed)
    facts: dict[str, Any] = {
        "machine": {**machine(), "features": sorted(features()), "saturates": saturates(features())},
        "board": board_facts(ROOT),
        "versions": versions(),
        "backends": [asdict(each) for each in found],
        "checks": [asdict(check) for check in everything],
        "ok": ok,
    }
    print(json.dumps(facts) if args.json else "\n".join(lines(facts, everything)))
    return 0 if ok else 1


def lines(facts: dict[str, Any], checks: list[Check]) -> list[str]:
    """`facts` as lines for a terminal."""
    machine = facts["machine"]
    text = [
        f"{machine['cpu']}, {machine['arch']}, {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "",
    ]
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "ok  " if check.ok else "FAIL" if check.needed else "no  "
        text.append(f"{mark} {check.name:<{width}}  {check.fact}")
        if check.fix:
            text.append(f"     {'':<{width}}  -> {check.fix}")
    failed = [check.name for check in checks if check.needed and not check.ok]
    return [*text, "", f"FAILED: {', '.join(failed)}" if failed else "ok: what 'run' needs is here"]
