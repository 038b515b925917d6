"""Sound at a video's own frames: the tokens that a frame gets are those at its own time, whatever the frame rate."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_toy import QUICK, TINY_SETTINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime import ticks
from sage_edge.training import SAGE, presets
from sage_edge.training.data.store import Trial
from sage_edge.training.data.windows import window_at
from sage_edge.training.model import AudioEncoder, FusionOutput, tokens_at
from sage_edge.training.prediction import Predictor
from sage_edge.training.stages.audio import AudioStage

SECOND = 16_000


def native(times_s: np.ndarray, audio: np.ndarray, rate_hz: int) -> Trial:
    frames = len(times_s)
    nothing = np.zeros(frames, bool)
    return Trial(
        name="n", split="val", source="n.mp4", subject=None, frame_t_ns=np.rint(times_s * 1e9).astype(np.int64),
        frame_face=np.full(frames, -1, np.int32), faces=np.zeros((0, 48, 48, 3), np.uint8), labels=np.zeros((frames, 2), np.float32),
        labels_valid=nothing, audio=audio, rate_hz=rate_hz, native=True,
    )  # fmt: skip


class Clock(torch.nn.Module):
    """In place of WavLM: one token per 20 ms that holds the time of its middle, in samples."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        count = (samples.shape[1] - ticks.TOKEN_FIELD) // ticks.TOKEN_STRIDE + 1
        return (torch.arange(count) * ticks.TOKEN_STRIDE + ticks.TOKEN_FIELD / 2).expand(len(samples), count)[..., None]


@cache
def clock_encoder() -> AudioEncoder:
    encoder = AudioEncoder(presets.get("tiny", TINY_SETTINGS))
    encoder.wavlm = Clock()
    return encoder


@pytest.mark.parametrize("rate", [20.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0])
@settings(deadline=None, max_examples=8)
@given(newest=st.integers(20, 700), jitter=st.booleans())
def test_every_token_of_a_native_window_is_that_of_its_frame(rate: float, newest: int, jitter: bool) -> None:
    times = np.arange(600) / rate
    if jitter:  # variable frame rate: frames come up to half a frame late, and some are lost
        times = np.delete(times + np.random.default_rng(0).uniform(0, 0.5 / rate, 600) * (np.arange(600) > 0), [5, 77, 78, 79, 300])
    trial = native(times, np.ones(int(times[-1] * SECOND) + SECOND, np.int16), round(rate))
    window = window_at(trial, newest, 300)
    first = newest - 299
    encoder = clock_encoder()
    at = encoder(torch.from_numpy(window.samples)[None], torch.from_numpy(window.tick_sample))[0, :, 0].numpy()
    inside = np.array([0 <= k < trial.n_ticks for k in range(first, newest + 1)])
    start_s = trial.first_sample(first) / SECOND
    own_s = times[np.arange(first, newest + 1)[inside]]
    # what is before the first token's middle, or after the last one's, takes the nearest token: 12.5 ms at most on either side
    low, high = ticks.TOKEN_FIELD / 2, len(window.samples) - ticks.TOKEN_FIELD / 2 - ticks.TOKEN_STRIDE
    expected = (own_s - start_s) * SECOND
    fits = (expected >= low) & (expected <= high)
    assert fits.sum() >= inside.sum() - 2
    np.testing.assert_allclose(at[inside][fits], expected[fits], atol=0.6)  # half a sample of rounding
    assert len(window.samples) == trial.first_sample(newest + 1) - trial.first_sample(first)


@pytest.mark.parametrize("rate", [24000 / 1001, 25.0, 30.0])
def test_a_click_with_a_frame_is_in_that_frames_samples(rate: float) -> None:
    times = np.arange(500) / rate
    audio = np.zeros(int(times[-1] * SECOND) + SECOND, np.int16)
    audio[round(times[333] * SECOND)] = 20_000
    window = window_at(native(times, audio, round(rate)), 450, 300)
    edges = [*window.tick_sample, len(window.samples)]
    (click,) = np.flatnonzero(window.samples)
    assert np.searchsorted(edges, click, side="right") - 1 == 333 - 151
    assert window.native


def test_a_gap_of_minutes_is_left_out_and_what_follows_is_in_its_place() -> None:
    times = np.concatenate([np.arange(100) / 25, 300 + np.arange(100) / 25])
    audio = np.ones(305 * SECOND, np.int16)
    audio[300 * SECOND : 300 * SECOND + 640] = 9000  # with frame 100
    audio[150 * SECOND] = 20_000  # in the midst of the gap
    window = window_at(native(times, audio, 25), 199, 200)
    assert len(window.samples) == 199 * 640 + 8000
    assert window.audio_mask.all()
    loud = np.flatnonzero(window.samples * 32768 > 5000)
    assert loud.tolist() == list(range(window.tick_sample[100], window.tick_sample[101]))
    assert window.tick_sample[100] == 99 * 640 + 8000


