"""What a run tells systemd, over real datagram sockets; a real run is in tests/jetson/test_service_run.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from estimates import LIVE

from sage_edge.runtime.notify import Notifier, NotifySink, estimates_of, status_line
from sage_edge.runtime.status import counts


class Systemd:
    """The listening end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def said(self) -> list[str]:
        lines = []
        while True:
            try:
                lines.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return lines


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@sage-edge-test-{os.getpid()}")
    yield made
    made.socket.close()


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


STATUS: dict[str, Any] = {
    "camera": {"state": "live", "rate_hz": 29.97},
    "microphone": {"state": "stalled"},
    "drops": {"frames_stale": 2, "audio_overruns": 0, "sinks": 0},
    "process": {"rss_mb": 187.2},
}


def notifier(systemd: Systemd, **more: str) -> Notifier:
    made = Notifier.of_environment({"NOTIFY_SOCKET": systemd.address, **more})
    assert made is not None
    return made


def test_ready_comes_with_the_first_estimate_and_not_before(systemd: Systemd) -> None:
    sink = NotifySink(notifier(systemd))
    sink.start({})
    sink.status(STATUS)
    assert not any("READY" in message for message in systemd.said())
    sink.write(LIVE)
    assert systemd.said() == ["READY=1\nSTATUS=1 estimates"]
    sink.write(LIVE)
    assert systemd.said() == []


def test_the_watchdog_is_fed_by_estimates_alone_and_four_times_in_its_time(systemd: Systemd) -> None:
    now = Seconds()
    sink = NotifySink(notifier(systemd, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid())), now)
    sink.write(LIVE)
    systemd.said()
    fed = 0
    for _ in range(200):  # 20 s, an estimate every 100 ms
        now.now += 0.1
        sink.write(LIVE)
        fed += systemd.said().count("WATCHDOG=1")
    assert 4 * 10 * 0.75 <= fed <= 4 * 10
    for _ in range(100):
        now.now += 0.1
        sink.status(STATUS)
    assert not any("WATCHDOG" in message for message in systemd.said())


def test_the_watchdog_of_another_process_is_not_fed(systemd: Systemd) -> None:
    assert notifier(systemd, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid() + 1)).watchdog_s is None
    assert notifier(systemd, WATCHDOG_USEC="2000000").watchdog_s == 2
    assert notifier(systemd, WATCHDOG_USEC="soon").watchdog_s is None


def test_the_status_line_can_be_read_back_and_stopping_is_said_once(systemd: Systemd) -> None:
    sink = NotifySink(notifier(systemd))
    for _ in range(84):
        sink.write(replace(LIVE, live=replace(LIVE.live, late_ms=41.2)))  # type: ignore[type-var]
    systemd.said()
    sink.status(STATUS)
    (said,) = systemd.said()
    assert said == "STATUS=84 estimates, 41 ms late, camera live 30.0/s, microphone stalled, 2 frames_stale lost, 187 MB"
    assert estimates_of(said.removeprefix("STATUS=")) == 84
    assert counts(sink) == {"state": "live", "written": 84, "dropped": 0, "queued": 0}
    sink.close()
    sink.close()
    assert [message.partition("\n")[0] for message in systemd.said()] == ["STOPPING=1"]


def test_a_status_without_devices_or_memory_is_a_line_too() -> None:
    nothing = {"camera": None, "microphone": None, "drops": {}, "process": {"rss_mb": None}}
    assert status_line(0, 0.0, nothing) == "0 estimates, 0 ms late"
    assert estimates_of("waiting for the first estimate") is None
    assert estimates_of("") is None


def test_nothing_is_told_where_nobody_asks() -> None:
    for address in ("", "relative", "vsock:2:1", "/", "@"):
        assert Notifier.of_environment({"NOTIFY_SOCKET": address}) is None
    assert Notifier.of_environment({}) is None


def test_a_listener_that_is_gone_or_full_neither_stops_nor_ends_the_run(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    sink = NotifySink(notifier(systemd, WATCHDOG_USEC="1"))
    while sink._notifier.send("STATUS=full"):
        pass
    sink.write(LIVE)  # not taken: it is said again
    systemd.said()
    sink.write(LIVE)
    assert systemd.said() == ["READY=1\nSTATUS=2 estimates"]
    systemd.socket.close()
    (tmp_path / "notify").unlink()
    sink.write(LIVE)
    sink.status(STATUS)
    sink.close()


def test_a_line_break_in_a_value_does_not_make_another_assignment(systemd: Systemd) -> None:
    assert notifier(systemd).send("STATUS=camera a\nREADY=1")
    assert systemd.said() == ["STATUS=camera a READY=1"]
