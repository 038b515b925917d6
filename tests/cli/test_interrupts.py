"""Ctrl-C in the midst of every long verb: one line, exit code 130, nothing half-written; and the small chain they are interrupted in."""

import json
import signal
from pathlib import Path

import pytest

from sage_edge.cli import demo as demo_verb
from sage_edge.cli import plain
from sage_edge.cli.main import main
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.progress import Progress

QUICK = {
    "visual_epochs": 1,
    "visual_faces": 128,
    "visual_batch": 32,
    "audio_epochs": 1,
    "audio_windows": 4,
    "audio_ticks": 60,
    "fusion_epochs": 1,
    "fusion_windows": 4,
    "fusion_batch": 2,
}
SETTINGS = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three people, its store, a checkpoint that learned next to nothing, its bundle: all by the command."""
    root = tmp_path_factory.mktemp("chain")
    data = ["--data", f"{root}/store"]
    assert main(["synth", f"{root}/corpus", "--train", "2", "--val", "1", "--seconds", "5"]) == 0
    assert main(["prepare", f"{root}/corpus", f"{root}/store"]) == 0
    assert main(["train", f"{root}/store", "--out", f"{root}/checkpoint", *SETTINGS]) == 0
    assert main(["compile", f"{root}/checkpoint", *data, "--out", f"{root}/some.sage", "--max-drop", "2", "--clips", "2"]) == 0
    return root


LONG = {
    "synth": ["synth", "{out}/corpus", "--train", "2", "--val", "1", "--seconds", "5"],
    "prepare": ["prepare", "{root}/corpus", "{out}/store"],
    "train": ["train", "{root}/store", "--out", "{out}/checkpoint", *SETTINGS],
    "evaluate": ["evaluate", "{root}/checkpoint", "{root}/store"],
    "calibrate": ["calibrate", "{root}/checkpoint", "--data", "{root}/store", "--out", "{out}/ranges.json", "--clips", "2"],
    "search": ["calibrate", "{root}/checkpoint", "--data", "{root}/store", "--out", "{out}/ranges.json", "--clips", "2", "--search"],
    "compile": ["compile", "{root}/checkpoint", "--data", "{root}/store", "--out", "{out}/other.sage", "--clips", "2"],
    "verify": ["verify", "{root}/some.sage", "--data", "{root}/store"],
    "profile": ["profile", "{root}/some.sage", "--seconds", "5", "--size", "160x120"],
    "demo": ["demo", "--out", "{out}/demo"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", LONG)
def test_an_interrupt_is_one_line_and_leaves_nothing(
    verb: str, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Progress.step

    def interrupted(self: Progress, n: int = 1, note: str | None = None) -> None:
        step(self, n, note)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "step", interrupted)
    assert main([part.format(root=chain, out=tmp_path) for part in LONG[verb]]) == 130
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.splitlines()[-1].startswith("error: interrupted")
    assert captured.out == ""
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"checkpoint.run", "store.partial"}, "only training and preparing keep what --resume goes on from"


@pytest.mark.slow
@pytest.mark.nightly
def test_a_small_demo_writes_what_it_promises_and_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    for name in (*demo_verb.NAMES, "litter"):
        (out / name).touch()
    training = {key: str(value) for key, value in QUICK.items()}
    summary = demo_verb.demo(out, 1, corpus={"train": 2, "val": 1, "seconds": 5.0}, training=training, max_drop=2.0)
    assert json.loads(plain.dumps(summary)) == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["seed"] == 1
    assert not (out / "litter").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert set(demo_verb.NAMES) <= {path.name for path in out.iterdir()}
    for protocol in ("overlap", "live"):
        for precision in ("fp32", "int8"):
            for dimension in ("valence", "arousal", "mean"):
                assert -1 <= summary["ccc"][protocol][precision][dimension] <= 1
                low, high = summary["ccc_interval"][protocol][precision][dimension]
                assert low <= high
    assert {"face", "crop", "visual", "audio", "fusion", "hop"} <= set(summary["latency_ms"])
    assert all({"p50", "p95", "p99"} <= set(stage) for stage in summary["latency_ms"].values())
    assert set(summary["seconds"]) == {"synth", "prepare", "train", "compile", "verify", "profile", "run"}
    assert summary["real_time_factor"] > 0
    assert {"machine", "versions", "peak_rss_mb", "weights_bytes", "ccc_without"} <= set(summary)


def test_a_folder_that_is_no_demo_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(UsageError, match="is no demo"):
        demo_verb.demo(tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").exists()
