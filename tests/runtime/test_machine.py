"""What is said of the machine is what is measured: memory of children counts, versions are the installed ones."""

import subprocess
import sys
import time
from importlib import metadata

from sage_edge.runtime.machine import PeakMemory, machine, peak_rss_mb, versions


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
