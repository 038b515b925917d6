"""What settings mean: the file that is shipped is accepted by `sage-edge run` itself, as it is and with every example switched on."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from sage_edge.cli import run as run_verb
from sage_edge.jetson.service import command
from sage_edge.jetson.service_settings import is_yes, option_value, read_settings, run_words, wants_network
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.sources.uri import parse_camera, parse_microphone

CONF = Path(__file__).parents[2] / "jetson/systemd/sage-edge.conf"


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    run_verb.configure(parser)
    return parser.parse_args(["NAME.sage", *words])


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sage-edge.conf"
    path.write_text(text)
    return path


def test_run_takes_the_shipped_settings_and_every_example_in_them(tmp_path: Path) -> None:
    text = CONF.read_text()
    for settings in (text, re.sub(r"^#(SAGE_EDGE_[A-Z_]+=)", r"\1", text, flags=re.MULTILINE)):
        read = read_settings(written(tmp_path, settings))
        args = parsed(run_words(read))
        assert parse_camera(args.camera) is not None
        assert parse_microphone(args.mic) is not None
        assert (args.precision, args.backend) == ("auto", "auto")
        assert wants_network(run_words(read)) is None
        assert not is_yes(read.get("SAGE_EDGE_ALLOW_DEMO"))
    assert args.out == ["jsonl:/var/log/sage-edge/estimates.jsonl?append=1"]
    assert args.hop == 15


def test_settings_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    text = '# A=1\n; B=2\n\n C = plain words  \nD="a \'b\' c"\nE=\'x "y"\'\nF=\nG=a=b\nC2="two" "parts"\n'
    assert read_settings(written(tmp_path, text)) == {"C": "plain words", "D": "a 'b' c", "E": 'x "y"', "F": "", "G": "a=b", "C2": "two parts"}
    assert read_settings(tmp_path / "missing") == {}


@pytest.mark.parametrize("line", ["SAGE_EDGE_CAMERA", "SAGE EDGE=1", 'A="open'])
def test_a_line_that_is_no_setting_is_refused_by_its_number_or_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"line 2|^A "):
        read_settings(written(tmp_path, f"OK=1\n{line}\n"))


def test_no_device_is_said_so_and_the_owner_may_choose_precision_and_backend() -> None:
    assert parsed(run_words({})).camera == "none"
    args = parsed(run_words({"SAGE_EDGE_MIC": "mic:USB Audio", "SAGE_EDGE_OPTIONS": "--precision=int8 --backend tensorrt --out 'csv:a b.csv'"}))
    assert (args.mic, args.precision, args.backend, args.out) == ("mic:USB Audio", "int8", "tensorrt", ["csv:a b.csv"])
    with pytest.raises(UsageError, match="SAGE_EDGE_OPTIONS"):
        run_words({"SAGE_EDGE_OPTIONS": "--out 'open"})


def test_the_last_of_an_option_counts() -> None:
    assert option_value(["--hop", "3", "--hop=5"], "--hop") == "5"
    assert option_value(["--hopping", "3"], "--hop") is None


@pytest.mark.parametrize(
    "options",
    ["--serve 0.0.0.0:80 --token t", "--serve=localhost:1", "--out ws://h:1", "--out=mqtt://u:p@h/t", "--out mqtts://h/t", "--out prometheus://h:1"],
)
def test_outputs_that_need_a_network_are_refused_without_one_and_no_secret_is_shown(release: Path, options: str) -> None:
    environ = {"SAGE_EDGE_OPTIONS": options, "INVOCATION_ID": "0"}
    with pytest.raises(UsageError, match=r"has no network; sudo install -D .*sage-edge-network.conf") as caught:
        command(release, environ)
    assert "p@h" not in str(caught.value)
    assert command(release, {**environ, "SAGE_EDGE_NETWORK": "yes"})[0] == str(release / "bin/sage-edge")
    assert command(release, {"SAGE_EDGE_OPTIONS": options})


def test_a_camera_in_the_network_needs_one(release: Path) -> None:
    with pytest.raises(UsageError, match="no network"):
        command(release, {"SAGE_EDGE_CAMERA": "rtsp://u:p@h/x", "INVOCATION_ID": "0"})
    assert command(release, {"SAGE_EDGE_CAMERA": "csi://0", "INVOCATION_ID": "0"})[1:3] == ["run", str(release / "model/tiny.sage")]


def test_yes_and_no_are_words_and_anything_else_is_refused() -> None:
    assert [is_yes(word) for word in ("1", "Yes", "true", "on", "0", "no", "False", "off", "", None)] == [True] * 4 + [False] * 6
    with pytest.raises(UsageError, match="neither yes nor no"):
        is_yes("maybe")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    from released import make_release, make_system

    from sage_edge.jetson.layout import Layout
    from sage_edge.jetson.release_file import unpack

    return unpack(make_release(tmp_path), Layout(make_system(tmp_path / "root")))
