"""The machine that a number was measured on: processor, cores, system, versions, memory of this process and its children."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
PACKAGES = (
    *("sage-edge", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "cuda-bindings", "pycuda"),
    *("opencv-python-headless", "av", "soxr", "sounddevice", "torch", "onnx"),
)
"""Those that decide what works, and how fast."""


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, architecture, system."""
    return {"cpu": processor(), "cores": cores(), "arch": platform.machine(), "system": f"{platform.system()} {platform.release()}"}


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Python's version and those of `packages`, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def processor() -> str:
    """What the processor calls itself; on a board, what the board calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    with contextlib.suppress(OSError):
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """What tells NVIDIA's GPUs and their driver here from others, without loading anything: for keys, not for people."""
    found = [f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}"]
    for path in (_PROC / "driver/nvidia/version", *sorted((_PROC / "driver/nvidia/gpus").glob("*/information"))):
        with contextlib.suppress(OSError):
            found += [" ".join(line.split()) for line in path.read_text().splitlines() if line.startswith(("NVRM version", "Model", "GPU UUID"))]
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_rss_mb() -> float:
    """The most memory this process ever held, in MB (1e6 bytes); 0 where the system does not say."""
    # Linux's getrusage also counts what the parent held before exec.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return 0.0


class PeakMemory:
    """`with PeakMemory() as memory: ...; memory.peak_mb`: the most that this process and all its children held together, sampled twice a second.

    In MB. Shared pages count once per process, so it errs high. Where there is no /proc, the peak of this process alone.
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
    """RSS of `root` and its descendants in MB, 0 where there is no /proc."""
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
