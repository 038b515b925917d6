"""Random faults of a real stream, one after another: the camera is live after each, every frame is accounted for, and nothing is left behind."""

from __future__ import annotations

import os
import random
import threading

import pytest
from cameras import MjpegServer, opened, take, until

FAULTS = 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_faults_at_random_leave_a_live_camera_and_nothing_behind(seed: int) -> None:
    rng, server = random.Random(seed), MjpegServer()
    taken, changes = 0, 0
    with opened(server.uri) as camera:
        taken += len(take(camera, 2))
        fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(FAULTS):
            fault = rng.choice(["killed", "silent", "frozen", "black", "resized"])
            if fault == "killed":
                server.stop()
                assert until(lambda: camera.state == "gone")
                server.start()
            elif fault == "resized":
                server.size = rng.choice([(160, 120), (320, 240), (64, 48)])
            else:
                server.mode = fault
                if fault == "black":
                    assert until(lambda: any("black" in notice.detail for notice in camera.notices()))
                else:
                    assert until(lambda: camera.state == "stalled"), fault
                server.mode = "live"
                if fault == "black":
                    assert until(lambda: any("again" in notice.detail for notice in camera.notices()))
            changes += fault in ("killed", "silent", "frozen")
            assert until(lambda: camera.state == "live"), fault
            taken += len(take(camera, rng.randrange(1, 4)))
        assert camera.counts.reopened >= changes
        assert until(lambda: threading.active_count() <= threads + 4), [thread.name for thread in threading.enumerate()]
        assert until(lambda: len(os.listdir("/proc/self/fd")) <= fds + 4)
    server.stop()
    counts = camera.counts
    assert counts.frames - counts.stale - taken in (0, 1), "one may have waited"
    assert until(lambda: not [thread.name for thread in threading.enumerate() if thread.name in ("camera", "capture")])
