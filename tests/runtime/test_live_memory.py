"""The memory of the service: `sage-edge run` on a whole `tiny`, a 640 x 480 camera and a microphone, as the system counts it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_video import even_stamps, write_video
from moving_face import Person, Room, path_of
from pulse import MISSING, NEEDED, PulseServer

ROOT = Path(__file__).parents[2]
LIMIT_MB = 250
SECONDS = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
    pytest.mark.skipif(bool(MISSING), reason=NEEDED),
]


@pytest.fixture(scope="module")
def tiny() -> Path:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no torch to make a model with")
    made = subprocess.run([sys.executable, ROOT / "tests/aarch64/taught.py"], capture_output=True, text=True, check=True)
    return Path(made.stdout.strip()) / "tiny.sage"


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file stands in for a camera, at its own speed: somebody before it, decoded as H.264."""
    person, room = Person(3), Room()
    shots = [room.shot(index, [(person, path_of(index))]) for index in range(60)]
    return write_video(
        tmp_path_factory.mktemp("camera") / "talk.mp4",
        stamps_s=even_stamps(30, 30 * SECONDS),
        picture=lambda index, _: shots[index % 119 if index % 119 < 60 else 118 - index % 119],
        size=(640, 480),
    )


def test_a_live_run_of_tiny_stays_small(tiny: Path, camera: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sage_edge.cli.main", "run", tiny, "--camera", camera, "--mic", "mic:talker", "--precision", "int8"]
    command += ["--out", f"jsonl:{tmp_path}/x.jsonl", "--out", f"csv:{tmp_path}/x.csv"]
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(stack.enter_context(PulseServer()).microphone("talker", 16_000))
        pipe.play((8000 * np.sin(np.arange(SECONDS * 16_000) * (2 * np.pi * 440 / 16_000))).astype(np.int16))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = stack.enter_context(subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment))
        stack.callback(process.kill)
        assert process.stderr is not None
        peak_mb = 0.0
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
                    peak_mb = int(found[1]) / 1024
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
        said = process.stderr.read()
    assert process.returncode == 0, said
    _, *rest = (json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines())
    estimates = [line for line in rest if "type" not in line]
    assert len(estimates) >= SECONDS, "half of all hops at the least"
    assert sum(line["face"] is not None for line in estimates) > len(estimates) / 2
    assert any(line["audio"] and line["audio"]["rms_dbfs"] and line["audio"]["rms_dbfs"] > -30 for line in estimates), "the tone was heard"
    print(f"peak {peak_mb:.0f} MB, {len(estimates)} estimates; {said.splitlines()[-1]}")
    assert 50 < peak_mb < LIMIT_MB
