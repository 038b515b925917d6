"""`sage-edge run --camera ... --mic ...` as people call it: a process over real devices, its outputs, its end."""

from __future__ import annotations

import csv
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import MjpegServer
from make_video import even_stamps, write_video
from moving_face import Person, Room, path_of
from pulse import MISSING, NEEDED, PulseServer

DEADLINE_S = 120.0
LONG_S = 20


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "sage_edge.cli.main", "run", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, env=environment(), timeout=DEADLINE_S, check=False)


@contextmanager
def running(*args: object) -> Iterator[subprocess.Popen[str]]:
    """The process; one that hangs is made to say where, and ends."""
    with subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        watchdog = threading.Timer(DEADLINE_S, process.send_signal, (signal.SIGABRT,))
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody for LONG_S; a file stands in for a camera, at its own speed."""
    person, room = Person(8), Room((160, 120))
    shots = [room.shot(index, [(person, path_of(index, (160, 120), 60))]) for index in range(30)]
    return write_video(
        tmp_path_factory.mktemp("clip") / "talk.mp4",
        stamps_s=even_stamps(30, 30 * LONG_S),
        picture=lambda index, _: shots[index % 59 if index % 59 < 30 else 58 - index % 59],
        size=(160, 120),
    )


def read(lines: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The hello, the estimates and the notices."""
    hello, *rest = [json.loads(line) for line in lines]
    assert hello["type"] == "hello"
    return hello, [line for line in rest if "type" not in line], [line for line in rest if "type" in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_a_live_run_in_good_order(number: int, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    with running(bundle_path, "--camera", clip, "--out", "jsonl:-", "--out", f"csv:{tmp_path}/x.csv") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    hello, estimates, _ = read([*lines, *out.splitlines()])
    assert (hello["camera"], hello["microphone"], hello["faces"], hello["smooth"]["kind"]) == (str(clip), None, "largest", "one-euro")
    assert len(estimates) >= 2
    ticks = [t for e in estimates for t, _, _ in e["trail"]]
    assert np.allclose(np.diff(ticks), 1e9 / 30, atol=2)
    for e in estimates[1:]:
        assert e["smooth"].keys() == {"valence", "arousal"}
        assert (e["live"]["camera"], e["live"]["microphone"], e["live"]["why"]) == ("live", None, None)
    with open(tmp_path / "x.csv", newline="") as stream:
        assert [int(row["t_ns"]) for row in csv.DictReader(stream)] == [e["t_ns"] for e in estimates]
    summary = err.splitlines()[-1]
    assert re.match(r"\d+ frames, \d+ estimates in \d+\.\d s, .*drops: .*; stopped$", summary), err
    assert "Traceback" not in err


def test_seconds_end_it_and_options_reach_the_stream(bundle_path: Path, clip: Path) -> None:
    done = run(bundle_path, "--camera", clip, "--seconds", 1.5, "--hop", 5, "--smooth", "none", "--faces", "all", "--budget-ms", 900)
    assert done.returncode == 0, done.stderr
    hello, estimates, notices = read(done.stdout.splitlines())
    assert (hello["hop"], hello["smooth"], hello["faces"], hello["budget_ms"]) == (5, None, "all", 900)
    assert len({e["t_ns"] for e in estimates}) >= 8
    assert all(e["smooth"] is None for e in estimates)
    assert notices[0]["what"] == "camera_open"
    assert "camera_open: " in done.stderr


def test_the_end_of_a_file_ends_it(bundle_path: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", stamps_s=even_stamps(30, 40), picture=lambda i, _: np.full((48, 64, 3), i, np.uint8), size=(64, 48))
    (tmp_path / "x.jsonl").write_text('{"of":"the run before"}\n')
    done = run(bundle_path, "--camera", path, "--out", "jsonl:-", "--out", f"jsonl:{tmp_path}/x.jsonl?append=1")
    assert done.returncode == 0, done.stderr
    hello, estimates, _ = read(done.stdout.splitlines())
    assert sum(len(e["trail"]) for e in estimates) >= 30
    begun = datetime.datetime.fromisoformat(hello["begun"]["utc"]).timestamp() - hello["begun"]["t_ns"] / 1e9
    assert begun == pytest.approx(time.time() - time.monotonic(), abs=1), "stamps can be told as times of day"
    assert (tmp_path / "x.jsonl").read_text() == '{"of":"the run before"}\n' + done.stdout


def test_wrong_use_is_one_line_before_anything_is_opened(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases: list[tuple[list[object], str]] = [
            ([], "nothing to look at or to listen to"),
            (["--camera", "none", "--mic", "none"], "nothing to look at"),
            (["--video", clip, "--camera", clip], "has no --camera"),
            (["--video", clip, "--serve", "127.0.0.1:0"], "has no --serve"),
            (["--camera", "camrea:0"], "camera"),
            (["--camera", tmp_path / "nowhere.mp4"], "nowhere.mp4"),
            (["--mic", "mik:default"], "mic:default"),
            (["--camera", clip, "--smooth", "kalman"], "one-euro"),
            (["--camera", clip, "--budget-ms", "-5"], "--budget-ms"),
            (["--camera", clip, "--seconds", "0"], "--seconds"),
            (["--camera", clip, "--pace"], "--pace"),
            (["--camera", clip, "--share-video"], "--serve"),
            (["--camera", clip, "--serve", "0.0.0.0:0"], "token"),
            (["--camera", clip, "--serve", f"127.0.0.1:{port}"], str(port)),
            (["--camera", clip, "--out", "jsnl:-"], "jsonl:-"),
            (["--camera", clip, "--finder", f"yunet:{tmp_path}/x.onnx"], "x.onnx"),
            (["--camera", clip, "--out", f"jsonl:{clip}?append=1"], "would overwrite the video"),
            (["--camera", clip, "--out", f"csv:{bundle_path}/manifest.json"], "would overwrite a file of the bundle"),
            (["--camera", f"{clip}?pace=0", "--mic", "mic:default"], "pace=0"),
            (["--camera", clip, "--budget-ms", "99"], "at least 100"),
            (["--camera", clip, "--serve", ""], "HOST:PORT"),
            (["--camera", "", "--mic", "mic:default"], "camera"),
            (["--camera", clip, "--mic", ""], "microphone"),
            (["--camera", clip, "--smooth", ""], "smoothing"),
            (["--camera", clip, "--finder", ""], "finder"),
            (["--camera", clip, "--token", ""], "--serve"),
            (["--video", clip, "--seconds", "0"], "has no --seconds"),
        ]
        from sage_edge.cli import main as cli

        for args, word in cases:
            # in this process: a dozen interpreters would take a dozen seconds
            code, err = _call(cli, [bundle_path, *args])
            assert code in (1, 2), args
            (line,) = err.splitlines()
            assert line.startswith("error: "), line
            assert word in line, (word, line)
    assert clip.read_bytes()[4:8] == b"ftyp", "still a video"


def _call(cli: Any, args: list[object]) -> tuple[int, str]:
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["run", *map(str, args)])
    assert out.getvalue() == "", args
    return code, err.getvalue()


@pytest.mark.slow
def test_a_reader_of_stdout_that_goes_ends_it(bundle_path: Path, clip: Path) -> None:
    with running(bundle_path, "--camera", clip) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        end = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.returncode == 0
        assert process.stderr is not None
        assert "the reader of the output has gone" in process.stderr.read()


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=NEEDED)
def test_a_stream_and_a_microphone_that_go_and_come_back(bundle_path: Path) -> None:
    """A real MJPEG server, a real sound server, the page: every tick is there, and every loss has its notice."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    camera = MjpegServer(30.0)
    tone = (8000 * np.sin(np.arange(60 * 16_000) * (2 * np.pi * 440 / 16_000))).astype(np.int16)
    try:
        with PulseServer() as server, server.microphone("talker", 16_000) as pipe:
            pipe.play(tone)
            args = ["--camera", camera.uri, "--mic", "mic:talker", "--serve", f"127.0.0.1:{port}", "--out", "jsonl:-"]
            with running(bundle_path, *args) as process:
                assert process.stdout is not None
                out: list[dict[str, Any]] = []

                def wait_for_line(what: Callable[[dict[str, Any]], bool], why: str) -> None:
                    assert process.stdout is not None
                    end = time.monotonic() + DEADLINE_S
                    while time.monotonic() < end:
                        out.append(json.loads(process.stdout.readline()))
                        if what(out[-1]):
                            return
                    raise AssertionError(f"no {why} in {DEADLINE_S:.0f} s")

                def both(line: dict[str, Any]) -> bool:
                    live = line.get("live") or {}
                    heard = "audio" in line and line["audio"]["rms_dbfs"] > -30
                    return (live.get("camera"), live.get("microphone"), heard) == ("live", "live", True)

                wait_for_line(both, "line with camera and microphone")
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE_S) as page:
                    assert b"<html" in page.read()
                camera.stop()
                wait_for_line(lambda line: line.get("what") in ("camera_gone", "camera_stalled"), "word about the camera")
                camera.start()
                wait_for_line(both, "camera that is back")
                pipe.pause(True)
                wait_for_line(lambda line: line.get("what") == "microphone_stalled", "word about the microphone")
                pipe.pause(False)
                wait_for_line(both, "microphone that is back")
                process.send_signal(signal.SIGTERM)
                rest, err = process.communicate(timeout=DEADLINE_S)
    finally:
        camera.stop()
    assert process.returncode == 0, err
    out += [json.loads(line) for line in rest.splitlines()]
    ticks = [t for line in out if "trail" in line for t, _, _ in line["trail"]]
    assert np.allclose(np.diff(ticks), 1e9 / 30, atol=2), "no hole, whatever was gone"
    lates = [line["live"]["late_ms"] for line in out if "live" in line]
    print(f"{len(lates)} estimates, {np.median(lates):.0f} ms late, {max(lates):.0f} at most; {err.splitlines()[-1]}")
