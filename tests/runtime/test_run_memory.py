"""The memory of the real thing: `sage-edge run` on `tiny` over ten minutes of 640 x 480, sampled from /proc once a second."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from make_video import even_stamps, loop_video, write_video
from moving_face import Person, Room, path_of

LIMIT_MB, GROWTH_MB = 250, 4
SECONDS = 600


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with the weights it is born with, compiled: what it says means nothing, what it costs is real."""
    torch = pytest.importorskip("torch")
    from sage_edge.compile import compile_bundle
    from sage_edge.training import checkpoint, presets
    from sage_edge.training.data.store import prepare
    from sage_edge.training.data.synthetic import synthesise
    from sage_edge.training.model import SAGE

    folder = tmp_path_factory.mktemp("tiny")
    prepare(synthesise(folder / "corpus", seed=0, train=1, val=1, seconds=12, workers=1), folder / "store", progress=False)
    torch.manual_seed(0)
    (folder / "ckpt").mkdir()
    checkpoint.write_model(folder / "ckpt", SAGE(presets.get("tiny")).eval(), trained_on={"name": "synthetic", "synthetic": True})
    return Path(compile_bundle(folder / "ckpt", folder / "store", folder / "tiny.sage", max_drop=2.0, method="minmax", count=2))


@pytest.fixture(scope="module")
def ten_minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody who speaks and hides now and then, for ten minutes; encoded once, then repeated packet by packet."""
    folder, person, room = tmp_path_factory.mktemp("video"), Person(3), Room()
    once = write_video(
        folder / "once.mp4",
        stamps_s=even_stamps(30, 600),
        picture=lambda index, _: room.shot(index, [] if 300 <= index < 360 else [(person, path_of(index))]),
        size=(640, 480),
        sound=(0.1 * np.random.default_rng(0).standard_normal(20 * 48_000)).astype(np.float32),
        sound_rate=48_000,
        codec_options={"preset": "veryfast", "qp": "24"},
    )
    return loop_video(once, folder / "long.mp4", SECONDS)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_memory_is_small_and_flat(precision: str, tiny: Path, ten_minutes: Path, tmp_path: Path) -> None:
    args = [sys.executable, "-m", "sage_edge.cli.main", "run", tiny, "--video", ten_minutes, "--precision", precision]
    args += ["--out", f"jsonl:{tmp_path}/x.jsonl", "--out", f"csv:{tmp_path}/x.csv"]
    process = subprocess.Popen([str(arg) for arg in args], stderr=subprocess.PIPE, text=True, env=environment())
    rss_mb: list[float] = []
    status = ""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        if found := re.search(r"VmRSS:\s+(\d+) kB", status):
            rss_mb.append(int(found[1]) / 1024)
        time.sleep(1)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert len(lines) - 1 >= SECONDS * 2, "an estimate at every hop"
    assert len((tmp_path / "x.csv").read_text().splitlines()) == len(lines)
    peak = max(rss_mb)
    print(f"{precision}: peak {peak:.0f} MB in {len(rss_mb)} samples; {stderr.splitlines()[-1]}")
    assert peak < LIMIT_MB, rss_mb
    steady = np.array(rss_mb[len(rss_mb) // 3 :])
    slope = np.polyfit(np.arange(len(steady)), steady, 1)[0] * len(steady)
    assert slope < GROWTH_MB, f"grows by {slope:.1f} MB over the last two thirds: {steady.round(1).tolist()}"
