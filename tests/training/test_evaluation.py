"""Evaluation: both protocols against slow, obvious versions, and masks that are off throughout."""

import numpy as np
import pytest
import torch
from conftest_toy import write_store

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import CheckpointError, DataError, UsageError
from sage_edge.runtime.metrics import ccc
from sage_edge.training import SAGE, evaluate, inputs
from sage_edge.training.data.corruption import CELLS
from sage_edge.training.data.store import Store
from sage_edge.training.data.windows import window_at
from sage_edge.training.evaluation import ccc_without, full_report, live_ends
from sage_edge.training.suite import run_suite


@pytest.fixture
def model(toy_preset):
    torch.manual_seed(0)
    model = SAGE(toy_preset).eval()
    torch.nn.init.normal_(model.fusion.out.weight)
    return model


@torch.no_grad()
def estimate(model, trial, newest, visual=True, audio=True):
    """[W, 2] through SAGE.forward, one window at a time."""
    window = window_at(trial, newest, model.preset.window)
    faces = torch.from_numpy(inputs.central(window.faces, model.preset))[None]
    masks = (torch.from_numpy(mask.astype(np.float32))[None] * on for mask, on in ((window.visual_mask, visual), (window.audio_mask, audio)))
    return model(faces, torch.from_numpy(window.samples)[None], *masks).estimates[0].numpy()


def pooled(guesses, trials):
    valid = [trial.labels_valid for trial in trials]
    both = [np.concatenate([rows[on] for rows, on in zip(side, valid, strict=True)]) for side in (guesses, [trial.labels for trial in trials])]
    return [ccc(both[0][:, i], both[1][:, i]) for i in range(2)]


@pytest.mark.parametrize(("visual", "audio"), [(True, True), (False, True), (True, False), (False, False)])
def test_both_protocols_equal_the_obvious_way(model, toy, visual, audio):
    trials, length = toy.trials("val"), model.preset.window
    overlap, live = [], []
    for trial in trials:
        rows = np.zeros((trial.n_ticks, 2))
        ends = [*range(length - 1, trial.n_ticks - 1, length), trial.n_ticks - 1]
        count = np.zeros(trial.n_ticks)
        for newest in ends:
            rows[newest - length + 1 : newest + 1] += estimate(model, trial, newest, visual, audio)
            count[newest - length + 1 : newest + 1] += 1
        rows /= count[:, None]
        overlap.append(rows[[ticks.tick_at_or_after(int(t)) for t in trial.frame_t_ns]])
        held, frames = np.zeros(2), []
        newest_at = {ticks.tick_time_ns(k): k for k in live_ends(trial.n_ticks)}
        stamps = sorted(newest_at)
        for t in trial.frame_t_ns:
            while stamps and stamps[0] <= t:
                held = estimate(model, trial, newest_at[stamps.pop(0)], visual, audio)[-1]
            frames.append(held)
        live.append(np.array(frames))
    result = evaluate(model, toy, visual=visual, audio=audio)
    for name, guesses in (("overlap", overlap), ("live", live)):
        expected = pooled(guesses, trials)
        assert [result[name]["valence"], result[name]["arousal"]] == pytest.approx(expected, abs=1e-5)
        assert result[name]["mean"] == pytest.approx(sum(expected) / 2, abs=1e-5)
        assert set(result[name]["per_video"]) == {trial.name for trial in trials}


def test_the_report_is_its_parts(model, toy):
    report = full_report(model, toy)
    whole, without = evaluate(model, toy), ccc_without(model, toy)
    for name in ("overlap", "live"):
        assert report[name]["mean"] == pytest.approx(whole[name]["mean"], abs=1e-6)
    for name in ("visual", "audio"):
        assert report["without"][name]["mean"] == pytest.approx(without[name]["mean"], abs=1e-6)
    assert without["visual"]["mean"] == pytest.approx(evaluate(model, toy, visual=False)["overlap"]["mean"], abs=1e-6)


def test_it_leaves_the_model_as_it_was(model, toy):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, toy, split="train")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_live_ends_are_the_hops_and_the_rest():
    assert live_ends(45) == [14, 29, 44]
    assert live_ends(47) == [14, 29, 44, 46]
    assert live_ends(5) == [4]
    assert live_ends(3, hop=1) == [0, 1, 2]


def test_a_missing_split_or_another_rate_is_refused(model, toy, toy_preset):
    with pytest.raises(DataError, match="no 'test' trials"):
        evaluate(model, toy, split="test")
    with pytest.raises(UsageError, match="30 ticks a second, the model 25"):
        evaluate(SAGE(toy_preset.replace({"rate_hz": 25})), toy)


def test_faces_of_another_size_are_refused(model, toy, toy_preset):
    larger = SAGE(toy_preset.replace({"face_size": 64}))
    for call in (evaluate, lambda model, store: run_suite({"m": model}, store)):
        with pytest.raises(UsageError, match="faces of 48 pixels, the model takes 64"):
            call(larger, toy)


def test_a_native_store_is_evaluated_at_its_frames(model, tmp_path):
    native, grid = (Store.open(write_store(tmp_path / str(rate), rate=rate)) for rate in ("native", 30))
    cells = {name: CELLS[name] for name in ("clean", "snr0", "occlusion50")}
    result, expected = (run_suite({"m": model}, store, cells=cells)["m"] for store in (native, grid))
    # frames every 33.33 ms are ticks as good as those of the grid
    for cell in cells:
        assert result[cell]["mean"] == pytest.approx(expected[cell]["mean"], abs=0.02)
    assert evaluate(model, native)["live"]["mean"] == pytest.approx(evaluate(model, grid)["live"]["mean"], abs=0.02)


def test_weights_that_diverged_are_said_and_no_nan_comes_out(model, toy):
    torch.nn.init.constant_(model.fusion.out.bias, float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        evaluate(model, toy)


def test_a_trial_without_sound_is_evaluated(model, tmp_path):
    store = Store.open(write_store(tmp_path / "store", splits=("train", "train", "val")))
    assert len(store.trials("val")[0].audio) == 0
    assert np.isfinite(evaluate(model, store)["live"]["mean"])
