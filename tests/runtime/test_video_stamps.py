"""Video files by their time stamps: real files of many kinds, made here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from make_video import even_stamps, flash_and_click, loop_video, write_video
from numpy.typing import NDArray

from sage_edge.runtime.sources import AudioEvent, FrameEvent
from sage_edge.runtime.sources.sound import CHUNK
from sage_edge.runtime.sources.video import VideoFile

RATES = {"23.976": Fraction(24_000, 1001), "25": Fraction(25), "29.97": Fraction(30_000, 1001)}


def read(path: Path) -> tuple[list[FrameEvent], list[AudioEvent], VideoFile]:
    with VideoFile(path) as video:
        events = list(video)
    stamps = [event.t_ns for event in events]
    assert stamps == sorted(stamps)
    assert min(stamps) == 0 <= stamps[0]
    frames = [event for event in events if isinstance(event, FrameEvent)]
    sound = [event for event in events if isinstance(event, AudioEvent)]
    assert frames[0].t_ns == 0
    assert all(event.samples.dtype == np.float32 and 0 < len(event.samples) <= CHUNK for event in sound)
    return frames, sound, video


def joined(sound: list[AudioEvent]) -> NDArray[np.float32]:
    """The samples, after checking that each chunk follows the one before to the nanosecond."""
    at = 0
    for event in sound:
        assert abs(event.t_ns - sound[0].t_ns - at * 62_500) <= 1
        at += len(event.samples)
    assert all(len(event.samples) == CHUNK for event in sound[:-1])
    return np.concatenate([event.samples for event in sound])


def rgb(frame: FrameEvent) -> NDArray[np.uint8]:
    return cv2.cvtColor(frame.pixels, cv2.COLOR_YUV2RGB_NV12) if frame.format == "nv12" else frame.pixels


def click_s(sound: list[AudioEvent]) -> float:
    """When the sound first passes half of the click's height, between samples."""
    x = np.abs(joined(sound))
    j = int(np.argmax(x > 0.4))
    return sound[0].t_ns / 1e9 + (j - (x[j] - 0.4) / max(x[j] - x[j - 1], 1e-9)) / 16_000


def flash_s(frames: list[FrameEvent]) -> float:
    return next(frame.t_ns for frame in frames if rgb(frame).mean() > 128) / 1e9


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("sound_rate", "layout"), [(44_100, "mono"), (48_000, "stereo"), (8_000, "mono"), (48_000, "5.1")])
def test_flash_and_click_stay_together(rate: str, sound_rate: int, layout: str, tmp_path: Path) -> None:
    stamps = even_stamps(RATES[rate], 45)
    at_s = float(stamps[24])
    picture, sound = flash_and_click(at_s, 1.8, sound_rate)
    path = write_video(tmp_path / "x.mp4", stamps_s=stamps, picture=picture, sound=sound, sound_rate=sound_rate, sound_layout=layout)
    frames, heard, video = read(path)
    assert [frame.t_ns for frame in frames] == [round(round(s * 90_000) / 90_000 * 1e9) for s in stamps]
    assert flash_s(frames) == pytest.approx(at_s, abs=1e-4)
    assert click_s(heard) == pytest.approx(at_s, abs=1e-3)
    assert abs(len(joined(heard)) - 1.8 * 16_000) <= 1
    assert video.has_sound
    assert (video.width, video.height) == (160, 120)
    assert (video.drops.frames, video.drops.audio, video.notes) == (0, 0, [])


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_sound_that_starts_late(kind: str, tmp_path: Path) -> None:
    picture, sound = flash_and_click(0.6, 1.5, 48_000)
    path = write_video(
        tmp_path / f"x.{kind}", stamps_s=even_stamps(25, 50), picture=picture, sound=sound[19_200:], sound_rate=48_000, sound_start_s=0.4
    )
    frames, heard, _ = read(path)
    # The codec may put up to one packet of silence before the first sample.
    assert 0.4 - 1024 / 48_000 - 1e-3 <= heard[0].t_ns / 1e9 <= 0.401
    assert click_s(heard) == pytest.approx(flash_s(frames), abs=1e-3)
    assert heard[0].t_ns / 1e9 + len(joined(heard)) / 16_000 == pytest.approx(1.5, abs=0.025)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_sound_that_starts_early_is_cut_at_the_first_frame(kind: str, tmp_path: Path) -> None:
    picture, sound = flash_and_click(1.1, 2.0, 48_000)
    path = write_video(tmp_path / f"x.{kind}", stamps_s=even_stamps(25, 40, 0.3), picture=picture, sound=sound, sound_rate=48_000)
    frames, heard, video = read(path)
    assert float(video.origin_s) == pytest.approx(0.3, abs=1e-3)
    assert 0 <= heard[0].t_ns < 62_500, "the first sample at or after the first frame"
    assert flash_s(frames) == pytest.approx(0.8, abs=1e-3)
    assert click_s(heard) == pytest.approx(0.8, abs=1e-3)


