"""Names of cameras and microphones: what is understood, and that all else is a UsageError of one line that helps."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.secrets import without_secrets
from sage_edge.runtime.sources.uri import CAMERAS, CameraUri, MicrophoneUri, parse_camera, parse_microphone


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("camera:0", CameraUri("camera:0", "v4l2", "/dev/video0")),
        ("camera:12?fps=15", CameraUri("camera:12?fps=15", "v4l2", "/dev/video12", rate_hz=15.0)),
        (
            "v4l2:///dev/video0?fourcc=mjpg&fps=29.97&width=640&height=480",
            CameraUri("v4l2:///dev/video0?fourcc=mjpg&fps=29.97&width=640&height=480", "v4l2", "/dev/video0", 640, 480, 29.97, "MJPG"),
        ),
        ("v4l2:///dev/v4l/by-id/usb-A%20B", CameraUri("v4l2:///dev/v4l/by-id/usb-A%20B", "v4l2", "/dev/v4l/by-id/usb-A B")),
        ("csi://1", CameraUri("csi://1", "csi", "1")),
        ("RTSP://host:8554/cam?x=1", CameraUri("RTSP://host:8554/cam?x=1", "stream", "RTSP://host:8554/cam?x=1")),
        ("http://[::1]:80/a.mjpg", CameraUri("http://[::1]:80/a.mjpg", "stream", "http://[::1]:80/a.mjpg")),
        ("talk.mp4", CameraUri("talk.mp4", "file", "talk.mp4")),
        ("./a:b.mp4?pace=0", CameraUri("./a:b.mp4?pace=0", "file", "./a:b.mp4", pace=False)),
        ("none", None),
    ],
)
def test_cameras_that_are_understood(text: str, uri: CameraUri | None) -> None:
    assert parse_camera(text) == uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("mic:default", MicrophoneUri("mic:default", None)),
        ("mic:USB Audio", MicrophoneUri("mic:USB Audio", "USB Audio")),
        ("mic:hw%3A1?rate=48000&channels=2", MicrophoneUri("mic:hw%3A1?rate=48000&channels=2", "hw:1", 48_000, 2)),
        ("none", None),
    ],
)
def test_microphones_that_are_understood(text: str, uri: MicrophoneUri | None) -> None:
    assert parse_microphone(text) == uri


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("camra:0", "did you mean camera:0"),
        ("rstp://host/x", "did you mean rtsp://"),
        ("v4l://dev/video0", "did you mean v4l2:///"),
        ("gopher://host", "one of camera:0"),
        ("0", "did you mean camera:0"),
        ("/dev/video0", "did you mean v4l2:///dev/video0"),
        ("camera:front", "no number"),
        ("camera:", "no number"),
        ("v4l2:/dev/video0", "three slashes"),
        ("v4l2://dev/video0", "three slashes"),
        ("csi:0", "write csi://0"),
        ("camera:0?fsp=30", r"unknown option 'fsp'; did you mean fps="),
        ("camera:0?pace=0", "unknown option 'pace'; one of fourcc=, fps=, height=, width="),
        ("camera:0?fps=30&fps=15", "twice"),
        ("camera:0?fps=", "no value"),
        ("camera:0?fps=0", "more than 0"),
        ("camera:0?fps=fast", "more than 0"),
        ("camera:0?width=640", "width alone"),
        ("camera:0?width=640&height=4.5", "whole number"),
        ("camera:0?width=640&height=99999", "from 16 to 16384"),
        ("camera:0?fourcc=MJPEG", "four letters"),
        ("a.mp4?pace=2", "must be 1"),
        ("?pace=0", "no file"),
        ("http://", "no host"),
        ("http://host:port/", "no address"),
        ("http://[::1/", "no address"),
        ("mic:default", "one of camera:0"),
        ("", "has no name"),
        ("a\nb", "cannot be printed"),
    ],
)
def test_cameras_with_a_typo_are_one_line_that_helps(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_camera(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default", "mic:default"),
        ("mic:", "no name"),
        ("microphone:x", "write mic:default"),
        ("mic:x?rat=16000", "did you mean rate="),
        ("mic:x?rate=1", "from 4000 to 768000"),
        ("mic:x?channels=0", "from 1 to 64"),
    ],
)
def test_microphones_with_a_typo_are_one_line_that_helps(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_microphone(text)


_WORDS = ("mic", "file", ":", "//", "/", "?", "&", "=", "fps", "width", "pace", "0", "-1", "[", "]", "@", "%00", "%", "\0", "٣", "host")
_PIECES = st.sampled_from([*CAMERAS, *_WORDS])


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
@example("http://ho℀st/")
@example("camera:0?fps=٣")
def test_any_text_is_understood_or_refused_in_one_line(text: str) -> None:
    refusals = []
    for parse in (parse_camera, parse_microphone):
        try:
            parse(text)
        except UsageError as error:
            refusals.append(str(error))
    assert all(len(line.splitlines()) == 1 for line in refusals)


@pytest.mark.parametrize("password", ["hunter2", "hunter/2", "hunter2@", "hunter2?#", "hunter\x01"])
@pytest.mark.parametrize("scheme", ["http", "rtsp", "rstp"])
def test_passwords_are_in_no_text_and_no_error(scheme: str, password: str) -> None:
    text = f"{scheme}://eve:{password}@host/x?user=eve&passwd=swordfish&size=3"
    try:
        uri = parse_camera(text)
        assert uri is not None
        shown = repr(uri)
        assert "hunter" in uri.target
    except UsageError as error:
        shown = str(error)
    assert "hunter" not in shown
    assert "swordfish" not in shown
    assert without_secrets(text) == f"{scheme}://***@host/x?user=eve&passwd=***&size=3"
