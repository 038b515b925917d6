"""A sink behind a queue: it never holds the stream up, and what it does not get is counted and said."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from estimates import HELLO, NOTICE, STATUS, at

from sage_edge.runtime.errors import SinkError
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.notice import Notice, Status
from sage_edge.runtime.sinks import SinkClosed, open_sink
from sage_edge.runtime.sinks.queued import Queued

DEADLINE_S = 60.0


def until(done: Callable[[], bool]) -> None:
    """Come back when `done`."""
    end = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end, "still not so"
        time.sleep(0.005)


class Kept:
    """A sink in memory; `trouble` is called before each line and may raise or wait."""

    spec = "kept"

    def __init__(self, trouble: Callable[[object], object] = lambda line: None) -> None:
        self.lines: list[Any] = []
        self.started = self.closed = 0
        self._trouble = trouble

    def start(self, hello: dict[str, Any]) -> None:
        assert hello == HELLO
        self._trouble(hello)
        self.started += 1

    def write(self, estimate: Estimate) -> None:
        self._trouble(estimate)
        self.lines.append(estimate)

    def notice(self, notice: Notice) -> None:
        self._trouble(notice)
        self.lines.append(notice)

    def status(self, status: Status) -> None:
        self._trouble(status)
        self.lines.append(status)

    def close(self) -> None:
        self.closed += 1


def whats(queued: Queued) -> list[str]:
    return [notice.what for notice in queued.notices()]


def test_lines_come_in_order_and_each_is_written_or_dropped() -> None:
    chance = random.Random(7)

    def trouble(line: object) -> None:
        if chance.random() < 0.1:
            raise SinkError("full")
        if chance.random() < 0.05:
            time.sleep(0.002)

    sink = Kept(trouble)
    queued = Queued(sink, depth=16, first_retry_s=0.0005, last_retry_s=0.002)
    queued.start(HELLO)
    for index in range(2000):
        queued.write(at(index))
        if index % 100 == 0:
            time.sleep(0.001)
    assert queued.flush(DEADLINE_S)
    queued.close()
    stamps = [line.t_ns for line in sink.lines]
    assert stamps == sorted(set(stamps)), "order, and none twice"
    assert queued.counts() == {"state": "closed", "written": len(stamps), "dropped": 2000 - len(stamps), "queued": 0}
    assert stamps[-1] == 1999, "the newest are never those that go"
    assert sink.started > 1, "a sink that failed is started again"
    said = whats(queued)
    assert (said[0], said[-1]) == ("sink_failed", "sink_recovered")


def test_a_sink_that_hangs_holds_nobody_up_and_close_gives_up_on_it() -> None:
    hangs, go = threading.Event(), threading.Event()

    def trouble(line: object) -> None:
        if isinstance(line, Estimate):
            hangs.set()
            go.wait(DEADLINE_S)

    sink = Kept(trouble)
    queued = Queued(sink, depth=8)
    queued.start(HELLO)
    queued.write(at(0))
    assert hangs.wait(DEADLINE_S)
    for index in range(1, 31):
        queued.write(at(index))
    assert queued.counts() == {"state": "slow", "written": 0, "dropped": 22, "queued": 9}
    (notice,) = queued.notices()
    assert (notice.what, notice.detail) == ("sink_failed", "kept is slower than the stream: 8 lines wait; the oldest are given up")
    queued.close(flush_s=0.01)
    assert queued.counts() == {"state": "closed", "written": 0, "dropped": 31, "queued": 0}
    go.set()
    until(lambda: sink.closed == 1)
    assert queued.counts()["dropped"] == 31


@pytest.mark.parametrize("late", [None, SinkError("took nothing"), SinkClosed("gone"), ValueError("not JSON")], ids=repr)
def test_what_a_sink_does_after_close_gave_up_on_it_changes_nothing(late: Exception | None) -> None:
    hangs, go = threading.Event(), threading.Event()

    def trouble(line: object) -> None:
        if isinstance(line, Estimate) and not go.is_set():
            hangs.set()
            go.wait(DEADLINE_S)
            if late is not None:
                raise late

    sink = Kept(trouble)
    queued = Queued(sink, first_retry_s=0.001)
    queued.start(HELLO)
    queued.write(at(0))
    assert hangs.wait(DEADLINE_S)
    queued.close(flush_s=0.0)
    go.set()
    until(lambda: sink.closed == 1)
    assert queued.counts() == {"state": "closed", "written": 0, "dropped": 1, "queued": 0}
    assert queued.notices() == []
    assert sink.started == 1


def test_a_slow_sink_that_catches_up_says_so_with_what_was_lost() -> None:
    go = threading.Event()
    sink = Kept(lambda line: go.wait(DEADLINE_S))
    queued = Queued(sink, depth=4, now_ns=lambda: 77)
    queued.start(HELLO)
    queued.write(at(-1))
    go.set()
    assert queued.flush(DEADLINE_S)
    go.clear()
    for index in range(10):
        queued.write(at(index))
    go.set()
    assert queued.flush(DEADLINE_S)
    until(lambda: queued.state == "live")
    failed, recovered = queued.notices()
    assert (failed.t_ns, failed.what) == (77, "sink_failed")
    assert (recovered.what, recovered.detail) == ("sink_recovered", f"kept takes lines again; {queued.dropped} were given up")
    assert len(sink.lines) == 11 - queued.dropped
    queued.close()


def test_a_sink_that_does_nothing_with_a_status_is_not_woken_for_one(tmp_path: Path) -> None:
    kept = Kept()
    kept.takes_status = False  # type: ignore[attr-defined]
    for sink in (kept, open_sink(f"jsonl:{tmp_path / 'x.jsonl'}"), open_sink(f"csv:{tmp_path / 'x.csv'}")):
        queued = Queued(sink)
        queued.start(HELLO)
        queued.status(STATUS)
        queued.write(at(0))
        assert queued.flush(DEADLINE_S)
        assert queued.counts() == {"state": "live", "written": 1, "dropped": 0, "queued": 0}
        queued.close()
    assert kept.lines == [at(0)]


def test_notices_are_the_last_to_be_dropped() -> None:
    go = threading.Event()
    sink = Kept(lambda line: go.wait(DEADLINE_S))
    queued = Queued(sink, depth=4)
    queued.start(HELLO)  # waits in start
    queued.notice(NOTICE)
    for index in range(20):
        queued.write(at(index))
        queued.status(STATUS)
    go.set()
    assert queued.flush(DEADLINE_S)
    assert sink.lines == [NOTICE, STATUS, at(19), STATUS]
    go.clear()
    queued.write(at(20))  # in hand
    until(lambda: not queued._lines)
    notices = [Notice(index, "degraded", "") for index in range(6)]
    for notice in notices:
        queued.notice(notice)
    go.set()
    assert queued.flush(DEADLINE_S)
    assert sink.lines[4:] == [at(20), *notices[2:]], "then the oldest of them"
    queued.close()


def test_a_line_that_can_never_be_written_is_given_up_alone() -> None:
    def trouble(line: object) -> None:
        if isinstance(line, Estimate) and line.t_ns == 1:
            raise ValueError("Out of range float values are not JSON compliant")

    sink = Kept(trouble)
    queued = Queued(sink, first_retry_s=0.001)
    queued.start(HELLO)
    for index in range(3):
        queued.write(at(index))
    assert queued.flush(DEADLINE_S)
    queued.close()
    assert [line.t_ns for line in sink.lines] == [0, 2]
    assert queued.counts() == {"state": "closed", "written": 2, "dropped": 1, "queued": 0}
    failed, recovered = queued.notices()
    assert "ValueError: Out of range" in failed.detail
    assert recovered.detail == "kept takes lines again; 1 were given up"


def test_close_writes_what_waits_and_tries_a_failing_sink_once_more() -> None:
    full = threading.Event()
    full.set()

    def trouble(line: object) -> None:
        if full.is_set():
            raise SinkError("no room")

    sink = Kept(trouble)
    queued = Queued(sink, first_retry_s=DEADLINE_S)
    queued.start(HELLO)
    for index in range(5):
        queued.write(at(index))
    until(lambda: queued.state == "failed")
    full.clear()
    queued.close(DEADLINE_S)
    assert [line.t_ns for line in sink.lines] == [0, 1, 2, 3, 4]
    assert sink.closed == 1
    queued.close()
    queued.write(at(9))
    assert queued.counts() == {"state": "closed", "written": 5, "dropped": 0, "queued": 0}


def test_nothing_runs_before_start_and_close_alone_is_fine() -> None:
    threads = threading.active_count()
    sink = Kept()
    queued = Queued(sink)
    assert threading.active_count() == threads
    queued.close()
    assert (sink.closed, sink.started) == (1, 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_a_disk_that_is_full_from_the_start_stops_nothing() -> None:
    queued = Queued(open_sink("jsonl:/dev/full"), first_retry_s=0.001, last_retry_s=0.01)
    queued.start(HELLO)
    until(lambda: queued.state == "failed")
    for index in range(100):
        queued.write(at(index))
    queued.close()
    assert queued.counts() == {"state": "closed", "written": 0, "dropped": 100, "queued": 0}
    (failed,) = queued.notices()
    assert failed.what == "sink_failed"
    assert failed.detail.startswith("/dev/full: No space left on device")
    assert "\n" not in failed.detail


def test_a_disk_that_fills_up_and_gets_room_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    code = (
        "import json, resource; from test_sink_queue import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))\n"
        f"queued = Queued(open_sink('jsonl:{path}'), depth=16, first_retry_s=0.001, last_retry_s=0.01)\n"
        "queued.start(HELLO)\n"
        "for index in range(40):\n"
        "    queued.write(at(index))\n"
        "until(lambda: queued.state == 'failed')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "assert queued.flush(DEADLINE_S)\n"
        "queued.close()\n"
        "print(json.dumps([queued.counts(), [notice.what for notice in queued.notices()]]))\n"
    )
    # no byte code: under a limit on file sizes Python would leave half a module of ours behind
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    counts, said = json.loads(done.stdout)
    text = path.read_text()
    hello, *estimates = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n")
    assert hello == HELLO
    assert all("type" not in line for line in estimates), "one hello: the file still has the first"
    stamps = [line["t_ns"] for line in estimates]
    assert stamps == sorted(set(stamps))
    assert (counts["written"], counts["dropped"]) == (len(stamps), 40 - len(stamps))
    assert stamps[-1] == 39
    assert said[0] == "sink_failed"
    assert said[-1] == "sink_recovered"


def test_a_disk_that_is_slower_than_the_stream_loses_the_oldest(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, True)
    queued = Queued(open_sink(f"jsonl:{pipe}"), depth=8)
    queued.start(HELLO)
    until(lambda: queued.state == "live")
    for index in range(200):
        queued.write(at(index))  # nobody reads: this would wait for ever without the queue
    assert queued.state == "slow"
    got = b""

    def read() -> None:
        nonlocal got
        while part := os.read(reader, 4096):
            got += part

    thread = threading.Thread(target=read)
    thread.start()
    assert queued.flush(DEADLINE_S)
    queued.close()
    thread.join(DEADLINE_S)
    os.close(reader)
    stamps = [json.loads(line)["t_ns"] for line in got.splitlines()[1:]]
    assert stamps == sorted(set(stamps))
    assert (queued.written, queued.dropped) == (len(stamps), 200 - len(stamps))
    assert queued.dropped > 0
    assert stamps[-8:] == list(range(192, 200)), "the newest are kept"
    assert whats(queued)[:2] == ["sink_failed", "sink_recovered"]


def test_a_reader_that_leaves_ends_the_run(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    queued = Queued(open_sink(f"jsonl:{pipe}"))
    queued.start(HELLO)
    queued.write(at(0))
    assert queued.flush(DEADLINE_S)
    os.close(reader)
    queued.write(at(1))
    until(lambda: queued.state == "closed")
    for send in (lambda: queued.write(at(2)), lambda: queued.notice(NOTICE), lambda: queued.status(STATUS)):
        with pytest.raises(SinkClosed, match="its reader has gone"):
            send()
    assert queued.counts() == {"state": "closed", "written": 1, "dropped": 1, "queued": 0}
    assert whats(queued) == [], "that is no failure"
    queued.close()


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_stdout_that_goes_to_a_full_disk_gets_whole_lines_and_the_rest_later(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("earlier\n")
    code = (
        "import resource, sys; from test_sink_queue import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))\n"
        "queued = Queued(open_sink('jsonl:-'), first_retry_s=0.001, last_retry_s=0.01)\n"
        "queued.start(HELLO)\n"
        "for index in range(40):\n"
        "    queued.write(at(index))\n"
        "until(lambda: queued.state == 'failed')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "assert queued.flush(DEADLINE_S)\n"
        "queued.close()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with open(path, mode) as stdout:
        subprocess.run([sys.executable, "-c", code], stdout=stdout, env=env, check=True)
    lines = path.read_text().splitlines()
    if mode == "ab":
        assert lines.pop(0) == "earlier"
    assert json.loads(lines.pop(0)) == HELLO
    assert [json.loads(line)["t_ns"] for line in lines] == list(range(40))


def test_a_process_whose_stdout_nobody_reads_ends(tmp_path: Path) -> None:
    code = (
        "from test_sink_queue import *\n"
        "queued = Queued(open_sink('jsonl:-'), depth=8)\n"
        "queued.start(HELLO)\n"
        "while queued.state != 'slow':\n"
        "    queued.write(at(queued.written))\n"
        "    time.sleep(0.0001)\n"
        "queued.close(0.01)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, env=env, check=False, timeout=DEADLINE_S)
    os.close(writer)
    os.close(reader)
    assert (done.returncode, done.stderr) == (0, "")
