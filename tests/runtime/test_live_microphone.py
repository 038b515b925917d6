"""`run` on a real microphone: its sound is in the estimates, and none is missing while the sound server is away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pulse import MISSING, NEEDED, PulseServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=NEEDED)]


class Run:
    """`sage-edge run` with a microphone and no camera; its lines, one by one."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-m", "sage_edge.cli.main", "run", str(bundle), "--camera", "none", "--mic", "mic:pipemic", "--out", "jsonl:-"]
        self.process = subprocess.Popen([*command, "--seconds", "100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.estimates: list[dict[str, Any]] = []
        self.notices: list[str] = []

    def until_estimate(self, wanted: Any) -> dict[str, Any]:
        """The first estimate from now on that is as wanted; the run ends by itself before long when there is none."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = json.loads(text)
            if "valence" in line:
                self.estimates.append(line)
                if wanted(line):
                    return line
            elif line["type"] == "notice":
                self.notices.append(line["what"])
        raise AssertionError(f"no such estimate; {self.notices}")


def test_estimates_go_on_while_the_sound_server_is_away(bundle_path: Path) -> None:
    with PulseServer() as server:
        pipe = server.microphone("pipemic", 48_000, 2)
        run = Run(bundle_path)
        try:
            assert run.until_estimate(lambda line: line["live"]["microphone"] == "live")["audio"]["rms_dbfs"] == -120
            pipe.play(np.random.default_rng(0).integers(-8_000, 8_000, (480_000, 2)).astype(np.int16))
            run.until_estimate(lambda line: line["audio"]["rms_dbfs"] > -30)
            pipe.close()
            server.kill()
            run.until_estimate(lambda line: line["live"]["microphone"] == "gone")
            server.start()
            with server.microphone("pipemic", 16_000) as again:
                run.until_estimate(lambda line: line["live"]["microphone"] == "live")
                again.play(np.random.default_rng(0).integers(-8_000, 8_000, 160_000).astype(np.int16))
                last = run.until_estimate(lambda line: line["audio"]["rms_dbfs"] > -30)
            run.process.send_signal(signal.SIGTERM)
            _, said = run.process.communicate(timeout=60)
        finally:
            run.process.kill()
            run.process.wait()
    assert run.process.returncode == 0, said
    assert run.notices == ["microphone_open", "microphone_gone", "microphone_changed", "microphone_open"]
    assert last["drops"]["audio_overruns"] >= 1
    for before, after in pairwise(run.estimates):
        hops = {before["live"]["hop"], after["live"]["hop"]}
        assert round((after["t_ns"] - before["t_ns"]) * 30 / 1e9) in hops, "an estimate is missing"
