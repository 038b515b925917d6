"""Estimates over a real WebSocket: hello first, every line to who reads, and who does not read loses the oldest, counted."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path

import pytest
from estimates import FULL_HELLO, LIVE, NOTICE, STATUS, at
from test_sink_queue import DEADLINE_S, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from sage_edge.runtime.sinks import open_sink
from sage_edge.runtime.sinks.queued import Queued
from sage_edge.runtime.sinks.websocket import WebSocketSink


def serving(spec: str = "ws://127.0.0.1:0") -> tuple[WebSocketSink, Queued]:
    sink = open_sink(spec)
    assert isinstance(sink, WebSocketSink)
    queued = Queued(sink)
    queued.start(FULL_HELLO)
    until(lambda: queued.state == "live")
    return sink, queued


def test_a_reader_gets_the_hello_and_every_line_as_it_comes() -> None:
    sink, queued = serving()
    with connect(f"ws://127.0.0.1:{sink.port}") as reader:
        assert json.loads(reader.recv(DEADLINE_S)) == FULL_HELLO
        queued.write(LIVE)
        queued.notice(NOTICE)
        queued.status(STATUS)
        assert reader.recv(DEADLINE_S) == LIVE.to_json()
        assert reader.recv(DEADLINE_S) == NOTICE.to_json()
        assert json.loads(reader.recv(DEADLINE_S)) == STATUS
        with connect(f"ws://127.0.0.1:{sink.port}") as late:
            assert [json.loads(late.recv(DEADLINE_S))["type"] for _ in range(2)] == ["hello", "status"]
        queued.close()
        with pytest.raises(ConnectionClosed):
            reader.recv(DEADLINE_S)
    assert queued.counts() == {"state": "closed", "written": 3, "dropped": 0, "queued": 0}


def test_a_reader_that_does_not_read_loses_the_oldest_and_holds_nobody_up() -> None:
    sink, queued = serving()
    big = dataclasses.replace(LIVE, trail=((1, 0.125, 0.25),) * 400)
    asleep = socket.socket()
    asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asleep.connect(("127.0.0.1", sink.port))
    with connect(f"ws://127.0.0.1:{sink.port}", sock=asleep, max_queue=1) as slow, connect(f"ws://127.0.0.1:{sink.port}") as quick:
        quick.recv(DEADLINE_S)
        for index in range(250):
            queued.write(dataclasses.replace(big, t_ns=index))
            assert json.loads(quick.recv(DEADLINE_S))["t_ns"] == index
        assert queued.flush(DEADLINE_S)
        until(lambda: queued.dropped > 0)
        assert (queued.state, queued.written) == ("live", 250)
        stamps = [json.loads(slow.recv(DEADLINE_S)).get("t_ns", -1)]
        while stamps[-1] != 249:
            stamps.append(json.loads(slow.recv(DEADLINE_S))["t_ns"])
    assert stamps == sorted(set(stamps)), "the hello, then what was left, in order"
    assert queued.dropped == 251 - len(stamps)
    assert queued.notices() == [], "one slow reader is no failure of the sink"
    queued.close()


def test_others_need_the_token() -> None:
    sink, queued = serving("ws://0.0.0.0:0?token=open-sesame")
    assert "can be reached from other machines" in str(queued.note)
    for url in ("", "?token=guess"):
        with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{sink.port}/{url}"):
            pass
    with connect(f"ws://127.0.0.1:{sink.port}/?token=open-sesame") as reader:
        assert json.loads(reader.recv(DEADLINE_S)) == FULL_HELLO
    with connect(f"ws://127.0.0.1:{sink.port}/", additional_headers={"Authorization": "Bearer open-sesame"}) as reader:
        assert json.loads(reader.recv(DEADLINE_S)) == FULL_HELLO
    queued.close()


def test_a_port_that_was_taken_meanwhile_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
    sink = open_sink(f"ws://127.0.0.1:{port}")
    queued = Queued(sink, first_retry_s=0.01, last_retry_s=0.05)
    with socket.create_server(("127.0.0.1", port)):
        queued.start(FULL_HELLO)
        queued.write(at(1))
        until(lambda: queued.state == "failed")
    until(lambda: queued.state == "live")
    with connect(f"ws://127.0.0.1:{port}") as reader:
        assert json.loads(reader.recv(DEADLINE_S)) == FULL_HELLO
    queued.close()
    assert [notice.what for notice in queued.notices()] == ["sink_failed", "sink_recovered"]
