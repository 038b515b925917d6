"""The suite: its cells through the obvious way, work that is shared, weights that are what the model says, and a seed that fixes it all."""

import functools
import weakref

import numpy as np
import pytest
import torch
from conftest_toy import set_array, write_store

from sage_edge.runtime.errors import DataError
from sage_edge.training import SAGE, evaluation, features
from sage_edge.training.data import protocols
from sage_edge.training.data.corruption import CELLS, corrupted
from sage_edge.training.data.store import Store
from sage_edge.training.evaluation import gather
from sage_edge.training.prediction import by_encoders
from sage_edge.training.suite import run_suite

FEW = {name: CELLS[name] for name in ("clean", "snr0", "silence", "occlusion50", "noface", "shift+250")}


def make(preset, seed=0, **changes):
    torch.manual_seed(seed)
    model = SAGE(preset.replace(changes)).eval()
    torch.nn.init.normal_(model.fusion.out.weight)
    return model


def with_encoders_of(model, other):
    model.visual.load_state_dict(other.visual.state_dict())
    model.audio.load_state_dict(other.audio.state_dict())
    return model


def test_a_cell_is_the_overlap_ccc_of_corrupted_trials(toy, toy_preset):
    model = make(toy_preset)
    result = run_suite({"m": model}, toy, seed=3, cells=FEW)["m"]
    trials = toy.trials("val")
    for name, cell in FEW.items():
        frames = {
            trial.name: evaluation.predict_trial(model, corrupted(trial, cell, 3), [(True, True)], ["overlap"])[True, True]["overlap"]
            for trial in trials
        }
        expected = protocols.score(frames, trials)
        for key in ("valence", "arousal", "mean"):
            assert result[name][key] == pytest.approx(expected[key], abs=1e-5), name
    assert result["clean"]["mean"] == pytest.approx(evaluation.evaluate(model, toy)["overlap"]["mean"], abs=1e-6)
    assert result["snr0"]["mean"] != result["clean"]["mean"]


def test_the_seed_fixes_every_figure(toy, toy_preset):
    models = {"m": make(toy_preset)}
    first, again, other = (run_suite(models, toy, seed=seed, cells=FEW) for seed in (0, 0, 1))
    assert first == again
    assert first["m"]["snr0"] != other["m"]["snr0"]
    assert first["m"]["clean"] == other["m"]["clean"]


def test_what_a_cell_leaves_alone_is_encoded_once_whatever_the_number_of_models(toy, toy_preset):
    models = {kind: make(toy_preset, seed=kind == "concat", fusion=kind) for kind in ("sage", "concat")}
    with_encoders_of(models["concat"], models["sage"])
    assert by_encoders(models) == [["sage", "concat"]]
    counts = dict.fromkeys(("faces", "windows"), 0)

    def counting(name):
        return lambda _module, args: counts.update({name: counts[name] + len(args[0])})

    hooks = [model.visual.register_forward_pre_hook(counting("faces")) for model in models.values()]
    hooks += [model.audio.register_forward_pre_hook(counting("windows")) for model in models.values()]
    run_suite(models, toy, cells=FEW)
    for hook in hooks:
        hook.remove()
    trials = toy.trials("val")
    windows = sum(len(protocols.window_ends(trial.n_ticks, 40, 40)) for trial in trials)
    assert counts["faces"] == 2 * sum(len(trial.faces) for trial in trials), "clean and occlusion50; noface has none"
    assert counts["windows"] == 4 * windows, "clean, snr0, silence, shift+250"


def test_models_with_other_encoders_are_kept_apart(toy, toy_preset):
    a, b = make(toy_preset), make(toy_preset, seed=1)
    same = with_encoders_of(make(toy_preset, seed=2), a)
    assert by_encoders({"a": a, "b": b, "same": same}) == [["a", "same"], ["b"]]
    assert by_encoders({"a": a, "wide": make(toy_preset, input_size=48)}) == [["a"], ["wide"]]
    together = run_suite({"a": a, "b": b, "same": same}, toy, cells=FEW)
    assert together["b"] == run_suite({"b": b}, toy, cells=FEW)["b"]
    assert together["a"] == run_suite({"a": a}, toy, cells=FEW)["a"]


def known_weights(_fusion, inputs, output):
    """Visual 0.8, audio 0.2 wherever both masks are on."""
    weights = torch.stack(inputs[2:4], dim=2) * torch.tensor([0.8, 0.2])
    return output._replace(modality=weights / weights.sum(2, keepdim=True).clamp(min=1e-9))


def test_weights_are_those_of_frames_with_both_senses(toy, toy_preset):
    modality, temporal, concat = make(toy_preset), make(toy_preset, reliability="temporal"), make(toy_preset, fusion="concat")
    modality.fusion.register_forward_hook(known_weights)
    result = run_suite({"modality": modality, "temporal": temporal, "concat": concat}, toy, cells=FEW)
    for name, figures in result["modality"].items():
        expected = 0.0 if FEW[name].masked else 0.8
        assert figures["weight_visual"] == pytest.approx(expected, abs=1e-5), name
        assert figures["weight_audio"] == pytest.approx(1 - expected, abs=1e-5), name
    assert {
        figures[f"weight_{sense}"] for label in ("temporal", "concat") for figures in result[label].values() for sense in ("visual", "audio")
    } == {None}
    assert result["temporal"]["clean"]["temporal_spread"] > 0
    assert result["concat"]["clean"]["temporal_spread"] == 0


def test_a_trial_without_sound_has_a_ccc_and_no_weights(tmp_path, toy_preset):
    store = Store.open(write_store(tmp_path / "store", splits=("train", "train", "val")))
    result = run_suite({"m": make(toy_preset)}, store, cells=FEW)["m"]
    assert all(np.isfinite(figures["mean"]) and figures["weight_visual"] is None for figures in result.values())


def test_a_split_without_labels_is_refused(toy_path, tmp_path, toy_preset):
    store = Store.open(write_store(tmp_path / "store", splits=("train", "val", "val")))
    for trial in ("t1", "t2"):
        set_array(store.path, trial, "labels_valid", np.zeros_like)
    with pytest.raises(DataError, match="no frame of the 'val' split"):
        run_suite({"m": make(toy_preset)}, store)
    with pytest.raises(DataError, match="no 'test' trials"):
        run_suite({"m": make(toy_preset)}, store, split="test")


def test_models_are_left_as_they_were(toy, toy_preset):
    model = make(toy_preset).train()
    run_suite({"m": model}, toy, cells={"clean": CELLS["clean"]})
    assert model.training


@pytest.mark.parametrize("work", [functools.partial(run_suite, cells=FEW), gather])
def test_the_features_of_one_trial_are_gone_when_the_next_begins(toy, toy_preset, monkeypatch, work):
    encode, alive, trials = features.encode_faces, [], set()

    def watched(model, trial):
        if trial.name not in trials:
            assert not any(reference() is not None for reference in alive), f"features are still held when {trial.name} begins"
        trials.add(trial.name)
        rows = encode(model, trial)
        alive.append(weakref.ref(rows))
        return rows

    monkeypatch.setattr(features, "encode_faces", watched)
    work({"m": make(toy_preset)}, toy, split="train")
    assert len(trials) == 3
