"""Ensembles: shares that add up, each target from where it was best, and refusals."""

import math

import numpy as np
import pytest
import torch

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.smoothing import Smoothing
from sage_edge.training import SAGE, evaluation
from sage_edge.training.data import protocols
from sage_edge.training.ensemble import best_of, check_alike, mean_of
from sage_edge.training.prediction import BOTH, Track

KINDS = [(p, BOTH) for p in ("overlap", "live")]


def tracks(n=9, count=3):
    rng = np.random.default_rng(0)
    t_ns = np.arange(n, dtype=np.int64)
    return {f"m{i}": Track("live", t_ns, rng.uniform(-1, 1, (n, 2)).astype(np.float32)) for i in range(count)}


def test_the_mean_is_the_mean_and_equal_models_change_nothing():
    given = tracks()
    both = mean_of(list(given)).combine(given)
    assert np.allclose(both.values, np.mean([track.values for track in given.values()], axis=0), atol=1e-7)
    assert both.protocol == "live"
    same = dict.fromkeys(("a", "b", "c"), given["m0"])
    assert np.allclose(mean_of(list(same)).combine(same).values, given["m0"].values, atol=1e-7)


def test_each_target_comes_from_the_model_that_was_best_at_it():
    given = tracks()
    metrics = {
        "m0": {"val_valence": 0.4, "val_arousal": 0.9},
        "m1": {"val_valence": 0.6, "val_arousal": 0.1},
        "m2": {"val_valence": 0.6, "val_arousal": -0.2},
    }
    both = best_of(metrics)
    assert both.chosen == {"valence": "m1", "arousal": "m0"}
    combined = both.combine(given).values
    assert np.array_equal(combined[:, 0], given["m1"].values[:, 0])
    assert np.array_equal(combined[:, 1], given["m0"].values[:, 1])


@pytest.mark.parametrize("value", [None, math.nan, "0.5"])
def test_a_checkpoint_that_does_not_say_its_ccc_is_refused(value):
    metrics = {"a": {"val_valence": 0.1, "val_arousal": 0.2}, "b": {"val_valence": 0.1, "val_arousal": value}}
    with pytest.raises(UsageError, match="b has no validation CCC of arousal"):
        best_of(metrics)
    del metrics["b"]["val_arousal"]
    with pytest.raises(UsageError, match="b has no validation CCC of arousal"):
        best_of(metrics)


def test_one_model_is_no_ensemble_and_rates_must_agree(toy_preset):
    for make in (mean_of, best_of):
        with pytest.raises(UsageError, match="give two or more"):
            make({"a": {"val_valence": 0.1, "val_arousal": 0.2}})
    models = {"a": SAGE(toy_preset), "b": SAGE(toy_preset.replace({"window": 44}))}
    with pytest.raises(UsageError, match="a has window=40, b window=44"):
        check_alike(models)
    check_alike({"a": models["a"], "b": SAGE(toy_preset.replace({"fusion_dim": 8}))})


def test_an_ensemble_is_gathered_scored_and_compared(toy, toy_preset):
    models = {}
    for i, name in enumerate(("a", "b")):
        torch.manual_seed(i)
        models[name] = SAGE(toy_preset.replace({"fusion_dim": 16 + 8 * i}))
        torch.nn.init.normal_(models[name].fusion.out.weight)
    smoothing = Smoothing.parse("average:9")
    variants = [BOTH, *evaluation.WITHOUT.values()]
    found = evaluation.gather(models, toy, variants=variants, ensemble=mean_of(["a", "b"]), smoothings=[smoothing])
    blocks = evaluation.report(found)
    assert list(blocks) == ["a", "b", "ensemble"]
    trials = toy.trials("val")
    single = {name: evaluation.gather({name: model}, toy).frames[name] for name, model in models.items()}
    for name in ("overlap", "live"):
        mean = {t.name: (single["a"][name, BOTH, None][t.name] + single["b"][name, BOTH, None][t.name]) / 2 for t in trials}
        expected = protocols.score(mean, trials)
        own = blocks["ensemble"]
        assert own[name]["mean"] == pytest.approx(expected["mean"], abs=1e-6)
        for model in models:
            assert blocks[model][name]["mean"] == pytest.approx(evaluation.evaluate(models[model], toy)[name]["mean"], abs=1e-6)
            assert own["against"][model][name]["mean"] == pytest.approx(expected["mean"] - blocks[model][name]["mean"], abs=1e-6)
        effect = own["smooth"]["average 0.3 s"][name]
        assert effect["change"]["valence"] == pytest.approx(effect["valence"] - own[name]["valence"])
        assert effect["valence"] != own[name]["valence"]


def test_smoothing_is_centred_on_frames_and_causal_on_hops(toy, toy_preset):
    torch.manual_seed(0)
    model = SAGE(toy_preset)
    torch.nn.init.normal_(model.fusion.out.weight)
    smoothings = [Smoothing.parse("average:1s"), Smoothing.parse("one-euro")]
    found = evaluation.gather({"m": model}, toy, smoothings=smoothings).frames["m"]
    (trial, _) = toy.trials("val")
    raw = found["overlap", BOTH, None][trial.name]
    average = found["overlap", BOTH, smoothings[0]][trial.name]
    assert np.allclose(average[60], raw[45:75].mean(0), atol=1e-5)
    held = found["live", BOTH, None][trial.name]
    trailing = found["live", BOTH, smoothings[0]][trial.name]
    # hops come every half second: the one that holds and the one before it
    assert np.allclose(trailing[60], (held[60] + held[45]) / 2, atol=1e-5)
    assert all(np.isfinite(found[kind][trial.name]).all() for kind in found)
