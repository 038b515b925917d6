"""The README is executed: its quick start is run as it stands, its links lead somewhere, its verbs are the command's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sage_edge.cli.main import VERBS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "jetson/README.md")]


def quick_start() -> list[str]:
    """The commands under "## Quick start", as a reader would type them."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Quick start", 1)[1].split("\n## ", 1)[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [line for line in block.group(1).splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_verbs_of_the_readme_are_the_verbs_of_the_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", text, re.MULTILINE))
    assert {verb: help.replace("`", "") for verb, help in rows.items()} == VERBS


def test_measured_figures_stand_with_their_machine_and_command() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Measured", 1)[1].split("\n## ", 1)[0]
    assert "make demo" in section
    assert "Xeon" in section
    assert "TABLE" not in section


def test_the_quick_start_begins_with_one_command_that_makes_everything() -> None:
    assert quick_start()[0] == "make demo"


@pytest.mark.slow
def test_the_quick_start_runs_and_reaches_what_the_project_promises(tmp_path: Path) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": ""}
    for command in quick_start():
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        print(f"$ {command}\n{done.stdout}", file=sys.stderr)
        assert done.returncode == 0, command
    summary = json.loads((ROOT / "out/demo/summary.json").read_text(encoding="utf-8"))
    ccc, without = summary["ccc"], summary["ccc_without"]
    assert ccc["overlap"]["fp32"]["mean"] >= 0.75
    assert ccc["live"]["fp32"]["mean"] >= 0.68
    for protocol in ("overlap", "live"):
        for dimension in ("valence", "arousal"):
            assert abs(ccc[protocol]["fp32"][dimension] - ccc[protocol]["int8"][dimension]) <= 0.005, (protocol, dimension)
            assert ccc[protocol]["fp32"][dimension] - ccc[protocol]["int8"][dimension] <= 0.002, (protocol, dimension)
    for dimension in ("valence", "arousal"):
        assert ccc["overlap"]["fp32"][dimension] - ccc["overlap"]["int8-trt"][dimension] <= 0.002, dimension
    for modality in ("visual", "audio"):
        assert 0.3 <= without[modality]["mean"] <= ccc["overlap"]["fp32"]["mean"] - 0.1, modality
    assert summary["weights_bytes"]["int8"] < 0.45 * summary["weights_bytes"]["fp32"]
    assert summary["peak_rss_mb"] < 4 * 1024
    lines = [json.loads(line) for line in (ROOT / "out/sample.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["type"] == "hello"
    assert lines[0]["trained_on"]["synthetic"] is True
    assert len(lines) - 1 >= 50, "two estimates a second, and a hello"
    assert all(-1 <= line["valence"] <= 1 and -1 <= line["arousal"] <= 1 for line in lines[1:])
