"""Nobody who does not read stderr can hold up or end a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

SAYS = """
import sys, time
from sage_edge.cli.voice import Voice
with Voice() as tell:
    for i in range(5000):
        tell(f"{i} " + 100 * "x")
        if i % 50 == 0:
            time.sleep(0.001)
print("done")
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_reader_that_is_not_there_changes_nothing(reader: str) -> None:
    read, write = os.pipe()
    if reader == "gone":
        os.close(read)
    process = subprocess.Popen([sys.executable, "-c", SAYS], stdout=subprocess.PIPE, stderr=write, text=True, env=environment())
    os.close(write)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")
    if reader == "asleep":
        os.close(read)


def test_every_line_is_said_in_order_and_whole_also_after_stderr_was_pointed_elsewhere() -> None:
    says = """
import os
from sage_edge.cli.voice import Voice
with Voice() as tell:
    tell("first")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for i in range(40):
        tell(f"line {i} \\u00e9 \\udc80")
"""
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, env=environment(), timeout=60, check=True)
    assert done.stderr.decode().splitlines() == ["first", *(f"line {i} é \\udc80" for i in range(40))]


def test_it_leaves_no_thread_and_no_handle(capfd: pytest.CaptureFixture[str]) -> None:
    from sage_edge.cli.voice import Voice

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Voice() as tell:
            tell("hello")
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/fd")) != before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before
    assert capfd.readouterr().err == 5 * "hello\n"
