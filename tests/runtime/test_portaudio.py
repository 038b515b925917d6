"""Microphones by name: what there is, what is chosen, and one line for every refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pulse import MISSING, NEEDED, PulseServer

from sage_edge.runtime import checkup
from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import SageError, SourceError
from sage_edge.runtime.sources.microphone import open_microphone
from sage_edge.runtime.sources.portaudio import Device, find_microphone, microphones, refresh, refusal

pytestmark = pytest.mark.skipif(bool(MISSING), reason=NEEDED)


@pytest.fixture(scope="module")
def server() -> Iterator[PulseServer]:
    """A server with two cameras' microphones and a headset, the default."""
    with PulseServer() as server:
        pipes = [server.microphone(f"webcam{k}", 16_000, description=f"Webcam_{k}") for k in (1, 2)]
        pipes.append(server.microphone("headset", 48_000, 2, description="Headset_H1"))
        refresh()
        yield server
        for pipe in pipes:
            pipe.close()
    refresh()


def refused(text: str) -> str:
    with pytest.raises(SageError) as caught:
        open_microphone(text, MonotonicClock()).start()
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_what_there_is_with_the_rates_of_the_sources_and_the_default_first(server: PulseServer) -> None:
    listed = microphones()
    assert [(device.name, device.rate_hz, device.channels) for device in listed if device.source] == [
        ("Headset_H1", 48_000, 2),
        ("Webcam_1", 16_000, 1),
        ("Webcam_2", 16_000, 1),
    ]
    assert [device.name for device in listed if device.default] == ["Headset_H1"] == [listed[0].name]
    assert find_microphone(None) == listed[0]


@pytest.mark.parametrize("name", ["Webcam_1", "webcam1", "cam_1", "AM1"])
def test_a_part_of_a_name_is_enough_whatever_the_case(server: PulseServer, name: str) -> None:
    assert find_microphone(name).source == "webcam1"


def test_a_whole_name_goes_before_a_part_of_one(server: PulseServer) -> None:
    longer = server.microphone("webcam12", 16_000, description="Webcam_12")
    try:
        assert find_microphone("webcam_1").source == "webcam1"
        assert find_microphone("pulse").name == "pulse"
    finally:
        longer.unplug()
        server.pactl("set-default-source", "headset")


def test_an_unknown_name_lists_what_there_is(server: PulseServer) -> None:
    line = refused("mic:jabra")
    assert "no microphone is called 'jabra'" in line
    assert all(repr(name) in line for name in ("Headset_H1", "Webcam_1", "Webcam_2", "pulse"))


def test_an_ambiguous_name_lists_the_matches(server: PulseServer) -> None:
    line = refused("mic:webcam")
    assert "'webcam' is part of 2 names: 'Webcam_1', 'Webcam_2'" in line
    assert "Headset" not in line


def test_microphones_of_one_name_are_told_apart_by_the_servers_own(server: PulseServer) -> None:
    twin = server.microphone("twin", 16_000, description="Webcam_2")
    try:
        assert "is part of 2 names: 'twin', 'webcam2';" in refused("mic:Webcam_2")
        assert find_microphone("twin").source == "twin"
    finally:
        twin.unplug()
        server.pactl("set-default-source", "headset")


def test_a_rate_that_it_does_not_have_names_its_own(server: PulseServer) -> None:
    assert refused("mic:headset?rate=768000") == "microphone 'Headset_H1' has no rate of 768000 Hz; leave ?rate= away for its own, 48000 Hz"


def test_channels_that_it_does_not_have_names_its_own(server: PulseServer) -> None:
    assert refused("mic:headset?channels=40") == "microphone 'Headset_H1' has no 40 channels; leave ?channels= away for 2"


def test_no_microphone_is_an_instance_of_none(server: PulseServer) -> None:
    assert "mic:default" in refused("none")


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (-9985, "Device unavailable", "is busy"),
        (-9999, "Device or resource busy", "is busy"),
        (-9996, "Invalid device", "has gone"),
        (-9999, "x", "x"),
    ],
)
def test_what_no_server_here_refuses_is_one_line_too(code: int, reason: str, said: str) -> None:
    line = refusal(Device("Mic", "ALSA", 48_000, 1, True, 0), code, reason, 48_000, 1)
    assert said in line
    assert "'Mic'" in line
    assert ";" in line


def test_doctor_hears_the_default_microphone(server: PulseServer) -> None:
    assert checkup._microphone().startswith("'Headset_H1' gives sound at 48000 Hz")


@pytest.mark.slow
def test_doctor_says_when_a_microphone_gives_nothing(server: PulseServer) -> None:
    server.pactl("suspend-source", "headset", "1")
    try:
        with pytest.raises(SourceError, match="opens but gives no sound"):
            checkup._microphone()
    finally:
        server.pactl("suspend-source", "headset", "0")


def test_nothing_but_the_one_line_is_printed_when_there_is_no_sound_server() -> None:
    program = (
        "from sage_edge.runtime.clock import MonotonicClock; from sage_edge.runtime.sources.microphone import open_microphone; import sys\n"
        "try: open_microphone('mic:default', MonotonicClock()).start()\n"
        "except Exception as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    nowhere = {**os.environ, "PULSE_SERVER": "unix:/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=nowhere, timeout=60)
    if done.returncode == 0:
        pytest.skip("this machine has a microphone of its own")
    assert done.stderr.startswith(SourceError.__name__)
    assert done.stderr.count("\n") == 1
