"""`sage-edge run` as people call it: a process, its two outputs, its exit code."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_video import even_stamps, write_video
from moving_face import Person, Room, path_of

SILENT_WARNING = "was trained on synthetic data"


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "sage_edge.cli.main", "run", *map(str, args)]


def environment() -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def run(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, env=environment(), timeout=120, check=False, **options)


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a refusal."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of somebody who speaks."""
    person, room = Person(8), Room((320, 240))
    return write_video(
        tmp_path_factory.mktemp("clip") / "talk.mp4",
        stamps_s=even_stamps(30, 120),
        picture=lambda index, _: room.shot(index, [(person, path_of(index, (320, 240), 60))]),
        size=(320, 240),
        sound=(0.2 * np.sin(np.arange(4 * 16_000) / 30)).astype(np.float32),
        sound_rate=16_000,
    )


def test_lines_on_stdout_words_on_stderr(bundle_path: Path, clip: Path) -> None:
    done = run(bundle_path, "--video", clip)
    assert done.returncode == 0, done.stderr
    hello, *estimates = [json.loads(line) for line in done.stdout.splitlines()]
    assert (hello["type"], hello["precision"], hello["hop"]) == ("hello", "int8-cpu", 15)
    assert [e["t_ns"] for e in estimates] == [round((15 * n + 14) / 30 * 1e9) for n in range(8)]
    keys = ["v", "t_ns", "age_ms", "valence", "arousal", "reliability", "face", "audio", "drops", "trail", "smooth", "live"]
    assert all(list(e) == keys and e["v"] == 1 for e in estimates)
    assert all(e["face"] is not None and e["face"]["track"] == 1 for e in estimates)
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert SILENT_WARNING in warning
    assert re.match(r"120 frames, 8 estimates, 4\.0 s of media .*real-time factor \d+\.\d+; drops: .*p50/p95 ms: capture ", summary)


