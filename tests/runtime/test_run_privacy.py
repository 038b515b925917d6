"""A live `run` opens, writes, listens on and connects to what it was asked for, and nothing else: watched from outside and from inside.

From outside /proc tells what the process holds, asked all the time while it runs: that sees C libraries too, but not what is over at once. From
inside an audit hook tells every file that Python opens for writing and every socket it makes, however short. Home, temporary and working folder
are empty before, and must be so after.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from broker import MOSQUITTO, NEEDS, Broker
from make_video import even_stamps, write_video
from pulse import MISSING, NEEDED, PulseServer

DEADLINE_S = 120.0
AUDITED = """
import json, os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def hook(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        os.write(log, (json.dumps(["write", str(args[0])]) + "\\n").encode())
    elif event.startswith("socket.") and event != "socket.gethostname":
        os.write(log, (json.dumps([event, repr(args[1:])]) + "\\n").encode())
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system"):
        os.write(log, (json.dumps([event, repr(args)]) + "\\n").encode())
sys.addaudithook(hook)
from sage_edge.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass
class Seen:
    """All that a run was ever seen with."""

    written: set[str] = field(default_factory=set)
    """Files that were open for writing."""
    sockets: set[tuple[str, str, str]] = field(default_factory=set)
    """(family, where it is, whom it talks to)."""
    started: set[str] = field(default_factory=set)
    """Programs."""
    audited: list[tuple[str, str]] = field(default_factory=list)
    stdout: str = ""
    looks: int = 0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of nobody."""
    return write_video(
        tmp_path_factory.mktemp("clip") / "room.mp4",
        stamps_s=even_stamps(30, 300),
        picture=lambda index, _: np.full((120, 160, 3), 60 + index % 60, np.uint8),
        size=(160, 120),
    )


def open_for_writing(pid: int) -> Iterator[str]:
    """Regular files and devices that a process could write to, but for its outputs; from /proc."""
    for handle in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind = os.stat(f"/proc/{pid}/fd/{handle}").st_mode
            target = os.readlink(f"/proc/{pid}/fd/{handle}")
            with open(f"/proc/{pid}/fdinfo/{handle}") as info:
                flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        except OSError:
            continue  # closed meanwhile
        if flags & os.O_ACCMODE != os.O_RDONLY and (stat.S_ISREG(kind) or stat.S_ISBLK(kind) or stat.S_ISCHR(kind)):
            yield target


def watch(tmp_path: Path, *args: object) -> Seen:
    """Run the command line `args`, look at it until it ends, and hold its empty folders to be empty."""
    folders = {name: tmp_path / name for name in ("home", "tmp", "work")}
    for folder in folders.values():
        folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    environment |= {"HOME": str(folders["home"]), "TMPDIR": str(folders["tmp"]), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    audit, output = tmp_path / "audit", tmp_path / "output"
    seen = Seen()
    with open(output, "wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", AUDITED, str(audit), *map(str, args)],
            **{"cwd": folders["work"], "env": environment, "stdout": stdout, "stderr": subprocess.PIPE, "text": True},
        )
        end = time.monotonic() + DEADLINE_S
        while process.poll() is None:
            assert time.monotonic() < end
            try:
                for each in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
                    seen.written.update(open_for_writing(each.pid))
                    for one in each.net_connections(kind="all"):
                        family = socket.AddressFamily(one.family).name
                        seen.sockets.add((family, str(one.laddr and tuple(one.laddr)), str(one.raddr and tuple(one.raddr))))
                    seen.started.add(each.name())
            except (psutil.NoSuchProcess, FileNotFoundError):
                pass  # a child, or all of it, has just ended
            seen.looks += 1
            time.sleep(0.005)
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    seen.started -= {psutil.Process().name(), Path(sys.executable).name}  # itself, and a child before it has become another program
    seen.written -= {str(audit), str(output), os.devnull}
    seen.audited = [tuple(json.loads(line)) for line in audit.read_text().splitlines()]
    seen.stdout = output.read_text()
    for folder in folders.values():
        assert list(folder.iterdir()) == []
    return seen


def test_a_run_by_default_writes_listens_and_connects_nowhere(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    seen = watch(tmp_path, "run", bundle_path, "--camera", clip, "--seconds", 1.2)
    assert seen.looks > 20
    assert len(seen.stdout.splitlines()) >= 3, "it did run"
    assert seen.written == set()
    assert seen.sockets == set()
    assert [entry for entry in seen.audited if entry != ("write", os.devnull)] == []
    assert seen.started == set()


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=NEEDED)
def test_a_microphone_is_a_socket_of_this_machine_and_its_sound_goes_nowhere(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    with PulseServer() as server, server.microphone("pipemic", 16_000):
        seen = watch(tmp_path, "run", bundle_path, "--camera", clip, "--mic", "mic:default", "--seconds", 2)
    assert '"microphone":"live"' in seen.stdout
    assert {family for family, _, _ in seen.sockets} == {"AF_UNIX"}, "the sound server's"
    assert {place for place in seen.written if not place.startswith(("/dev/shm/jack", "/memfd:pulse"))} == set(), "shared memory of sound servers"
    assert seen.started <= {"pactl", "ldconfig"}
    assert {entry for entry in seen.audited if entry[0].startswith("socket")} == set()


def test_no_output_tells_the_password_of_a_camera(bundle_path: Path, tmp_path: Path) -> None:
    args = [sys.executable, "-m", "sage_edge.cli.main", "run", str(bundle_path), "--camera", "rtsp://me:hunter2@127.0.0.1:1/x", "--seconds", "0.3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=DEADLINE_S)
    assert "127.0.0.1" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason=NEEDS)
def test_a_run_that_is_asked_writes_listens_and_connects_just_there(bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    places = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            places.append(free.getsockname()[1])
    with Broker(tmp_path) as broker:
        outs = (
            f"jsonl:{tmp_path}/x.jsonl",
            f"ws://127.0.0.1:{places[0]}",
            f"prometheus://127.0.0.1:{places[1]}",
            f"mqtt://127.0.0.1:{broker.port}/x",
        )
        args = [word for out in outs for word in ("--out", out)]
        seen = watch(tmp_path, "run", bundle_path, "--camera", clip, "--seconds", 3, *args)
        assert broker.received("x/estimate") >= 3
    assert seen.written == {f"{tmp_path}/x.jsonl"}
    inet = {entry for entry in seen.sockets if entry[0] != "AF_UNIX"}
    listening = {where for _, where, whom in inet if whom == "()"}
    near, far = {where for _, where, whom in inet if whom != "()"}, {whom for _, _, whom in inet if whom != "()"}
    assert far - near == {str(("127.0.0.1", broker.port))}, "but for a pair of sockets that paho makes to wake itself up"
    assert listening - near == {str(("127.0.0.1", place)) for place in places}
