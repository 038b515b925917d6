"""What a number needs to be read by: the machine, the versions, and how much memory the process and its children took."""

from __future__ import annotations

import os
import platform
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("sage-edge", "numpy", "onnxruntime", "opencv-python-headless", "av", "torch", "onnx")
_PROC = Path("/proc")


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, architecture, memory, system."""
    model = platform.processor() or platform.machine()
    try:
        lines = (_PROC / "cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "cores": cores(), "arch": platform.machine(), "system": f"{platform.system()} {platform.release()}"}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Python's and those of `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_rss_mb() -> float:
    """The most memory this process has held so far, in MB (1e6 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


class PeakMemory:
    """`with PeakMemory() as memory: ...; memory.peak_mb`: the most that this process and all its children held together, sampled twice a second.

    Shared pages count once per process, so it errs high. Where there is no /proc, the peak of this process alone.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.peak_mb = 0.0
        self._every_s, self._stop = every_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, peak_rss_mb())

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_mb = max(self.peak_mb, _tree_rss_mb(os.getpid()))


def _tree_rss_mb(root: int) -> float:
    """RSS of `root` and its descendants, 0 where there is no /proc."""
    parent: dict[int, int] = {}
    pages: dict[int, int] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it ended meanwhile
        fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces
        parent[int(path.parent.name)], pages[int(path.parent.name)] = int(fields[1]), int(fields[21])
    family = {root}
    while more := {pid for pid, of in parent.items() if of in family} - family:
        family |= more
    return sum(pages.get(pid, 0) for pid in family) * os.sysconf("SC_PAGE_SIZE") / 1e6
