"""`sage-edge train` and `sage-edge evaluate` as a person calls them."""

import json

import pytest
from conftest_toy import QUICK, TINY_SETTINGS

from sage_edge.cli.main import main


def as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


SET = [part for key, value in {**TINY_SETTINGS, **vars(QUICK)}.items() if key != "seed" for part in ("--set", f"{key}={as_text(value)}")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toy_path):
    out = tmp_path_factory.mktemp("verbs") / "ckpt"
    assert main(["train", str(toy_path), "--out", str(out), "--seed", "3", "--threads", "1", *SET]) == 0
    return out


def test_train_then_evaluate_agree_on_the_validation_ccc(trained, toy_path, capsys):
    meta = json.loads((trained / "checkpoint.json").read_text())
    assert main(["evaluate", str(trained), str(toy_path), "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for name in ("valence", "arousal", "mean"):
        assert report["overlap"][name] == pytest.approx(meta["metrics"][f"val_{name}"], abs=1e-5)
    assert set(report) == {"checkpoint", "trained_on", "split", "overlap", "live", "without"}
    assert report["trained_on"]["synthetic"] is True


def test_the_table_has_every_row_and_video(trained, toy_path, capsys):
    assert main(["evaluate", str(trained), str(toy_path), "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:6]] == [
        "CCC, val",
        "overlap",
        "live",
        "overlap, visual masked",
        "overlap, audio masked",
        "per video, overlap",
    ]
    assert [line.split()[0] for line in lines[6:]] == ["t3", "t4"]
    assert all(len(line.split()) >= 4 for line in lines[1:5])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "{store}", "--out", "{new}", "--preset", "tinny"], 2, "did you mean 'tiny'"),
        (["train", "{store}", "--out", "{new}", "--set", "fusion_epoch=1"], 2, "did you mean 'fusion_epochs'"),
        (["train", "{store}", "--out", "{new}", "--set", "fusion_lr=fast"], 2, "fusion_lr=fast is not of type float"),
        (["train", "{store}", "--out", "{ckpt}"], 2, "exists already"),
        (["train", "{new}", "--out", "{new}.out"], 1, "no prepared store"),
        (["evaluate", "{ckpt}", "{store}", "--split", "test"], 1, "no 'test' trials"),
        (["evaluate", "{ckpt}", "{store}", "--preset", "base"], 1, "give --preset tiny"),
        (["evaluate", "{store}", "{store}"], 1, "is not a checkpoint"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(trained, toy_path, tmp_path, capsys, arguments, code, message):
    places = {"store": toy_path, "ckpt": trained, "new": tmp_path / "new"}
    assert main([argument.format(**places) for argument in arguments]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []
