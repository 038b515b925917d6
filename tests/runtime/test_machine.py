"""What is said of the machine is what is measured: memory of children counts, versions are the installed ones."""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

import sage_edge.runtime
from sage_edge.runtime.engines import default_threads
from sage_edge.runtime.machine import PeakMemory, cores, machine, peak_rss_mb, versions
from sage_edge.training.data.workers import default_workers


def test_memory_of_a_child_process_counts() -> None:
    hold = "import time; x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096]); print('held', flush=True); time.sleep(60)"
    with PeakMemory(every_s=0.02) as memory, subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.2)
        child.kill()
    assert memory.peak_mb > 200 + 10


def test_peak_of_the_process_alone_and_facts_of_the_machine() -> None:
    assert 10 < peak_rss_mb() < 50_000
    assert machine()["cores"] >= 1
    assert machine()["cpu"]
    assert versions()["numpy"] == metadata.version("numpy")
    assert "no-such-package" not in versions(("no-such-package",))


PEAKS = """
import resource, time
from sage_edge.runtime.machine import PeakMemory, peak_rss_mb
kept = b"x" * 400_000_000
with PeakMemory(every_s=0.02) as memory:
    time.sleep(0.2)
print(len(kept), peak_rss_mb(), memory.peak_mb, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_both_peaks_are_in_megabytes() -> None:
    """In a process of its own: this one may have held more before."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    kept, alone_mb, sampled_mb, kib = map(float, done.stdout.split())
    assert kept == 400_000_000
    assert alone_mb <= kib * 1.024 * 1.001
    assert alone_mb > 400 + 10
    assert sampled_mb == pytest.approx(alone_mb, rel=0.02)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_whoever_asks_for_cores_gets_the_same_also_without_affinity(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert (cores(), default_threads(), default_workers()) == (count, min(count, 4), min(count, 2))
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (cores(), default_threads(), default_workers()) == (1, 1, 1)


def test_only_one_place_asks_the_system_for_cores() -> None:
    package = Path(sage_edge.runtime.__file__).parent.parent
    folders = [package / name for name in ("runtime", "training", "calibration", "compile", "cli")]
    texts = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    asking = {path.name for path, text in texts.items() if "sched_getaffinity" in text or "cpu_count" in text}
    assert asking == {"machine.py"}