def test_the_uniform_grid_is_the_same_at_its_own_offsets() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(presets.get("tiny", TINY_SETTINGS)).eval()
    samples = torch.randn(2, ticks.window_samples(40)) * 0.1
    offsets = torch.tensor([ticks.first_sample(k) for k in range(40)])
    with torch.no_grad():
        uniform, given_ticks = encoder(samples), encoder(samples, offsets)
        apart = encoder(samples, torch.stack([offsets, offsets + 320]))
    # offsets are whole samples, the grid is not: half a sample of a token's 320
    assert (uniform - given_ticks).abs().max() <= 0.51 / 320 * (uniform[:, 1:] - uniform[:, :-1]).abs().max() * 2
    assert torch.equal(apart[0], given_ticks[0])
    assert not torch.equal(apart[1], given_ticks[1])


def test_one_token_serves_all_ticks_and_gradients_pass() -> None:
    token = torch.randn(1, 1, 3, requires_grad=True)
    rows = tokens_at(token, torch.tensor([-50, 0, 90_000]))
    assert torch.equal(rows, token.expand(1, 3, 3))
    rows.sum().backward()
    assert torch.equal(token.grad, torch.full((1, 1, 3), 3.0))


class Loudness(torch.nn.Module):
    """In place of WavLM: one token per 20 ms that holds how loud its samples are."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.abs().unfold(1, ticks.TOKEN_FIELD, ticks.TOKEN_STRIDE).mean(2)[..., None]


class Heard(torch.nn.Module):
    """In place of the fusion: what was heard is the estimate."""

    def forward(self, visual: torch.Tensor, audio: torch.Tensor, visual_mask: torch.Tensor, audio_mask: torch.Tensor) -> FusionOutput:
        heard = audio[..., :1] * audio_mask[..., None]
        return FusionOutput(heard.expand(-1, -1, 2), audio_mask, None)


@pytest.mark.parametrize("rate", [20.0, 24000 / 1001, 25.0, 30.0])
@pytest.mark.parametrize("is_native", [True, False])
def test_the_estimate_of_a_frame_is_of_the_sound_at_its_time(rate: float, is_native: bool) -> None:
    """Sound that grows louder evenly tells the time: each frame's estimate is the loudness at its own time, in windows that begin anywhere."""
    preset = presets.get("tiny", TINY_SETTINGS)
    model = SAGE(preset).eval()
    model.audio.wavlm, model.fusion = Loudness(), Heard()
    seconds = 20
    times = np.arange(round(seconds * rate)) / rate
    audio = (np.arange((seconds + 1) * SECOND) / SECOND * 1000).astype(np.int16)
    trial = dataclasses.replace(native(times, audio, round(rate)), native=is_native, rate_hz=round(rate) if is_native else 30)
    tracks = Predictor({"m": model}).tracks(trial)["m"][True, True]
    at_s = tracks["overlap"].on_frames(trial)[:, 0] * 32_768 / 1000
    late_s = at_s - times
    # a token is as wide as 25 ms, a window ends before its last token's middle, and on the uniform grid a frame takes the next tick
    assert np.abs(late_s).max() < (0.0 if is_native else 1 / 30) + 0.0335
    assert np.abs(np.median(late_s)) < (0.002 if is_native else 1 / 30)


def test_the_sound_stage_learns_from_videos_of_different_rates() -> None:
    torch.manual_seed(0)
    model = SAGE(presets.get("tiny", TINY_SETTINGS))
    rng = np.random.default_rng(0)
    trials = []
    for rate in (24000 / 1001, 25.0, 30.0):
        times = np.arange(200) / rate
        trial = native(times, rng.normal(0, 3000, round(200 / rate * SECOND)).astype(np.int16), round(rate))
        labels = np.stack([np.sin(times), np.cos(times)], 1).astype(np.float32)
        trials.append(dataclasses.replace(trial, labels=labels, labels_valid=np.ones(200, bool)))
    stage = AudioStage(model, trials, trials, dataclasses.replace(QUICK, audio_batch=6))
    stage.start(Path())
    batch = stage.batch(0, rng)
    assert len({len(window.samples) for window, _ in batch}) > 1
    stage.loss(batch).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.audio.parameters())
    with torch.no_grad():
        assert all(np.isfinite(value) for value in stage.validate().values())
