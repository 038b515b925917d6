"""TensorRT's nested build phases as one bar: first builds take minutes, and look like a hang without it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from sage_edge.runtime.progress import Progress


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Counts phases and steps into `bar` (of 100), and knows whether the build is to end. Called from TensorRT's threads."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._lock, self._cancelled = bar, threading.Lock(), threading.Event()
        self._running: dict[str, _Phase] = {}

    def cancel(self) -> None:
        """Let the build end with the step it is at."""
        self._cancelled.set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside `parent`."""
        with self._lock:
            self._running[name] = _Phase(parent or None, max(1, steps))
            self._show(name)

    def step(self, name: str, step: int) -> bool:
        """Step number `step` of a phase is done; returns whether to go on."""
        with self._lock:
            if name in self._running:
                self._running[name].done = step + 1
                self._show(name)
        return not self._cancelled.is_set()

    def end(self, name: str) -> None:
        """A phase is over, whether or not all of its steps were told."""
        with self._lock:
            self._running.pop(name, None)

    def finish(self) -> None:
        """The build is done."""
        with self._lock:
            self._bar.step(100 - self._bar.done, note="")

    def _show(self, name: str) -> None:
        roots = [key for key, phase in self._running.items() if phase.parent not in self._running]
        share = max((self._share(root) for root in roots), default=0.0)
        phase = self._running[name]
        # never back, and never at the end before it: phases may come several times
        percent = min(99, max(self._bar.done, int(100 * share)))
        self._bar.step(percent - self._bar.done, note=f"{name} {min(phase.done, phase.steps)}/{phase.steps}")

    def _share(self, name: str) -> float:
        phase = self._running[name]
        inner = max((self._share(key) for key, child in self._running.items() if child.parent == name and key != name), default=0.0)
        return min(1.0, (phase.done + inner) / phase.steps)


def monitor(trt: Any, phases: Phases) -> Any:
    """A `tensorrt.IProgressMonitor` that tells `phases`; what it raised would end the build, and print a line of TensorRT's own."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.end(phase_name)

    return Monitor()
