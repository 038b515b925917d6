"""What is not a usable video is refused in one line before anything else; damage further on is counted and passed over."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from make_video import even_stamps, write_video
from numpy.typing import NDArray

from sage_edge.runtime.errors import SourceError
from sage_edge.runtime.sources import AudioEvent, FrameEvent
from sage_edge.runtime.sources.video import VideoFile

SOUND = (0.1 * np.sin(np.arange(96_000) / 20)).astype(np.float32)


def noise(index: int, _seconds: float) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 255, (120, 160, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def index_first(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of pictures that compress badly, with sound; the index lies before the data."""
    path = tmp_path_factory.mktemp("good") / "x.mp4"
    options = {"movflags": "faststart"}
    write_video(path, stamps_s=even_stamps(25, 50), picture=noise, sound=SOUND, sound_rate=48_000, codec_options={"g": "10"}, options=options)
    return path.read_bytes()


@pytest.fixture(scope="module")
def index_last(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "x.mp4"
    write_video(path, stamps_s=even_stamps(25, 50), picture=noise, sound=SOUND, sound_rate=48_000)
    return path.read_bytes()


def refusal(path: Path) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceError) as caught:
        VideoFile(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.exit_code == 1
    del caught
    assert len(os.listdir("/proc/self/fd")) == before, "the file stays open"
    return text


def test_no_such_file_or_a_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.mp4")
    assert "is a folder" in refusal(tmp_path)


def test_zero_length(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    assert "zero bytes" in refusal(tmp_path / "x.mp4")


@pytest.mark.parametrize("size", [8, 100, 3000, 30_000])
def test_truncated_before_its_index(size: int, index_last: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_last[:size])
    text = refusal(path)
    assert "ends before its first frame" in text
    assert f"{size} bytes" in text


@pytest.mark.parametrize("extra", [8, 300])
def test_truncated_before_its_first_frame(extra: int, index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first[: index_first.find(b"mdat") + extra])
    assert "ends before its first frame" in refusal(path)


def test_no_video_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", sound=SOUND, sound_rate=48_000)
    assert "no video stream (it holds audio)" in refusal(path)


def test_a_cover_picture_is_no_video_stream(tmp_path: Path) -> None:
    import av

    ok, png = cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))
    assert ok
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        audio, cover = out.add_stream("libmp3lame", rate=44_100), out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(png.tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        packets = [packet]
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44_100, 0
        packets += [*audio.encode(frame), *audio.encode(None)]
        for each in packets:
            out.mux(each)
    with av.open(str(path)) as check:
        assert [stream.type for stream in check.streams] == ["audio", "video"]
    assert "no video stream" in refusal(path)


def test_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("these are words, not pictures\n" * 50)
    (tmp_path / "notes.txt").write_text("\x1b[2J these are words, not pictures\n" * 50)  # FFmpeg would show them as ANSI art
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).integers(0, 256, 50_000).astype(np.uint8).tobytes())
    for name in ("x.mp4", "notes.txt", "noise.mp4"):
        assert "is not a video" in refusal(tmp_path / name)
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((64, 64, 3), np.uint8))
    shutil.copy(tmp_path / "picture.png", tmp_path / "picture.mp4")
    for name in ("picture.png", "picture.mp4"):
        assert "is not a video" in refusal(tmp_path / name)


def test_a_playlist_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n")
        assert "list.m3u8" in refusal(tmp_path / "list.m3u8")
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_colon_in_the_name(index_first: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "http:x.mp4").write_bytes(index_first)
    monkeypatch.chdir(tmp_path)
    with VideoFile("http:x.mp4") as video:
        assert video.width == 160


def test_unknown_codec(index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first.replace(b"avc1", b"zzzz"))
    assert "codec cannot be decoded here" in refusal(path)


def test_frames_without_time_stamps(tmp_path: Path) -> None:
    assert "no time stamps" in refusal(write_video(tmp_path / "x.h264", stamps_s=even_stamps(25, 5)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first)
    path.chmod(0)
    assert "permission denied" in refusal(path)


def test_sound_of_an_unknown_codec_is_left_out_and_said(index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first.replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    with VideoFile(path) as video:
        assert not video.has_sound
        assert len(video.notes) == 1
        assert "sound cannot be decoded" in video.notes[0]
        assert len(list(video)) == 50


def test_a_damaged_stretch_is_counted_and_passed_over(index_first: bytes, tmp_path: Path) -> None:
    damaged = bytearray(index_first)
    middle = damaged.find(b"mdat") + (len(damaged) - damaged.find(b"mdat")) // 2
    damaged[middle : middle + 60_000] = np.random.default_rng(1).integers(0, 256, 60_000).astype(np.uint8).tobytes()
    path = tmp_path / "x.mp4"
    path.write_bytes(damaged)
    with VideoFile(path) as video:
        events = list(video)
        frames = [event for event in events if isinstance(event, FrameEvent)]
        assert video.drops.frames > 0
        assert 35 <= len(frames) < 50
        assert frames[-1].t_ns == 1_960_000_000, "the rest keeps its place in time"
        stamps = [event.t_ns for event in events]
        assert stamps == sorted(stamps)
        sound = [event for event in events if isinstance(event, AudioEvent)]
        assert all(np.isfinite(event.samples).all() for event in sound)
        last = sound[-1]
        assert last.t_ns / 1e9 + len(last.samples) / 16_000 == pytest.approx(2.0, abs=0.022)


def test_a_file_that_breaks_off_says_so(index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first[: index_first.find(b"mdat") + (len(index_first) - index_first.find(b"mdat")) // 3])
    with VideoFile(path) as video:
        frames = [event for event in video if isinstance(event, FrameEvent)]
        assert 10 < len(frames) < 25
        assert len(video.notes) == 1
        assert "of the 2.0 s that its header promises" in video.notes[0]


def test_closing_early_and_twice(index_first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(index_first)
    before = len(os.listdir("/proc/self/fd"))
    video = VideoFile(path)
    events = iter(video)
    next(events)
    video.close()
    video.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", stamps_s=even_stamps(25, 5), metadata={"title": "Caf__ noir"})
    data = path.read_bytes()
    assert b"Caf__ noir" in data
    path.write_bytes(data.replace(b"Caf__ noir", "Caf\u00e9\u00e9 noir".encode("latin-1")))
    with VideoFile(path) as video:
        assert len([event for event in video if isinstance(event, FrameEvent)]) == 5
