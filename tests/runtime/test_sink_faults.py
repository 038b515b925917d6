"""Two hundred faults at random in four real outputs at once, while lines go on: each line arrives or is counted, and all is well after.

Slow disk: a pipe whose reader stops. Full disk: the kernel's limit on the size of a file. Slow WebSocket reader: one that stops. Broker: frozen,
or stopped and started again. A process of its own has them (`python test_sink_faults.py FOLDER SEED`), for that limit is the whole process's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, NEEDS, Broker
from estimates import FULL_HELLO, LIVE
from test_sink_queue import until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sage_edge.runtime.sinks import Sink, open_sink
from sage_edge.runtime.sinks.queued import Queued

FAULTS = 200
ESTIMATE = dataclasses.replace(LIVE, trail=((1, 0.125, 0.25),) * 60)


class Output:
    """One sink behind its queue, and the lines that came out at its other end."""

    longest = 110
    """How many lines a fault lasts at most."""

    def __init__(self, spec: str) -> None:
        self.sink: Sink = open_sink(spec)
        self.queued = Queued(self.sink, depth=32, first_retry_s=0.005, last_retry_s=0.05)
        self.lines: list[str] = []

    def stamps(self) -> list[int]:
        return [line["t_ns"] for line in map(json.loads, self.lines) if "valence" in line]

    def fault(self, chance: random.Random) -> Callable[[], None]:
        """Begin one; what is returned mends it."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until what was written has arrived."""

    def end(self) -> None:
        """After the sink was closed."""

    def whats(self) -> Counter[str]:
        return Counter(line["what"] for line in map(json.loads, self.lines) if line.get("type") == "notice")


class SlowDisk(Output):
    def __init__(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        self._reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self._reader, True)
        super().__init__(f"jsonl:{folder / 'pipe'}")
        self.queued.start(FULL_HELLO)
        self._go = threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with os.fdopen(self._reader, encoding="utf-8", buffering=1) as stream:
            for line in stream:
                self._go.wait()
                self.lines.append(line)

    def fault(self, chance: random.Random) -> Callable[[], None]:
        self._go.clear()
        return self._go.set

    def end(self) -> None:
        self._thread.join()


class FullDisk(Output):
    def __init__(self, folder: Path) -> None:
        self._path = folder / "x.jsonl"
        super().__init__(f"jsonl:{self._path}")
        self.queued.start(FULL_HELLO)

    def fault(self, chance: random.Random) -> Callable[[], None]:
        size = self._path.stat().st_size + chance.randrange(4096)  # full in the middle of a line
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))

    def end(self) -> None:
        text = self._path.read_text()
        assert text.endswith("\n")
        self.lines = text.splitlines()


class SlowReader(Output):
    longest = 320

    def __init__(self) -> None:
        super().__init__("ws://127.0.0.1:0")
        self.queued.start(FULL_HELLO)
        until(lambda: self.queued.state == "live")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", self.sink.port))  # type: ignore[attr-defined]
        self._go = threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        until(lambda: bool(self.lines))

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed), connect("ws://localhost", sock=self._socket, max_queue=1) as stream:
            while True:
                self.lines.append(str(stream.recv()))
                self._go.wait()

    def fault(self, chance: random.Random) -> Callable[[], None]:
        self._go.clear()
        return self._go.set

    def settle(self) -> None:
        until(lambda: len(self.lines) - 1 == self.queued.written + self.queued._given_up - self.queued.dropped)

    def end(self) -> None:
        self._thread.join()


class Mqtt(Output):
    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder)
        self.broker.start()
        super().__init__(f"mqtt://127.0.0.1:{self.broker.port}/x")
        self.queued.start(FULL_HELLO)

    def fault(self, chance: random.Random) -> Callable[[], None]:
        if chance.random() < 0.7:
            self.broker.freeze(True)
            return lambda: self.broker.freeze(False)
        assert self.queued.flush(60)
        self.settle()
        self.broker.stop()
        until(lambda: not self._connected())  # QoS 0: what is sent before that is lost
        return self.broker.start

    def _connected(self) -> bool:
        client: Any = self.sink._client  # type: ignore[attr-defined]
        return client is not None and client.is_connected()

    def settle(self) -> None:
        until(lambda: self.broker.received("x/estimate") + self.broker.received("x/notice") == self.queued.written)

    def end(self) -> None:
        self.broker.stop()


def scenario(folder: Path, seed: int) -> None:
    """The faults; fails by assertion."""
    mqtt = Mqtt(folder)
    try:
        _faults(random.Random(seed), SlowDisk(folder), FullDisk(folder), SlowReader(), mqtt)
    finally:
        mqtt.broker.stop()


def _faults(chance: random.Random, disk: SlowDisk, full: FullDisk, reader: SlowReader, mqtt: Mqtt) -> None:
    outputs: list[Output] = [disk, full, reader, mqtt]
    given = notices = 0

    def tell(faulty: Output | None) -> None:
        """One estimate to all, at the pace of those that are well; and what has changed."""
        nonlocal given, notices
        for output in outputs:
            output.queued.write(dataclasses.replace(ESTIMATE, t_ns=given))
        given += 1
        for notice in [notice for output in outputs for notice in output.queued.notices()]:
            notices += 1
            for output in outputs:
                output.queued.notice(notice)
        until(lambda: all(output is faulty or output.queued.queued < 16 for output in outputs))

    for _ in range(FAULTS):
        faulty = chance.choices(outputs, (6, 6, 6, 2))[0]
        mend = faulty.fault(chance)
        for _ in range(chance.randrange(faulty.longest)):
            tell(faulty)
        mend()
        for _ in range(chance.randrange(20)):
            tell(faulty)
        assert all(output.queued.flush(60) for output in outputs)
        assert [output.queued.state for output in outputs] == ["live"] * 4
    while any(output.queued._notices for output in outputs):
        tell(None)
    for output in outputs:
        assert output.queued.flush(60)
        output.settle()
        output.queued.close()
        output.end()
        assert output.queued.state == "closed"
        assert output.queued.written + output.queued._given_up == given + notices
    for output in (disk, full, reader):
        stamps = output.stamps()
        assert stamps == sorted(set(stamps)), "in order, none twice"
        assert len(output.lines) - 1 == given + notices - output.queued.dropped, "all there but for those that were counted"
        assert sum("hello" in line for line in output.lines) == 1
    whats = full.whats()
    assert whats["sink_failed"] >= 1
    assert whats["sink_recovered"] >= 1
    print(json.dumps({"given": given, "notices": notices, "dropped": {output.queued.spec: output.queued.dropped for output in outputs}}))


@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason=NEEDS)
def test_each_line_arrives_or_is_counted_whatever_happens_to_the_outputs(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    done = subprocess.run([sys.executable, __file__, str(tmp_path), str(seed)], capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert all(count > 0 for count in json.loads(done.stdout)["dropped"].values()), "the faults were none"


if __name__ == "__main__":
    try:
        scenario(Path(sys.argv[1]), int(sys.argv[2]))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)  # threads may still wait
    sys.stdout.flush()
    os._exit(0)
