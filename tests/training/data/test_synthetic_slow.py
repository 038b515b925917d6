"""What the corpus is for: the run time sees the faces that training saw, and face and voice each tell what the other does not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sage_edge.runtime.faces import MARGIN, FaceFinder
from sage_edge.runtime.metrics import affect_ccc
from sage_edge.runtime.native import resize
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.sources.video import VideoFile
from sage_edge.training.data import affwild2, synthetic
from sage_edge.training.data.store import Store, Trial, prepare
from sage_edge.training.data.synthetic_scene import Scene

Box = tuple[float, float, float, float]


def iou(a: Box, b: Box) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@pytest.mark.slow
def test_run_time_finds_the_faces_that_the_corpus_was_cut_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ovals: list[Box] = []
    draw = Scene.draw

    def recorded(scene: Scene, t_s: float) -> NDArray[np.uint8]:
        picture = draw(scene, t_s)
        ((x, y, half),) = scene.ovals
        side = 1.79 * half * (1 + MARGIN)  # where the cascade puts its square on a drawn face, measured on 24 of them
        ovals.append((x - side / 2, y + 0.06 * half - side / 2, side, side))
        return picture

    monkeypatch.setattr(Scene, "draw", recorded)
    root = synthetic.synthesise(tmp_path / "c", seed=11, train=8, val=1, seconds=6, workers=1, progress=False)
    by_video = {video.name: video for video in synthetic.plan(11, 8, 1, 6)}
    order = sorted(by_video.values(), key=lambda v: -v.seconds * v.size[0] * v.size[1])
    trials = {trial.name: trial for trial in affwild2.find_trials(root)}
    found_share, drawn_iou, differences, agree = [], [], [], []
    start = 0
    for video in order:
        trial = trials[video.name]
        crops = affwild2.crop_numbers(trial.crops)
        finder = FaceFinder()
        corrupted = synthetic.read_corruption(root)[trial.name]
        with VideoFile(trial.media) as source:
            for i, event in enumerate(event for event in source if isinstance(event, FrameEvent)):
                oval = ovals[start + i]
                face = finder.find(event.pixels, event.format, event.t_ns)
                clean = not any(c.start_s - 0.1 <= event.t_ns / 1e9 <= c.end_s + 0.5 for c in corrupted)
                agree.append((face is not None) == (i in crops))
                if not clean:
                    continue
                found_share.append(face is not None)
                if face is None or i not in crops:
                    continue
                drawn_iou.append(iou(face.box, oval))
                stored = np.asarray(cv2.imread(str(crops[i])), np.float64)[..., ::-1]
                differences.append(np.abs(resize(event.pixels, face.box, 112, event.format) - stored).mean())
            start += i + 1
    assert np.mean(found_share) > 0.9
    assert np.mean(agree) > 0.95
    assert np.mean(drawn_iou) > 0.75
    assert np.mean(differences) < 12  # of 255: compression, and boxes that differ by fractions of a pixel


def ridge(x: NDArray[np.float64], y: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    return np.asarray(np.linalg.solve(x.T @ x + strength * len(x) * np.eye(x.shape[1]), x.T @ y))


def face_features(trial: Trial) -> NDArray[np.float64]:
    """Per tick: the face, grey, 24 x 24, as bright and as contrasty as any other; zeros without a face."""
    grey = trial.faces.mean(axis=3).reshape(-1, 24, 2, 24, 2).mean(axis=(2, 4))
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) / (grey.std(axis=(1, 2), keepdims=True) + 3)
    rows = np.concatenate([grey.reshape(len(grey), -1), np.zeros((1, 576))])
    return np.asarray(rows[trial.tick_face])


def voice_features(trial: Trial) -> NDArray[np.float64]:
    """Per tick: mean log spectrum of the louder half of the second around it, pitch, and how much is spoken."""
    n = trial.n_ticks
    frames = np.stack([trial.samples(trial.first_sample(k), 1024) for k in range(n)]).astype(np.float64)
    power = np.abs(np.fft.rfft(frames * np.hanning(1024), 2048)) ** 2
    echo = np.fft.irfft(power)[:, 40:230]
    pitch = np.log(16_000 / (echo.argmax(axis=1) + 40))
    bands = np.log(np.stack([part.mean(axis=1) for part in np.array_split(power[:, 4:960], 24, axis=1)], 1) + 1e-7)
    loud = (bands.max(axis=1) > np.median(bands.max(axis=1))).astype(np.float64)
    window = np.ones(61) / 61
    share = np.convolve(loud, window, "same") + 1e-3
    columns = [share, *(np.convolve(column * loud, window, "same") / share for column in (pitch, *bands.T))]
    return np.stack(columns, 1)


@pytest.mark.slow
@pytest.mark.nightly
def test_face_tells_valence_and_voice_tells_arousal_of_people_never_seen(tmp_path: Path) -> None:
    """Ridge regression on plain features, scored on other people: far below what the model reaches, but each sense leads on its own side."""
    root = synthetic.synthesise(tmp_path / "c", seed=5, train=24, val=8, seconds=12)
    prepare(root, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    scores = {}
    for name, features, strength in (("face", face_features, 0.01), ("voice", voice_features, 0.01)):
        parts: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        for split in ("train", "val"):
            xs, ys = [], []
            for trial in store.trials(split):
                valid = trial.labels_valid[trial.tick_frame] & (trial.tick_face >= 0)
                xs.append(features(trial)[valid])
                ys.append(trial.labels[trial.tick_frame][valid])
            parts[split] = np.concatenate(xs), np.concatenate(ys)
        x, y = parts["train"]
        mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
        weights = ridge((x - mean) / deviation, y - y.mean(axis=0), strength)
        scores[name] = affect_ccc((parts["val"][0] - mean) / deviation @ weights + y.mean(axis=0), parts["val"][1])
    assert scores["face"]["valence"] > 0.5
    assert scores["voice"]["arousal"] > 0.5
    assert scores["face"]["valence"] > scores["voice"]["valence"] + 0.15
    assert scores["voice"]["arousal"] > scores["face"]["arousal"] + 0.15
