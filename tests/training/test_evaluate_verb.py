"""`sage-edge evaluate` as a person calls it: several checkpoints, ensembles, smoothing, the challenge's file, the suite, and what it refuses."""

import json
import math

import numpy as np
import pytest
import torch
from conftest_toy import QUICK, TINY_SETTINGS, set_array, write_store

from sage_edge.cli import evaluate as verb
from sage_edge.cli import suite_plot
from sage_edge.cli.main import main
from sage_edge.training import SAGE, checkpoint, presets
from sage_edge.training.data.corruption import CELLS
from sage_edge.training.data.store import Store


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> checkpoint of random weights; a and b are alike but for the seed."""
    root = tmp_path_factory.mktemp("checkpoints")
    kinds = {
        "a": {},
        "b": {},
        "paper": {"reliability": "temporal"},
        "concat": {"fusion": "concat"},
        "longer": {"window": 44},
    }
    scores = {"a": (0.5, 0.1), "b": (0.2, 0.6)}
    for seed, (name, changes) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        model = SAGE(presets.get("tiny", {**TINY_SETTINGS, **changes}))
        torch.nn.init.normal_(model.fusion.out.weight)
        metrics = dict(zip(("val_valence", "val_arousal"), scores.get(name, ()), strict=False))
        checkpoint.save(root / name, model, trained_on={"name": "toy", "synthetic": True}, metrics=metrics)
    return root


@pytest.fixture
def own_store(tmp_path):
    """One trial to train on, two to validate on."""
    return write_store(tmp_path / "store", splits=("train", "val", "val"))


def run(capsys, *args):
    assert main(["evaluate", *map(str, args), "--threads", "1"]) == 0
    return capsys.readouterr().out


def test_several_checkpoints_their_ensemble_and_smoothing(folders, toy_path, capsys):
    pair = [folders / "a", folders / "b", toy_path]
    report = json.loads(run(capsys, *pair, "--ensemble", "mean", "--smooth", "all", "--json"))
    alone = json.loads(run(capsys, folders / "b", toy_path, "--json"))
    assert [one["checkpoint"] for one in report["checkpoints"]] == [str(folder) for folder in pair[:2]]
    for protocol in ("overlap", "live"):
        assert report["checkpoints"][1][protocol] == alone[protocol]
        gained = report["ensemble"]["against"]["b"][protocol]["mean"]
        assert gained == pytest.approx(report["ensemble"][protocol]["mean"] - alone[protocol]["mean"])
        for block in (*report["checkpoints"], report["ensemble"]):
            assert set(block["smooth"]) == {"one-euro 0.5 Hz, beta 1", "average 1 s"}
            for effect in block["smooth"].values():
                assert effect[protocol]["change"]["mean"] == pytest.approx(effect[protocol]["mean"] - block[protocol]["mean"])
    assert report["ensemble"]["shares"] == {"a": [0.5, 0.5], "b": [0.5, 0.5]}
    lines = run(capsys, *pair, "--ensemble", "best", "--smooth", "average:9").splitlines()
    assert "ensemble, valence of a, arousal of b" in lines
    assert {"a", "b"} <= set(lines)
    assert sum("average 0.3 s" in line and "change" in line for line in lines) == 6
    assert sum(line.startswith("  overlap, gained on ") for line in lines) == 2
    assert [line.split()[0] for line in lines[-2:]] == ["t3", "t4"]
    assert len(lines[-1].split()) == 4


def test_the_best_of_each_target_is_that_of_its_checkpoint(folders, toy_path, capsys):
    report = json.loads(run(capsys, folders / "a", folders / "b", toy_path, "--ensemble", "best", "--json"))
    for protocol in ("overlap", "live"):
        assert report["ensemble"][protocol]["valence"] == report["checkpoints"][0][protocol]["valence"]
        assert report["ensemble"][protocol]["arousal"] == report["checkpoints"][1][protocol]["arousal"]


def test_equal_labels_are_said_in_words_and_null_in_json(folders, own_store, capsys):
    still = np.float32([0.25, -0.5])
    set_array(own_store, "t1", "labels", lambda labels: np.tile(still, (len(labels), 1)))
    text = run(capsys, folders / "a", own_store)
    (line,) = (line for line in text.splitlines() if line.startswith("  t1"))
    assert line.split() == ["t1", *["undefined"] * 3, "(all", "labels", "equal)"]
    assert "nan" not in text.lower()
    set_array(own_store, "t2", "labels", lambda labels: np.stack([np.full(len(labels), 0.25, np.float32), labels[:, 1]], 1))
    both = [folders / "a", folders / "b", own_store, "--ensemble", "mean", "--smooth", "all"]
    text = run(capsys, *both)
    assert "undefined" in text
    assert "(valence: all labels equal)" in text
    assert "nan" not in text.lower()
    report = json.loads(run(capsys, *both, "--json"), parse_constant=pytest.fail)
    pooled = report["ensemble"]["overlap"]
    assert pooled["valence"] is None
    assert pooled["mean"] is None
    assert math.isfinite(pooled["arousal"])
    assert pooled["undefined"] == {"valence": "all labels equal"}
    suite = json.loads(run(capsys, folders / "a", own_store, "--suite", "--json"), parse_constant=pytest.fail)
    assert suite["suite"]["modality"]["clean"]["mean"] is None
    assert "undefined  (valence: all labels equal)" in run(capsys, folders / "a", own_store, "--suite")


def test_training_keeps_the_last_epoch_where_the_validation_ccc_is_undefined(own_store, tmp_path, capsys):
    for trial in ("t1", "t2"):
        set_array(own_store, trial, "labels", lambda labels: np.full_like(labels, 0.25))
    settings = {**TINY_SETTINGS, **vars(QUICK), "visual_epochs": 0, "audio_epochs": 0}
    texts = (f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}" for key, value in settings.items() if key != "seed")
    out = tmp_path / "ckpt"
    assert main(["train", str(own_store), "--out", str(out), "--threads", "1", *(part for text in texts for part in ("--set", text))]) == 0
    assert "valence undefined  arousal undefined  mean undefined" in capsys.readouterr().out
    meta = json.loads((out / "checkpoint.json").read_text(), parse_constant=pytest.fail)
    assert meta["epoch"] == QUICK.fusion_epochs
    assert meta["metrics"]["val_mean"] is None
    entries = [json.loads(line, parse_constant=pytest.fail) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(entry["loss"]) for entry in entries)
    assert main(["evaluate", str(out), str(own_store)]) == 0


def test_windows_without_a_valid_frame_sound_or_face_are_finite(folders, own_store, capsys):
    for trial in ("t1", "t2"):
        set_array(own_store, trial, "frame_face", lambda rows: np.where((np.arange(len(rows)) >= 30) & (np.arange(len(rows)) < 130), -1, rows))
        set_array(own_store, trial, "labels_valid", lambda valid: valid & ((np.arange(len(valid)) < 30) | (np.arange(len(valid)) >= 130)))
    report = json.loads(run(capsys, folders / "a", own_store, "--json"), parse_constant=pytest.fail)
    assert all(math.isfinite(report[protocol]["mean"]) for protocol in ("overlap", "live"))
    assert report["overlap"]["undefined"] == {}


def test_a_split_without_labels_is_predicted_and_has_no_ccc(folders, own_store, tmp_path, capsys):
    for trial in ("t1", "t2"):
        set_array(own_store, trial, "labels_valid", np.zeros_like)
    out = tmp_path / "out" / "submission"
    said = run(capsys, folders / "a", own_store, "--submission", out).splitlines()
    assert said[0] == "no CCC: no frame of the val split has a label"
    rows = (out / "predictions.txt").read_text().splitlines()[1:]
    assert said[1] == f"wrote {out / 'predictions.txt'}: {len(rows)} frames of 2 videos"
    frames = [len(trial.frame_t_ns) for trial in Store.open(own_store).trials("val")]
    assert len(rows) == sum(frames)
    report = json.loads(run(capsys, folders / "a", own_store, "--submission", tmp_path / "again", "--json"))
    assert report["overlap"] is None
    assert report["submission"]["rows"] == sum(frames)
    assert main(["evaluate", str(folders / "a"), str(own_store)]) == 1
    assert "--submission DIR writes predictions without one" in capsys.readouterr().err


def test_a_submission_holds_the_smoothed_ensemble(folders, toy_path, tmp_path, capsys):
    for name, checkpoints, options in (
        ("a", ["a"], []),
        ("b", ["b"], []),
        ("both", ["a", "b"], ["--ensemble", "mean"]),
        ("smooth", ["a", "b"], ["--ensemble", "mean", "--smooth", "average:5"]),
    ):
        run(capsys, *(folders / label for label in checkpoints), toy_path, *options, "--submission", tmp_path / name)
    a, b, both, smooth = (
        np.loadtxt(tmp_path / name / "predictions.txt", delimiter=",", skiprows=1, usecols=(1, 2)) for name in ("a", "b", "both", "smooth")
    )
    assert both == pytest.approx((a + b) / 2, abs=2e-6)
    assert smooth[20] == pytest.approx(both[18:23].mean(0), abs=2e-6)


def test_the_suite_has_a_column_per_checkpoint_and_a_plot(folders, toy_path, tmp_path, capsys):
    given = [folders / "a", folders / "paper", folders / "concat", toy_path, "--suite"]
    plot = tmp_path / "plots" / "suite.svg"
    report = json.loads(run(capsys, *given, "--seed", "4", "--plot", plot, "--json"), parse_constant=pytest.fail)
    assert list(report["cells"]) == sorted(CELLS)
    assert set(report["suite"]) == {"modality", "temporal", "concat"}
    assert report["cells"]["noface"]["masked"] is True
    assert all(set(by_cell) == set(CELLS) for by_cell in report["suite"].values())
    assert plot.read_text().startswith("<?xml")
    first = plot.read_bytes()
    text = run(capsys, *given, "--seed", "4", "--plot", plot)
    assert plot.read_bytes() == first, "the same figures, the same drawing"
    assert [path.name for path in plot.parent.iterdir()] == ["suite.svg"]
    lines = text.splitlines()
    assert lines[0].split() == ["suite,", "val,", "seed", "4", "modality", "temporal", "concat"]
    assert [line.split()[0] for line in lines[2 : 2 + len(CELLS)]] == list(CELLS)
    (masked,) = (line for line in lines if "masked" in line)
    assert masked.startswith("noface")
    snr = next(line for line in lines if line.startswith("snr0 ")).split()
    figures = report["suite"]
    expected = [figures["modality"]["snr0"]["mean"], figures["modality"]["snr0"]["mean"] - figures["modality"]["clean"]["mean"]]
    assert [float(part) for part in snr[2:4]] == pytest.approx(expected, abs=6e-4)
    assert float(snr[4]) == pytest.approx(figures["modality"]["snr0"]["weight_audio"], abs=6e-3)


def test_the_plot_is_drawn_for_any_models_also_where_nothing_is_defined(tmp_path):
    cells = {name: {"modality": cell.modality, "severity": cell.severity, "masked": cell.masked} for name, cell in CELLS.items()}
    nothing = {"mean": math.nan, "weight_visual": None, "weight_audio": None, "temporal_spread": None}
    report = {"split": "val", "seed": 0, "cells": cells, "suite": {"concat": dict.fromkeys(cells, nothing)}}
    suite_plot.write(tmp_path / "suite.png", report)
    assert (tmp_path / "suite.png").read_bytes().startswith(b"\x89PNG")


def test_labels_tell_checkpoints_apart(tmp_path):
    from sage_edge.runtime.errors import UsageError

    assert verb.labels([tmp_path / "x" / "ckpt"]) == ["ckpt"]
    assert verb.labels([tmp_path / "x" / "ckpt", tmp_path / "y" / "ckpt"]) == ["x/ckpt", "y/ckpt"]
    assert verb.labels([tmp_path / "x" / "ensemble"]) == ["x/ensemble"]
    with pytest.raises(UsageError, match="given twice"):
        verb.labels([tmp_path, tmp_path])
    base = presets.get("base")
    kinds = {"p": base.replace({"reliability": "temporal"}), "q": base, "r": base, "s": base.replace({"fusion": "concat"})}
    assert verb.arm_labels(kinds) == {"p": "temporal", "q": "q", "r": "r", "s": "concat"}
    folders_named_like_kinds = {"modality": kinds["p"], "x": kinds["p"], "y": base}
    assert verb.arm_labels(folders_named_like_kinds) == {label: label for label in folders_named_like_kinds}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{a}", "{store}", "--ensemble", "mean"], 2, "give two or more"),
        (["{a}", "{concat}", "{store}", "--ensemble", "best"], 2, "concat has no validation CCC of valence"),
        (["{a}", "{longer}", "{store}"], 2, "a has window=40, longer window=44"),
        (["{a}", "{a}", "{store}"], 2, "given twice"),
        (["{a}", "{store}", "--smooth", "one-uero"], 2, "smoothing 'one-uero' is unknown"),
        (["{a}", "{store}", "--smooth", "average:0"], 2, "is no filter"),
        (["{a}", "{b}", "{store}", "--submission", "{new}"], 2, "add --ensemble mean or best"),
        (["{a}", "{store}", "--submission", "{new}", "--smooth", "all"], 2, "give one of them"),
        (["{a}", "{store}", "--submission", "{a}"], 2, "exists already"),
        (["{a}", "{store}", "--suite", "--smooth", "all"], 2, "leave --smooth away"),
        (["{a}", "{b}", "{store}", "--suite", "--ensemble", "mean"], 2, "leave --ensemble away"),
        (["{a}", "{store}", "--plot", "{new}.svg"], 2, "give --suite too"),
        (["{a}", "{store}", "--suite", "--plot", "{new}.gif"], 2, "neither .svg nor .png"),
        (["{a}", "{store}", "--suite", "--seed", "-1"], 2, "--seed -1 must be at least 0"),
        (["{a}", "{store}", "--suite", "--split", "test"], 1, "no 'test' trials"),
        (["{a}", "{store}", "--device", "tpu"], 2, "--device"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(folders, toy_path, tmp_path, capsys, arguments, code, message):
    places = {"store": toy_path, "new": tmp_path / "new", **{name: folders / name for name in ("a", "b", "concat", "longer")}}
    assert main(["evaluate", *(argument.format(**places) for argument in arguments)]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert list(tmp_path.iterdir()) == []