def test_variable_frame_rate_keeps_every_stamp(tmp_path: Path) -> None:
    steps_ms = [40, 100, 33, 500, 20, 33, 200, 7, 41]
    stamps = [Fraction(0), *(Fraction(int(ms), 1000) for ms in np.cumsum(steps_ms))]
    frames, heard, video = read(write_video(tmp_path / "x.mp4", stamps_s=stamps))
    assert [frame.t_ns for frame in frames] == [round(s * 1_000_000_000) for s in stamps]
    assert [int(rgb(frame)[60, 80, 0]) for frame in frames] == pytest.approx([20 + i for i in range(10)], abs=2)
    assert heard == []
    assert not video.has_sound


def test_frames_come_in_the_order_of_display(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", stamps_s=even_stamps(30, 40), codec_options={"preset": "medium", "bf": "3"})
    frames, _, _ = read(path)
    assert [int(rgb(frame)[60, 80, 0]) for frame in frames] == pytest.approx([20 + i for i in range(40)], abs=2)


def test_channels_are_weighed_by_where_they_stand(tmp_path: Path) -> None:
    t = np.arange(16_000) / 16_000
    tones = {name: np.sin(2 * np.pi * hz * t).astype(np.float32) / 2 for name, hz in (("FL", 300), ("FR", 500), ("FC", 700), ("LFE", 60))}
    both = write_video(
        tmp_path / "stereo.mov",
        stamps_s=even_stamps(25, 25),
        sound=np.stack([tones["FL"], tones["FR"]]),
        sound_rate=16_000,
        sound_layout="stereo",
        audio_codec="pcm_s16le",
    )
    np.testing.assert_allclose(joined(read(both)[1]), (tones["FL"] + tones["FR"]) / 2, atol=1e-4)
    silent = np.zeros_like(tones["FL"])
    surround = np.stack([silent, silent, tones["FC"], tones["LFE"], silent, silent])
    for kind in ("mov", "mkv"):  # says where its channels stand; does not
        many = write_video(
            tmp_path / f"many.{kind}", stamps_s=even_stamps(25, 25), sound=surround, sound_rate=16_000, sound_layout="5.1", audio_codec="pcm_s16le"
        )
        mixed = joined(read(many)[1])
        gain = float(mixed @ tones["FC"] / (tones["FC"] @ tones["FC"]))
        assert gain == pytest.approx(1 / (1 + 2 * 0.7071 + 2 * 0.5), abs=1e-3), "speech is in the centre"
        np.testing.assert_allclose(mixed, gain * tones["FC"], atol=1e-4, err_msg="the bass channel is left out")


def test_a_tone_keeps_its_pitch_and_level(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000).astype(np.float32)
    path = write_video(tmp_path / "x.mov", stamps_s=even_stamps(25, 50), sound=tone, sound_rate=48_000, audio_codec="pcm_s16le")
    heard = joined(read(path)[1])
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(heard[200:-200], expected[200:-200], atol=1e-3)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation_metadata_is_respected(turn: int, tmp_path: Path) -> None:
    def picture(_index: int, _seconds: float) -> NDArray[np.uint8]:
        corner = np.zeros((120, 160, 3), np.uint8)
        corner[:40, :50] = (220, 40, 40)
        return corner

    frames, _, video = read(write_video(tmp_path / "x.mp4", stamps_s=even_stamps(25, 3), picture=picture, rotation=turn))
    shown = rgb(frames[0])
    assert shown.shape == ((120, 160, 3) if turn in (0, 180) else (160, 120, 3))
    assert (video.width, video.height) == (shown.shape[1], shown.shape[0])
    expected = np.rot90(picture(0, 0), turn // 90)
    assert np.abs(shown.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("colorspace", "color_range", "pix_fmt", "fast"),
    [
        (None, None, "yuv420p", True),
        (6, 1, "yuv420p", True),
        (1, 1, "yuv420p", False),
        (1, 2, "yuv420p", False),
        (5, 2, "yuvj420p", False),
        (None, None, "yuv444p", False),
        (9, 1, "yuv420p10le", False),
    ],
)
def test_colours_follow_the_tags(colorspace: int | None, color_range: int | None, pix_fmt: str, fast: bool, tmp_path: Path) -> None:
    if colorspace == 9 and int(av.__version__.split(".")[0]) < 18:
        pytest.skip(f"PyAV {av.__version__} cannot write BT.2020: its frames come out as BT.601")

    def picture(_index: int, _seconds: float) -> NDArray[np.uint8]:
        return np.broadcast_to(np.array([200, 60, 90], np.uint8), (120, 160, 3)).copy()

    path = write_video(
        tmp_path / "x.mp4", stamps_s=even_stamps(25, 3), picture=picture, colorspace=colorspace, color_range=color_range, pix_fmt=pix_fmt
    )
    frames, _, _ = read(path)
    assert (frames[0].format == "nv12") == fast
    np.testing.assert_allclose(rgb(frames[0])[60, 80], [200, 60, 90], atol=3)


def test_odd_sizes(tmp_path: Path) -> None:
    def picture(index: int, _seconds: float) -> NDArray[np.uint8]:
        return np.full((91, 121, 3), 40 * index + 20, np.uint8)

    path = write_video(tmp_path / "x.mkv", stamps_s=even_stamps(25, 3), picture=picture, size=(121, 91), video_codec="mjpeg", pix_fmt="yuvj444p")
    frames, _, _ = read(path)
    assert [frame.pixels.shape for frame in frames] == [(91, 121, 3)] * 3
    assert [int(rgb(frame)[45, 60, 1]) for frame in frames] == pytest.approx([20, 60, 100], abs=3)


@pytest.mark.parametrize(("name", "video_codec", "audio_codec"), [("x.avi", "mpeg4", "libmp3lame"), ("x.webm", "libvpx", "libopus")])
def test_other_containers(name: str, video_codec: str, audio_codec: str, tmp_path: Path) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    path = write_video(
        tmp_path / name,
        stamps_s=even_stamps(25, 25),
        sound=tone,
        sound_rate=48_000,
        video_codec=video_codec,
        audio_codec=audio_codec,
        time_base=Fraction(1, 25),
    )
    frames, heard, _ = read(path)
    assert len(frames) >= 24
    assert len(joined(heard)) == pytest.approx(16_000, abs=16_000 * 0.08)


def test_a_repeated_video_is_as_long_as_its_repeats(tmp_path: Path) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    once = write_video(tmp_path / "once.mp4", stamps_s=even_stamps(25, 25), sound=tone, sound_rate=48_000)
    frames, heard, _ = read(loop_video(once, tmp_path / "thrice.mp4", 2.5))
    assert len(frames) == 75
    assert sum(len(event.samples) for event in heard) == pytest.approx(48_000, abs=3 * 1024)
