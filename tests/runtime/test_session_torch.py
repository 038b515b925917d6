"""The live session against torch: the exported model, fed a trial frame by frame, gives what SAGE gives on `window_at`'s windows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from feeding import SECOND
from numpy.typing import NDArray
from tiny_bundle import write_manifest

from sage_edge.runtime import Bundle, Session, ticks
from sage_edge.runtime.bundle import Dims, FaceInfo, ModelInfo
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import window_at

torch = pytest.importorskip("torch")

TOLERANCE = 1e-4


@dataclass
class Case:
    bundle: Bundle
    model: object
    trial: Trial
    rows: NDArray[np.float32]

    def truth(self, newest: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """estimates [W, 2], temporal [W], modality [W, 2] of torch on the window that ends at `newest`."""
        window = window_at(self.trial, newest)
        visual = np.where(window.visual_mask[:, None], self.rows[window.tick_face], np.float32(0))
        with torch.no_grad():
            audio = self.model.audio(torch.from_numpy(window.samples)[None])
            masks = [torch.from_numpy(mask.astype(np.float32))[None] for mask in (window.visual_mask, window.audio_mask)]
            out = self.model.fusion(torch.from_numpy(visual)[None], audio, *masks)
        return out.estimates[0].numpy(), out.temporal[0].numpy(), out.modality[0].numpy()


def make_trial(seconds: float, rate: float, seed: int) -> Trial:
    """Changing faces with gaps, a voice-like sound that ends a little before the video, stamps off the grid."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate)
    stamps = np.round(np.arange(count) / rate * SECOND).astype(np.int64)
    stamps[1:] += rng.integers(-4_000_000, 4_000_000, count - 1)
    present = np.repeat(rng.random(count // 10 + 1) < 0.75, 10)[:count]
    faces = np.clip(rng.normal(120, 60, (int(present.sum()), 1, 1, 3)) + rng.normal(0, 40, (int(present.sum()), 48, 48, 3)), 0, 255).astype(np.uint8)
    t = np.arange(int((seconds - 0.1) * 16_000)) / 16_000
    tone = np.sin(2 * np.pi * (120 + 40 * np.sin(t)) * t) * (0.3 + 0.3 * np.sin(0.7 * t)) + 0.02 * rng.standard_normal(len(t))
    return Trial(
        name="clip", split="val", source="clip.mp4", subject=None, frame_t_ns=stamps,
        frame_face=np.where(present, np.cumsum(present) - 1, -1).astype(np.int32), faces=faces,
        labels=np.zeros((count, 2), np.float32), labels_valid=np.ones(count, bool), audio=(tone * 20_000).astype(np.int16), rate_hz=30,
    )  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    from sage_edge.compile.export import export
    from sage_edge.training import SAGE, presets

    preset = presets.get("tiny")
    torch.manual_seed(7)
    model = SAGE(preset).eval()
    with torch.no_grad():
        # An untrained head hardly moves: make what it says span the range.
        model.fusion.out.weight.mul_(12)
    path = tmp_path_factory.mktemp("torch") / "tiny.sage"
    graphs = export(model, {"name": "tiny"}, path / "onnx")
    for name, graph in graphs.items():
        shutil.move(graph, path / f"onnx/{name}.fp32.onnx")
    face = FaceInfo(preset.face_size, preset.input_size, 0.25, "rgb", tuple(preset.mean), tuple(preset.std), ticks.MAX_FRAME_AGE_NS / 1e6)
    write_manifest(
        path, model=ModelInfo("tiny", "tiny", "0000000", preset.reliability, preset.rgf_scale), face=face,
        dims=Dims(preset.visual_dim, preset.audio_dim), calibration=None, weights_bytes={}, ccc={}, tolerance={},
    )  # fmt: skip
    trial = make_trial(12.4, 25.0, 3)
    centre = np.array(trial.faces)[:, 4:44, 4:44].astype(np.float32) / 255
    pixels = ((centre - np.float32(preset.mean)) / np.float32(preset.std)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        rows = torch.cat([model.visual(torch.from_numpy(part)) for part in np.array_split(pixels, 8)]).numpy()
    return Case(Bundle.open(path), model, trial, rows)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers on a busy machine: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("hop", [1, 7, 15, 300])
def test_session_equals_torch(case: Case, hop: int) -> None:
    trial = case.trial
    samples = trial.samples(0, len(trial.audio))
    chunk, sent, estimates = 1_111, 0, []
    with Session(case.bundle, precision="fp32", hop=hop, t0_ns=0) as session:
        for t_ns, face in zip(trial.frame_t_ns.tolist(), trial.frame_face.tolist(), strict=True):
            while sent < len(samples) and sent * SECOND // 16_000 <= t_ns:
                session.push_audio(samples[sent : sent + chunk], sent * SECOND // 16_000)
                sent += chunk
            session.push_face(None if face < 0 else trial.faces[face], t_ns)
            estimates += session.poll()
            if hop == 1 and len(estimates) > 40:
                break
        else:
            session.finish()
            estimates += session.poll()
    newest = [ticks.tick_at_or_after(e.t_ns) for e in estimates]
    if hop > 1:
        assert newest[-1] == trial.n_ticks - 1
    span = []
    for estimate, tick in zip(estimates, newest, strict=True):
        expected, temporal, modality = case.truth(tick)
        trail = np.array([pair for _, *pair in estimate.trail], np.float32)
        difference = np.abs(trail - expected[-len(trail) :]).max()
        assert difference <= TOLERANCE, f"tick {tick}: {difference:.2e}"
        assert abs(estimate.reliability.temporal - temporal[-1]) <= 1e-3
        assert estimate.reliability.visual == pytest.approx(float(modality[-1, 0]), abs=1e-4)
        span.append(trail)
    assert np.ptp(np.concatenate(span), axis=0).min() > 0.05, "estimates that hardly change prove nothing"
