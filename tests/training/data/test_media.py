"""Where a flash and a click end up: stamps and sound of files with odd rates, late sound, reordered frames, lost frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sage_edge.runtime.errors import SourceError
from sage_edge.training.data.media import audio_pieces, video_clock
from sage_edge.training.data.synthetic_video import TIME_BASE, write_mp4

SIZE = (64, 48)


def read_audio(path: Path, zero_s: Fraction) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *audio_pieces(path, zero_s)])


def flash_and_click(path: Path, rate: Fraction, frame: int = 40, frames: int = 60, lost: tuple[int, ...] = (), **options: Any) -> float:
    """Dark frames and quiet sound; frame number `frame` is white and a click begins with it. Returns its time."""
    stamps = [round(i / rate / TIME_BASE) for i in range(frames) if i not in lost]
    at_s = float(frame / rate)
    sound = np.random.default_rng(0).normal(0, 1e-4, round(frames / float(rate) * 16_000)).astype(np.float32)
    start = round(at_s * 16_000)
    sound[start : start + 160] += 0.8 * np.sin(np.arange(160) * 2 * np.pi * 1000 / 16_000).astype(np.float32)
    white = round(frame / rate / TIME_BASE)
    pictures = ((stamp, np.full((SIZE[1], SIZE[0], 3), 250 if stamp == white else 10, np.uint8)) for stamp in stamps)
    write_mp4(path, pictures, SIZE, rate, sound, **options)
    return at_s


def flash_time_s(path: Path, times: np.ndarray) -> float:
    with av.open(str(path)) as container:
        levels = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(levels) == len(times)
    assert max(levels) > 200
    return float(times[int(np.argmax(levels))]) / 1e9


def click_time_s(audio: np.ndarray) -> float:
    """Centre of the click's energy, less half its length."""
    power = audio.astype(np.float64) ** 2
    return float((power * np.arange(len(audio))).sum() / power.sum()) / 16_000 - 0.005


CASES = [
    (Fraction(30), {}),
    (Fraction(15), {}),
    (Fraction(24000, 1001), {"sound_rate_hz": 48_000, "stereo": True}),
    (Fraction(25), {"sound_rate_hz": 44_100}),
    (Fraction(30000, 1001), {"b_frames": 2}),
    (Fraction(60), {"sound_late_s": 0.3}),
    (Fraction(30), {"sound_late_s": 0.15, "b_frames": 2, "sound_rate_hz": 44_100, "stereo": True}),
    (Fraction(30), {"lost": (3, 4, 17, 39, 41)}),
]


@pytest.mark.parametrize(("rate", "options"), CASES)
def test_flash_and_click_stay_together(tmp_path: Path, rate: Fraction, options: dict[str, Any]) -> None:
    path = tmp_path / "clip.mp4"
    at_s = flash_and_click(path, rate, **options)
    zero_s, times = video_clock(path)
    audio = read_audio(path, zero_s)
    assert flash_time_s(path, times) == pytest.approx(at_s, abs=2e-5)
    assert click_time_s(audio) == pytest.approx(at_s, abs=1e-3)
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert audio.dtype == np.int16
    late = options.get("sound_late_s", 0.0)
    assert not audio[: int(max(late - 0.065, 0) * 16_000)].any()  # 64 ms: the encoder's run-up


def test_stamps_are_exact_at_any_rate(tmp_path: Path) -> None:
    for rate in (Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60)):
        flash_and_click(tmp_path / "clip.mp4", rate)
        _, times = video_clock(tmp_path / "clip.mp4")
        np.testing.assert_allclose(times, [float(i / rate) * 1e9 for i in range(60)], atol=6000)  # half a tick of 1/90000 s


def test_no_sound_is_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    write_mp4(path, ((i * 3000, np.zeros((48, 64, 3), np.uint8)) for i in range(10)), SIZE, Fraction(30), None)
    zero_s, times = video_clock(path)
    assert len(times) == 10
    assert read_audio(path, zero_s).shape == (0,)


def test_a_broken_off_file_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "whole.mkv"
    flash_and_click(tmp_path / "clip.mp4", Fraction(30))
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(path), "w") as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    data = path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    zero_s, times = video_clock(cut)
    assert 1 < len(times) < 60
    assert 0 < len(read_audio(cut, zero_s)) < 32_000


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    flash_and_click(good, Fraction(30))
    data = good.read_bytes()
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w") as container:
        stream: Any = container.add_stream("aac", rate=16_000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 16_000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    cases = {"empty.mp4": b"", "cut.mp4": data[:600], "half.mp4": data[: len(data) // 2], "text.mp4": b"not a video\n" * 100}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    words = {
        "empty.mp4": "zero bytes",
        "cut.mp4": "first frame",
        "half.mp4": "first frame",
        "text.mp4": "not a video",
        "sound.m4a": "no video stream",
    }
    for name, word in words.items():
        with pytest.raises(SourceError, match=word) as caught:
            video_clock(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
