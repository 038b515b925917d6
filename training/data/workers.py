"""Run picklable jobs on a few worker processes that die quietly: on Ctrl-C, on an error in one of them, and when the parent is killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from sage_edge.runtime.errors import SageError
from sage_edge.runtime.machine import cores

J = TypeVar("J")
R = TypeVar("R")


def default_workers(at_most: int = 2) -> int:
    """One per core that this process may use, up to `at_most`."""
    return min(at_most, cores())


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[tuple[J, R], None, None]:
    """Yield (job, function(job)) as they finish. `function` is a module's function. An exception in a job stops all and is raised here."""
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    running: dict[Any, J] = {}
    processes: dict[Any, Any] = {}
    try:
        with _inherit_ignored_interrupt():
            for _ in range(min(workers, len(jobs))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function), daemon=True)
                process.start()
                theirs.close()
                processes[ours] = process
                running[ours] = waiting.pop()
                ours.send(running[ours])
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                try:
                    result, error, trace = pipe.recv()
                except (EOFError, ConnectionError):
                    raise SageError(_why(processes[pipe])) from None
                if error is not None:
                    raise error from (None if isinstance(error, SageError) else RuntimeError(trace))
                job = running.pop(pipe)
                if waiting:
                    running[pipe] = waiting.pop()
                    pipe.send(running[pipe])
                else:
                    pipe.close()
                yield job, result
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join()


def _why(process: Any) -> str:
    process.join(10)
    code = process.exitcode
    if code is not None and code < 0:
        return f"a worker process was ended by {signal.Signals(-code).name}; if nobody did so, it ran out of memory: free some, or use one worker"
    return f"a worker process ended early (exit code {code}); a script that starts workers needs `if __name__ == '__main__':`"


def _serve(pipe: Connection, function: Callable[[J], R]) -> None:
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    try:
        while True:
            job = pipe.recv()
            answer: tuple[R | None, Exception | None, str]
            try:
                answer = (function(job), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            pipe.send(answer)
    except (EOFError, OSError):
        return  # the parent has closed its end, or is gone


def _end_with_parent() -> None:
    # In the midst of a job, not after it: what the parent was killed over may already be begun anew.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV on one thread in here: two workers already fill two cores."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextlib.contextmanager
def _inherit_ignored_interrupt() -> Iterator[None]:
    """Children started in here ignore Ctrl-C from their first instruction: the parent alone answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