def test_files_and_options(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    done = run(
        bundle_path, "--video", clip, "--out", f"jsonl:{tmp_path}/x.jsonl", "--out", f"csv:{tmp_path}/x.csv", "--precision", "fp32", "--hop", 30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    hello, *estimates = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert (hello["precision"], hello["hop"], len(estimates)) == ("fp32", 30, 4)
    with open(tmp_path / "x.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["t_ns"]), float(row["valence"])) for row in rows] == [(e["t_ns"], e["valence"]) for e in estimates]


def test_auto_says_what_it_chose_on_stderr_and_in_hello(bundle_path: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    for _ in range(2):  # raced, then remembered
        done = run(bundle_path, "--video", clip, "--precision", "auto", "--backend", "auto", "--threads", 1)
        assert done.returncode == 0, done.stderr
        hello = json.loads(done.stdout.splitlines()[0])
        (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
        assert note.startswith(f"note: auto chose {hello['backend']} {hello['precision']}, ")
        assert f"{hello['backend']} {hello['precision']}" in hello["auto"]["seconds_per_hop"]
        assert set(hello["auto"]["times_as_long"]) < set(hello["auto"]["seconds_per_hop"])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_neither_sound_nor_face(bundle_path: Path, tmp_path: Path) -> None:
    room = Room((320, 240))
    path = write_video(tmp_path / "x.mp4", stamps_s=even_stamps(30, 60), picture=lambda i, _: room.shot(i, []), size=(320, 240))
    done = run(bundle_path, "--video", path)
    assert done.returncode == 0, done.stderr
    _, *estimates = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(estimates) == 4
    for e in estimates:
        assert (e["face"], e["age_ms"]) == (None, None)
        assert e["audio"] == {"rms_dbfs": -120.0, "warm": False}
        assert all(np.isfinite([e["valence"], e["arousal"], e["reliability"]["temporal"]]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "zero bytes"),
        (lambda path: path.write_text("words " * 100), "is not a video"),
        (lambda path: write_video(path, sound=np.zeros(16_000, np.float32), sound_rate=16_000), "has no video stream"),
        (lambda path: path.write_bytes(write_video(path, stamps_s=even_stamps(25, 5)).read_bytes()[:200]), "ends before its first frame"),
    ],
)
def test_bad_videos_leave_nothing_behind(make: Callable[[Path], object], says: str, bundle_path: Path, tmp_path: Path) -> None:
    make(tmp_path / "x.mp4")
    before = sorted(tmp_path.iterdir())
    line = refused(run(bundle_path, "--video", tmp_path / "x.mp4", "--out", f"csv:{tmp_path}/x.csv"), 1)
    assert says in line
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_use_and_other_refusals(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    assert "did you mean jsonl:- or jsonl:FILE[?append=1]?" in refused(run(bundle_path, "--video", clip, "--out", "json:-"), 2)
    assert "two outputs" in refused(run(bundle_path, "--video", clip, "--out", "jsonl:-", "--out", "jsonl:-"), 2)
    assert "mkdir -p" in refused(run(bundle_path, "--video", clip, "--out", f"csv:{tmp_path}/no/x.csv"), 1)
    assert "no-such.sage does not exist" in refused(run(tmp_path / "no-such.sage", "--video", clip), 1)
    assert "hop is 0" in refused(run(bundle_path, "--video", clip, "--hop", 0, "--out", f"csv:{tmp_path}/x.csv"), 2)
    assert "precision" in refused(run(bundle_path, "--video", clip, "--precision", "int4"), 2)
    assert "backend" in refused(run(bundle_path, "--video", clip, "--backend", "abacus"), 2)
    assert list(tmp_path.iterdir()) == []
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(clip.read_bytes())
    assert "would overwrite the video" in refused(run(bundle_path, "--video", mine, "--out", f"jsonl:{tmp_path}/./mine.mp4"), 2)
    assert mine.read_bytes() == clip.read_bytes()


def test_ctrl_c_ends_with_the_summary_and_whole_lines(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "x.jsonl", tmp_path / "x.csv"
    args = command(bundle_path, "--video", clip, "--pace", "--out", f"jsonl:{lines}", "--out", f"csv:{table}")
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 60
    while not (lines.exists() and lines.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].endswith("; interrupted")
    for path in (lines, table):
        assert path.read_text().endswith("\n")
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert 3 <= len(written) <= 8, "hello and some of the eight estimates"
    assert len(table.read_text().splitlines()) in (len(written), len(written) - 1)


def test_lines_arrive_while_it_runs(bundle_path: Path, clip: Path) -> None:
    with subprocess.Popen(
        command(bundle_path, "--video", clip, "--pace"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            json.loads(process.stdout.readline())
        assert process.poll() is None, "the lines were kept back until the end"
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 130, "SIGTERM, as a supervisor sends it, ends a run as Ctrl-C does"


def test_a_closed_pipe_ends_the_run_cleanly(bundle_path: Path, clip: Path) -> None:
    args = command(bundle_path, "--video", clip, "--hop", 1)
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["type"] == "hello"
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(timeout=60) == 0, stderr
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr
    assert stderr.splitlines()[-1].endswith("the reader of the output has gone")


def test_it_loads_neither_torch_nor_onnx(bundle_path: Path, clip: Path) -> None:
    code = (
        "import sys; from sage_edge.cli.main import main\n"
        f"assert main(['run', {str(bundle_path)!r}, '--video', {str(clip)!r}, '--out', 'jsonl:/dev/null']) == 0\n"
        "print(sorted({'torch', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == "[]\n"


def test_a_bundle_with_a_flipped_byte_as_a_process(copy_of: Callable[[], Path], clip: Path, tmp_path: Path) -> None:
    path = copy_of()
    graph = path / "onnx/visual.int8-cpu.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 0x80
    graph.write_bytes(data)
    line = refused(run(path, "--video", clip, "--out", f"csv:{tmp_path}/x.csv"), 1)
    assert "visual.int8-cpu.onnx has sha256" in line
    assert [p.name for p in tmp_path.iterdir()] == ["copy.sage"]
