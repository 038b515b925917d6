"""The command itself: verbs, help, one-line errors, exit codes, Ctrl-C and pipes, in real processes where that matters."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from sage_edge.cli.main import VERBS, main


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "sage_edge.cli.main", *map(str, args)]


def test_no_verb_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    assert all(re.search(rf"^  {verb} +\S", shown, re.M) for verb in VERBS)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sage-edge {version('sage-edge')}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_ends_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: sage-edge {verb} ")
    examples = re.findall(rf"^  (?:\$ )?sage-edge {verb} \S.*$", shown, re.M)
    assert examples, "no example in the help"


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_verb_parses(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main([verb, "--help"])
    (example, *_) = re.findall(rf"^  sage-edge {verb} (\S.*)$", capsys.readouterr().out, re.M)
    import importlib

    module = importlib.import_module(f"sage_edge.cli.{verb}")
    parsed = []
    monkeypatch.setattr(module, "run", lambda args: parsed.append(args) or 0)
    assert main([verb, *example.split()]) == 0, capsys.readouterr().err
    assert len(parsed) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_needs_no_heavy_library(verb: str) -> None:
    code = (
        f"import sys; from sage_edge.cli.main import main; main([{verb!r}, '--help'])\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'av', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["rum"], "unknown verb 'rum'; did you mean 'run'?"),
        (["xyzzy"], "unknown verb 'xyzzy'; one of synth, prepare"),
        (["run"], "the following arguments are required: NAME.sage; sage-edge run --help"),
        (["run", "x.sage", "--video", "y.mp4", "--hop", "often"], "argument --hop: invalid int value: 'often'"),
        (["run", "x.sage", "--video", "y.mp4", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_failed_verb_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "no.sage")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "no.sage" in line


def test_an_error_of_the_system_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sage_edge.cli.inspect as verb

    monkeypatch.setattr(verb, "run", lambda _args: (tmp_path / "missing" / "file").read_text())
    assert main(["inspect", "x.sage"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {tmp_path}/missing/file: No such file or directory"


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("sage_edge.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "sage_edge.cli.train", raising=False)
    assert main(["train", "store", "--preset", "tiny", "--out", "ckpt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: train needs torch, which is not installed: pip install 'sage-edge[train]'"


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_one_line_exit_130_and_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    args = command("synth", tmp_path / "corpus", "--train", 40, "--val", 40)
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob("*.mp4")):  # it is at work
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # A terminal's Ctrl-C reaches the workers as well; a supervisor's SIGTERM only the command.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "error: interrupted; nothing half-written was left behind"
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 30
    while _alive(process.pid):  # no worker is left
        assert time.monotonic() < deadline, subprocess.run(["ps", "-eo", "pid,pgid,stat,args"], capture_output=True, text=True, check=False).stdout
        time.sleep(0.05)


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    buffered = {key: value for key, value in environment().items() if key != "PYTHONUNBUFFERED"}  # so that it is written at the end
    process = subprocess.Popen(command("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    process.wait(timeout=60)
    assert stderr == ""
