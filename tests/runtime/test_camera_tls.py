"""A https camera: its certificate is checked when there is one to trust, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import make_certificate
from cameras import MjpegServer

from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources.reader import Unreachable
from sage_edge.runtime.sources.stream import StreamReader
from sage_edge.runtime.sources.uri import parse_camera

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MjpegServer]:
    server = MjpegServer(certificate=make_certificate(tmp_path / "camera.pem"))
    yield server
    server.stop()


def look(address: str) -> None:
    """Open a camera and take a picture."""
    uri = parse_camera(address)
    assert uri is not None
    reader = StreamReader(uri, MonotonicClock())
    try:
        assert reader.read() is not None
    finally:
        reader.close()


def test_a_certificate_is_checked_against_those_to_trust(server: MjpegServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_EDGE_CAMERA_CA", raising=False)
    look(server.uri)
    monkeypatch.setenv("SAGE_EDGE_CAMERA_CA", str(tmp_path / "camera.pem"))
    look(server.uri)
    with pytest.raises(Unreachable, match=r"or its certificate is none of .*camera\.pem"):
        look(server.uri.replace("127.0.0.1", "localhost"))  # the certificate is another name's
    other = make_certificate(tmp_path / "other.pem")
    monkeypatch.setenv("SAGE_EDGE_CAMERA_CA", str(other))
    with pytest.raises(Unreachable, match=r"input/output error, or its certificate is none of .*other\.pem"):
        look(server.uri)
    monkeypatch.setenv("SAGE_EDGE_CAMERA_CA", str(tmp_path / "gone.pem"))
    with pytest.raises(SourceError, match=r"\$SAGE_EDGE_CAMERA_CA is '.*gone\.pem', which cannot be read"):
        look(server.uri)


def test_other_cameras_have_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_EDGE_CAMERA_CA", "/gone.pem")
    server = MjpegServer()
    look(server.uri)
    server.stop()
