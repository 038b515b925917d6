"""An estimate is handed on when it has been computed, not when the next frame comes: the loop over a real camera's threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from test_live_devices import Kept

from sage_edge.runtime import live_devices
from sage_edge.runtime.bundle import Bundle
from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.session import Session
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.sources.camera import LiveCamera
from sage_edge.runtime.sources.uri import CameraUri
from sage_edge.runtime.sources.watch import Limits

HOP = 15
PIXELS = np.zeros((48, 48, 3), np.uint8)


class OneHop:
    """A reader that gives frames, all at once, until a hop is due; then nothing more."""

    def __init__(self, clock: MonotonicClock, begun: threading.Event) -> None:
        self.granted = {"width": 48, "height": 48, "rate_hz": 30.0, "fourcc": None}
        self.damaged = self.skipped = 0
        self._clock, self._begun, self._given, self._start_ns = clock, begun, 0, 0

    def read(self) -> FrameEvent | None:
        if self._given == HOP or not self._begun.wait(0.001):
            time.sleep(0.001)
            return None
        if not self._given:
            self._start_ns = self._clock.now_ns()
        self._given += 1
        return FrameEvent(self._start_ns + self._given * 1_000_000_000 // 30, PIXELS, "rgb")

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class First(Kept):
    """Says when the run has begun and when the first estimate is there."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.came = threading.Event(), threading.Event()

    def start(self, hello: dict[str, object]) -> None:
        super().start(hello)
        self.begun.set()

    def write(self, estimate: Estimate) -> None:
        super().write(estimate)
        self.came.set()


def slow_down(session: Session) -> None:
    """A hop is computed when the turn that decided it is over."""
    fusion = session._open().fusion
    compute = fusion.run

    def run(items: int | None = None) -> None:
        time.sleep(0.2)
        compute(items)

    fusion.run = run  # type: ignore[method-assign]


def test_an_estimate_waits_for_no_frame(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_devices, "TURN_S", 3600.0)
    clock, kept = MonotonicClock(), First()
    calm = Limits(stall_s=math.inf, frozen_s=math.inf)
    camera = LiveCamera(CameraUri("memory", "file", "memory"), clock, lambda: OneHop(clock, kept.begun), calm, keep_all=True)
    camera.start()
    with Session(bundle, precision="fp32", hop=HOP, threads=1, hop_thread=True) as session:
        slow_down(session)
        loop = threading.Thread(
            target=lambda: live_devices.run_live_devices(camera, None, session, [kept], clock=clock, stop=kept.came.is_set), daemon=True
        )
        loop.start()
        assert kept.came.wait(60)
        loop.join(60)
        assert not loop.is_alive()
    camera.close()
    assert [len(estimate.trail) for estimate in kept.estimates[:1]] == [HOP]


def test_estimates_that_were_handed_on_wake_nobody_up(bundle: Bundle) -> None:
    clock, kept = MonotonicClock(), First()
    calm = Limits(stall_s=math.inf, frozen_s=math.inf)
    camera = LiveCamera(CameraUri("memory", "file", "memory"), clock, lambda: OneHop(clock, kept.begun), calm, keep_all=True)
    camera.start()
    waited_s: list[float] = []
    plain = camera.wait

    def wait(timeout_s: float, gather_until_ns: int = 0, most: int = 1) -> bool:
        before_s = time.monotonic()
        found = plain(timeout_s, gather_until_ns, most)
        if kept.came.is_set() and not found:
            waited_s.append(time.monotonic() - before_s)
        return found

    camera.wait = wait  # type: ignore[method-assign]
    with Session(bundle, precision="fp32", hop=HOP, threads=1, hop_thread=True) as session:
        for name in ("push_frame", "advance"):
            go_on = getattr(session, name)

            def settled(*args: object, go_on: Callable[..., None] = go_on, **options: object) -> None:
                go_on(*args, **options)
                session._hops.settle()
                time.sleep(0.01)  # for the thread to nudge

            setattr(session, name, settled)
        live_devices.run_live_devices(camera, None, session, [kept], clock=clock, stop=lambda: len(waited_s) == 3)
    camera.close()
    assert len(kept.estimates) >= 1
    assert min(waited_s) > live_devices.TURN_S / 2
