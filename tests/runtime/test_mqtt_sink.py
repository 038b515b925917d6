"""Estimates to a real broker: topics, what is kept, the last will, and a broker that is not there, goes, hangs or refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from broker import MOSQUITTO, NEEDS, Broker, Listener, make_certificate
from estimates import FULL_HELLO, LIVE, NOTICE, STATUS, at
from test_sink_queue import DEADLINE_S, until

from sage_edge.runtime.errors import SinkError
from sage_edge.runtime.sinks import open_sink
from sage_edge.runtime.sinks.mqtt import MqttSink
from sage_edge.runtime.sinks.queued import Queued

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason=NEEDS)
QUICK = {"first_retry_s": 0.02, "last_retry_s": 0.1}


def publishing(broker: Broker, **options: float) -> Queued:
    queued = Queued(open_sink(f"mqtt://127.0.0.1:{broker.port}/home/desk"), **{**QUICK, **options})  # type: ignore[arg-type]
    queued.start(FULL_HELLO)
    return queued


def stamps(listener: Listener) -> list[int]:
    return [json.loads(payload)["t_ns"] for payload in listener.of("estimate")]


def test_topics_and_what_the_broker_keeps(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker, Listener(broker, "home/desk") as listener:
        queued = publishing(broker)
        queued.write(LIVE)
        queued.notice(NOTICE)
        queued.status(STATUS)
        until(lambda: len(listener.got) == 5)
        hello, state, *lines = listener.got
        assert (hello[0], json.loads(hello[1]), state[:2]) == ("hello", FULL_HELLO, ("state", "online"))
        assert [name for name, _, _ in lines] == ["estimate", "notice", "status"]
        assert [json.loads(payload) for _, payload, _ in lines] == [LIVE.to_dict(), NOTICE.to_dict(), STATUS]
        with Listener(broker, "home/desk") as late:
            until(lambda: len(late.got) == 3)
            assert sorted((name, retained) for name, _, retained in late.got) == [("hello", True), ("state", True), ("status", True)]
            queued.close()
            until(lambda: late.of("state") == ["online", "offline"])
    assert queued.counts() == {"state": "closed", "written": 3, "dropped": 0, "queued": 0}


def test_the_last_will_says_that_a_run_was_lost(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker, Listener(broker, "home/desk") as listener:
        sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/home/desk")
        assert isinstance(sink, MqttSink)
        sink.start(FULL_HELLO)
        assert sink._client is not None
        connection = sink._client.socket()
        assert connection is not None
        connection.shutdown(socket.SHUT_RDWR)  # as when the process is killed
        until(lambda: listener.of("state") == ["online", "offline"])
        until(lambda: not sink._client.is_connected())
        sink.start(FULL_HELLO)
        until(lambda: listener.of("state") == ["online", "offline", "online"])
        assert len(listener.of("hello")) == 2
        sink.close()


def test_a_broker_that_is_down_at_first_gets_what_waits_once_it_is_up(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    queued = publishing(broker)
    for index in range(10):
        queued.write(at(index))
    until(lambda: queued.state == "failed")
    (failed,) = queued.notices()
    assert failed.detail == f"mqtt://127.0.0.1:{broker.port}/home/desk: Connection refused; is the broker running?; it is tried again"
    with broker:
        assert queued.flush(DEADLINE_S)
        assert [notice.what for notice in queued.notices()] == ["sink_recovered"]
        until(lambda: broker.received("home/desk/estimate") == 10)
        assert broker.received("home/desk/hello") == 1
        queued.close()
    assert (queued.written, queued.dropped) == (10, 0)


def test_a_broker_that_restarts_gets_the_hello_and_every_estimate(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker:
        sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/home/desk")
        assert isinstance(sink, MqttSink)
        queued = Queued(sink, **QUICK)  # type: ignore[arg-type]
        queued.start(FULL_HELLO)
        with Listener(broker, "home/desk") as listener:
            for index in range(5):
                queued.write(at(index))
            until(lambda: stamps(listener) == [0, 1, 2, 3, 4])
        broker.stop()
        until(lambda: sink._client is None or not sink._client.is_connected())  # QoS 0: what is sent before that is lost
        for index in range(5, 15):
            queued.write(at(index))
        until(lambda: queued.state == "failed")
        broker.start()
        assert queued.flush(DEADLINE_S)
        until(lambda: broker.received("home/desk/estimate") == 15)
        with Listener(broker, "home/desk") as late:
            until(lambda: {name for name, _, _ in late.got} == {"hello", "state"})
        queued.close()
    assert queued.counts() == {"state": "closed", "written": 15, "dropped": 0, "queued": 0}
    assert [notice.what for notice in queued.notices()] == ["sink_failed", "sink_recovered"]


def test_a_broker_that_hangs_fails_and_one_that_goes_on_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.mqtt.SEND_S", 0.2)
    monkeypatch.setattr("sage_edge.runtime.sinks.mqtt.CONNECT_S", 0.2)
    big = dataclasses.replace(NOTICE, detail="x" * 1_000_000)  # more than the kernel takes for a broker that reads nothing
    with Broker(tmp_path) as broker:
        queued = publishing(broker)
        queued.write(at(0))
        assert queued.flush(DEADLINE_S)
        broker.freeze(True)
        for _ in range(10):
            queued.notice(big)
        until(lambda: queued.state == "failed")
        monkeypatch.undo()
        broker.freeze(False)
        assert queued.flush(DEADLINE_S)
        queued.close()
    assert queued.counts() == {"state": "closed", "written": 11, "dropped": 0, "queued": 0}
    failed, recovered = queued.notices()
    assert "the broker took nothing in" in failed.detail
    assert recovered.what == "sink_recovered"


def test_with_qos_1_nothing_counts_as_written_that_the_broker_did_not_get(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker:
        queued = Queued(open_sink(f"mqtt://127.0.0.1:{broker.port}/home/desk?qos=1"), **QUICK)  # type: ignore[arg-type]
        queued.start(FULL_HELLO)
        queued.write(at(0))
        assert queued.flush(DEADLINE_S)
        broker.freeze(True)
        queued.write(at(1))  # the kernel takes it, for a broker that will never read it
        until(lambda: queued._at_work)
        assert queued.written == 1
        broker.kill()
        until(lambda: queued.state == "failed")
        broker.start()
        assert queued.flush(DEADLINE_S)
        assert broker.received("home/desk/estimate") == 2
        queued.close()
    assert queued.counts() == {"state": "closed", "written": 2, "dropped": 0, "queued": 0}
    assert "the connection to the broker is lost" in queued.notices()[0].detail


def test_a_broker_that_asks_for_a_password(tmp_path: Path) -> None:
    with Broker(tmp_path, "me", "p@ss") as broker:
        spec = f"mqtt://me:{{}}@127.0.0.1:{broker.port}/home/desk"
        wrong = Queued(open_sink(spec.format("hunter2")), **QUICK)  # type: ignore[arg-type]
        wrong.start(FULL_HELLO)
        until(lambda: wrong.state == "failed")
        (failed,) = wrong.notices()
        assert "the broker refused: Not authorized; user and password go before the host" in failed.detail
        assert "hunter2" not in failed.detail + wrong.spec
        wrong.close()
        right = Queued(open_sink(spec.format("p%40ss")), **QUICK)  # type: ignore[arg-type]
        right.start(FULL_HELLO)
        with Listener(broker, "home/desk", "me", "p@ss") as listener:
            until(lambda: bool(listener.of("hello")))
            right.write(at(1))
            until(lambda: stamps(listener) == [1])
        right.close()


def test_tries_in_vain_leave_nothing_open(tmp_path: Path) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with Broker(tmp_path, "me", "right") as broker:
        down, refusing = open_sink("mqtt://127.0.0.1:1/x"), open_sink(f"mqtt://me:wrong@127.0.0.1:{broker.port}/x")
        before = held()
        for _ in range(10):
            for sink in (down, refusing):
                with pytest.raises(SinkError):
                    sink.start(FULL_HELLO)
        assert held() == before


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")
def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "broker.pem")
    with Broker(tmp_path, certificate=certificate) as broker:
        spec = f"mqtts://127.0.0.1:{broker.port}/home/desk"
        queued = Queued(open_sink(spec), **QUICK)  # type: ignore[arg-type]
        queued.start(FULL_HELLO)
        queued.write(LIVE)
        until(lambda: queued.state == "failed")
        assert "certificate verify failed" in queued.notices()[0].detail
        assert broker.received("home/desk/estimate") == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert queued.flush(DEADLINE_S)
        until(lambda: broker.received("home/desk/estimate") == 1)
        queued.close()
    assert queued.spec == spec


def test_a_port_that_is_no_broker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_edge.runtime.sinks.mqtt.CONNECT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        queued = Queued(open_sink(f"mqtt://127.0.0.1:{silent.getsockname()[1]}/x"))
        queued.start(FULL_HELLO)
        until(lambda: queued.state == "failed")
        (failed,) = queued.notices()
        assert "no answer in" in failed.detail
        queued.close()


def test_a_broker_whose_message_cannot_be_read_gets_a_new_connection() -> None:
    connections: list[socket.socket] = []

    def accept(server: socket.socket) -> None:
        for _ in range(2):
            connections.append(server.accept()[0])
            connections[-1].settimeout(DEADLINE_S)
            connections[-1].recv(4096)
            connections[-1].sendall(b"\x20\x02\x00\x00")  # CONNACK

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        sink = open_sink(f"mqtt://127.0.0.1:{server.getsockname()[1]}/x")
        sink.start(FULL_HELLO)
        connections[0].sendall(b"\x30\x00")  # PUBLISH, without a topic
        while connections[0].recv(4096):
            pass
        with pytest.raises(SinkError):
            sink.write(at(0))
        sink.start(FULL_HELLO)
        sink.write(at(0))
        assert len(connections) == 2
        sink.close()
        for connection in connections:
            connection.close()
