from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage_edge.runtime.errors import DataError, SageError
from sage_edge.training.data.workers import run_jobs


def square(x: int) -> int:
    return x * x


def refuse(x: int) -> int:
    if x == 3:
        raise DataError(f"{x} is bad; try 4")
    return x


def crash(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail(x: int) -> int:
    return x // 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(run_jobs(square, range(7), workers)) == [(x, x * x) for x in range(7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_itself(workers: int) -> None:
    with pytest.raises(DataError, match="3 is bad; try 4"):
        list(run_jobs(refuse, range(5), workers))


def test_a_bug_brings_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_jobs(fail, range(3), 2))
    assert "in fail" in str(caught.value.__cause__)


def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(SageError, match="was ended by SIGKILL"):
        list(run_jobs(crash, range(5), 2))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists processes through /proc")
def test_workers_end_with_a_parent_that_is_killed_and_not_after_their_job() -> None:
    code = """
import time
from sage_edge.training.data.workers import run_jobs
for _ in run_jobs(time.sleep, [0.2, 900, 900], 2):
    print("one", flush=True)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "one\n"
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert children
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
