"""A live camera against a real RTSP server, in a process that is killed and started again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cameras import RtspServer, opened, take, until

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources.camera import open_camera
from sage_edge.runtime.sources.watch import Limits


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    if why := RtspServer.missing():
        pytest.skip(why)
    server = RtspServer()
    yield server
    server.stop()


@pytest.mark.slow
def test_h264_comes_as_nv12_survives_a_dead_server_and_a_wrong_path_is_refused(server: RtspServer) -> None:
    with opened(server.uri, Limits(stall_s=1.0, retry_s=0.05, retry_most_s=0.2)) as camera:
        frames = take(camera, 5)
        assert camera.granted == {"width": 160, "height": 120, "rate_hz": 30.0, "fourcc": "H264"}
        assert {(frame.format, frame.pixels.shape) for frame in frames} == {("nv12", (180, 160))}
        assert (np.diff([frame.t_ns for frame in frames]) > 0).all()
        assert len({frame.pixels.tobytes() for frame in frames}) == 5, "the ball moves"
        server.stop()
        assert until(lambda: camera.state == "gone")
        camera.take()
        server.start()
        take(camera, 2)
        assert camera.counts.reopened == 1
    with pytest.raises(SourceError, match="404"):
        open_camera(server.uri + "-not", MonotonicClock()).start()
