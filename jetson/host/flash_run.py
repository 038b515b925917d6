"""Run the steps of a plan: progress for people, everything in a log, what is already proven is skipped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..boards import table
from .bsp import Bsp, environment
from .errors import HostError
from .flash_plan import MASK, Plan, Step

LOG = "sage-edge-flash.log"
_TAIL = 12
_STOP_S = 10
_RANDOM = re.compile(r"(Password - )([^,]*)")
"""l4t_create_default_user.sh prints the password that it sets."""


def run_plan(bsp: Bsp, plan: Plan, names: list[str], proven: Callable[[str], bool], say: Callable[[str], None], *, news_s: float = 30) -> None:
    """Run the steps in `names`; a tool's latest line is said every `news_s` seconds, of our own overlay all are.

    Raises HostError when one fails or does not leave behind what proves it, and when another run is at work there; the log says the rest.
    """
    path = bsp.root / LOG
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    steps = [step for step in plan.steps if step.name in names]
    with open(descriptor, "a", encoding="utf-8", errors="replace") as log:
        _alone(log, bsp)
        for place, step in enumerate(steps, 1):
            mark = f"[{place}/{len(steps)}] {step.name}"
            if proven(step.name):
                say(f"{mark}: done already, {step.proof}")
                _note(log, f"{step.name}: done already")
                continue
            say(f"{mark}: {step.why}")
            _note(log, f"{step.name}: {step.command()}")
            bsp.begin(step.name)
            started = time.monotonic()
            code, tail = _run(bsp, step, log, say, 0 if step.name == "overlay" else news_s)
            seconds = time.monotonic() - started
            _note(log, f"{step.name}: exit code {code} after {seconds:.0f} s")
            if code:
                raise HostError(_failed(step, code, tail, path))
            bsp.end(step.name)
            if step.name != "flash" and not proven(step.name):
                raise HostError(f"step '{step.name}' ended well but left no proof ({step.proof}): see {path}")
            say(f"{mark}: done in {seconds:.0f} s")


def _run(bsp: Bsp, step: Step, log: IO[str], say: Callable[[str], None], news_s: float) -> tuple[int, list[str]]:
    """Its exit code and last lines. A password that the tool made up is shown once and not logged; one that was given is shown nowhere."""
    tail: deque[str] = deque(maxlen=_TAIL)
    process = subprocess.Popen(
        step.argv,
        cwd=bsp.root,
        env=environment(bsp.path, step.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    started = said = time.monotonic()
    try:
        for line in process.stdout:
            text = line.rstrip()
            for secret in step.secrets:
                text = text.replace(secret, MASK)
            if not step.secrets and (made := _RANDOM.search(text)):
                say(f"  user {step.argv[2]}, password {made[2]}")
            text = _RANDOM.sub(rf"\g<1>{MASK}", text)
            tail.append(text)
            log.write(f"  {text}\n")
            log.flush()
            now = time.monotonic()
            if text.strip() and now - said >= news_s:
                said = now
                say(f"  {now - started:.0f} s: {text.strip()[: 150 if news_s else None]}")
        return process.wait(), list(tail)
    except BaseException:
        _stop(process)
        raise
    finally:
        process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    """The tool and all that it started: a signal to a script alone leaves the programs that it runs."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)


def _alone(log: IO[str], bsp: Bsp) -> None:
    """Held until the log is closed, by this process's end at the latest."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HostError(f"another jetson/flash works in {bsp.root}; wait for its end, or stop it with Ctrl-C") from None


def _failed(step: Step, code: int, tail: list[str], log: Path) -> str:
    said = "\n".join(tail)
    for failure in table().failures:
        if re.search(failure.pattern, said):
            return f"step '{step.name}' failed with exit code {code}: {failure.fact}; {failure.fix} (all of it in {log})"
    lines = [line.strip() for line in tail if line.strip()]
    last = next((line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "it said nothing")
    return f"step '{step.name}' failed with exit code {code}: {last.removeprefix('error: ')}; see {log}, then run the same command again"


def _note(log: IO[str], text: str) -> None:
    log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
    log.flush()
