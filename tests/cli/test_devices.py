"""`devices` lists what there is in a form that --camera and --mic take, and says what stands in its way."""

from __future__ import annotations

import json

import pytest

from sage_edge.cli.devices import camera_lines, microphone_lines
from sage_edge.cli.main import main
from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources import portaudio
from sage_edge.runtime.sources.portaudio import Device
from sage_edge.runtime.sources.uri import parse_camera, parse_microphone
from sage_edge.runtime.sources.v4l2_devices import Mode, VideoDevice


def test_what_this_machine_has_can_be_asked_for_by_the_names_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"cameras", "microphones", "microphones_problem"}
    assert all(parse_camera(camera["uri"]) for camera in said["cameras"])
    assert all(parse_microphone(microphone["uri"]) for microphone in said["microphones"])
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("cameras")
    assert "\nmicrophones" in shown


def test_names_with_marks_come_back_from_their_uri(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = "Mic 50% (hw:1,0)? & more"
    monkeypatch.setattr(portaudio, "microphones", lambda: [Device(name, "ALSA", 48_000, 2, True, 0)])
    assert main(["devices", "--json"]) == 0
    (microphone,) = json.loads(capsys.readouterr().out)["microphones"]
    uri = parse_microphone(microphone["uri"])
    assert uri is not None
    assert uri.name == name


def test_no_sound_library_is_a_line_and_not_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> list[Device]:
        raise SourceError("PortAudio is not installed; sudo apt install libportaudio2")

    monkeypatch.setattr(portaudio, "microphones", missing)
    assert main(["devices"]) == 0
    assert "microphones: none (PortAudio is not installed; sudo apt install libportaudio2)" in capsys.readouterr().out
    assert main(["devices", "--json"]) == 0
    assert "libportaudio2" in json.loads(capsys.readouterr().out)["microphones_problem"]


def test_lines_show_modes_problems_and_the_default() -> None:
    modes = tuple(Mode("MJPG", 100 * i, 50 * i, (30.0, 15.0)) for i in range(1, 10))
    busy = VideoDevice("v4l2:///dev/video0", "/dev/video0", "Cam", "uvcvideo", modes, "it is in use by zoom (pid 7); close that")
    lines = camera_lines([busy])
    assert lines[1] == "  v4l2:///dev/video0  Cam (uvcvideo, /dev/video0)"
    assert "in use by zoom" in lines[2]
    assert "MJPG 100 x 50 at 30/15" in lines[3]
    assert lines[3].endswith("3 more with --json")
    assert "mic:Mic  ALSA, 16000 Hz, 1 channel, the default: mic:default" in microphone_lines([Device("Mic", "ALSA", 16_000, 1, True, 0)], None)[1]
