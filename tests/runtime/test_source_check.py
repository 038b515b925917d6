"""doctor opens the camera and the microphone that it is given, says what they gave, and fails when they give nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cameras import MjpegServer
from pulse import MISSING, NEEDED, PulseServer

from sage_edge.cli.main import main
from sage_edge.runtime import source_check
from sage_edge.runtime.clip import write_clip
from sage_edge.runtime.clock import MonotonicClock
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.source_check import brightness, size, try_camera, try_microphone
from sage_edge.runtime.sources import FrameEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_check, "LOOK_S", 0.3)
    monkeypatch.setattr(source_check, "FIRST_S", 5.0)


def test_a_camera_says_what_it_gave_and_a_black_one_is_not_well() -> None:
    server = MjpegServer()
    try:
        check = try_camera(server.uri, MonotonicClock())
        found = re.fullmatch(rf"{server.uri}: (\d+) frames in ([\d.]+) s, 160 x 120, MJPEG, asked for nothing, brightness (\d+) of 255", check.fact)
        assert found, check.fact
        assert check.ok
        assert check.needed
        assert int(found[1]) >= 2
        assert 73 <= int(found[3]) <= 120  # five sixths of a picture are 90, the rest 0 or 255 by its number
        server.mode = "black"
        check = try_camera(server.uri, MonotonicClock())
        assert (check.ok, check.fix) == (False, "take the cap off its lens, or light the room")
    finally:
        server.stop()


def test_a_file_stands_in_for_a_camera_and_what_is_no_camera_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 0.2, (160, 120))
    assert try_camera(str(tmp_path / "clip.mp4"), MonotonicClock()).ok, "also when it is over before the look is"
    check = try_camera(f"{tmp_path}/nothing.mp4", MonotonicClock())
    assert not check.ok
    assert "nothing.mp4" in check.fact
    with pytest.raises(UsageError, match="did you mean"):
        try_camera("camra:0", MonotonicClock())


@pytest.mark.parametrize(("layout", "shape"), [("bgr", (4, 6, 3)), ("rgb", (4, 6, 3)), ("yuyv", (4, 6, 2)), ("nv12", (6, 6))])
def test_size_and_brightness_of_every_layout(layout: str, shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 128, np.uint8)
    if layout == "yuyv":
        pixels[..., 0] = 16
    elif layout == "nv12":
        pixels[:4] = 16
    else:
        pixels[:] = 16
    frame = FrameEvent(0, pixels, layout)
    assert (brightness(frame), size(frame)) == (16.0, (4, 6))


@pytest.mark.skipif(bool(MISSING), reason=NEEDED)
def test_a_microphone_says_its_rate_and_level_and_a_muted_one_is_not_well() -> None:
    with PulseServer() as server, server.microphone("pipemic", 48_000, 2) as pipe:
        muted = try_microphone("mic:pipemic", MonotonicClock())
        assert (muted.ok, muted.fix) == (False, "it gives only zeros: unmute it, or choose another one")
        assert "'pipemic', 48000 Hz, 2 channel(s), asked for nothing, peak none" in muted.fact
        tone = np.sin(np.arange(48_000 * 8) * 2 * np.pi * 440 / 48_000) * 32767 / 2
        pipe.play(np.repeat(tone[:, None], 2, axis=1).astype(np.int16))
        check = try_microphone("mic:pipemic", MonotonicClock())
        found = re.search(r"peak (-[\d.]+) dBFS, mean (-[\d.]+) dBFS", check.fact)
        assert found, check.fact
        assert check.ok
        assert float(found[1]) == pytest.approx(-6.0, abs=1.5), "a resampler overshoots where sound sets in"
        unknown = try_microphone("mic:nobody", MonotonicClock())
        assert not unknown.ok
        assert "there is 'pipemic'" in unknown.fact


def test_doctor_fails_when_the_named_camera_does_not_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sage_edge.runtime.checkup.checks", list)
    monkeypatch.setattr("sage_edge.runtime.checkup.backends", lambda: ([], []))
    write_clip(tmp_path / "clip.mp4", 0.2, (160, 120))
    assert main(["doctor", "--camera", str(tmp_path / "clip.mp4"), "--json"]) == 0
    assert [check["name"] for check in json.loads(capsys.readouterr().out)["checks"] if check["needed"]] == ["--camera"]
    assert main(["doctor", "--camera", f"{tmp_path}/no.mp4"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("FAILED: --camera")
    assert main(["doctor", "--mic", "microphone"]) == 2
    assert "unknown microphone 'microphone'" in capsys.readouterr().err
