"""What settings mean: the file that is shipped is accepted by `sage-edge run` itself, as it is and with every example switched on."""

from __future__ import annotations

import argparse
import ctypes
import glob
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    for shown in (text, re.sub(r"^#(SAGE_EDGE_[A-Z_]+=)", r"\1", text, flags=re.MULTILINE)):
        read = read_settings(written(tmp_path, shown))
        args = parsed(run_words(read))
        assert parse_camera(args.camera) is not None
        assert parse_microphone(args.mic) is not None
        assert (args.precision, args.backend) == ("auto", "auto")
        assert wants_network(run_words(read)) is None
        assert not is_yes(read.get("SAGE_EDGE_ALLOW_DEMO"))
    assert args.out == ["jsonl:/var/log/sage-edge/estimates.jsonl?append=1"]
    assert args.hop == 15


def by_systemd(path: Path) -> dict[str, str]:
    """The file as systemd's own library reads it."""
    (name,) = LIBRARIES[:1]
    load = ctypes.CDLL(name).load_env_file
    load.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p))]
    found = ctypes.POINTER(ctypes.c_char_p)()
    assert load(None, bytes(path), ctypes.byref(found)) >= 0
    lines = []
    while found and (line := found[len(lines)]) is not None:
        lines.append(line.decode())
    return dict(line.partition("=")[::2] for line in lines if re.match("[A-Za-z_][A-Za-z0-9_]*=", line))


LIBRARIES = sorted(glob.glob("/usr/lib/*/systemd/libsystemd-shared-*.so"))
VALUES = [
    *("plain words  ", "mic:John's mic", '--finder "yunet:/a b.onnx"', '"--out a b"', "a#b # c", r"a\ b", r"a\ ", r'"a \"b\" c"', '"a"b "c"', ""),
    *('"two" "parts"', "'x \"y\"'", r'"a\$b \x"', '"open', "'a' # c", "a\\\nb", '"a\\\nb"', r"C:\dir", '"a "  ', "=", "a=b", " x ", "\t'y'\t"),
]


@pytest.mark.skipif(not LIBRARIES, reason="systemd's library is missing: apt-get install systemd")
def test_settings_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    for value in VALUES:
        for text in (f"K={value}\n", f"# A=1\n; B=2\n C = {value}\nD=after", f"K={value}"):
            path = written(tmp_path, text)
            assert read_settings(path) == by_systemd(path), text


@pytest.mark.skipif(not LIBRARIES, reason="systemd's library is missing: apt-get install systemd")
@given(st.text(alphabet="aK=_ \t\n\\\"'$`#;", max_size=24))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_as_systemd_reads_it(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    if not any(line.lstrip(" \t").startswith(("#", ";")) and line.endswith("\\") for line in text.split("\n")):  # changed in systemd 254
        assert read_settings(path) == by_systemd(path)


def test_a_file_that_is_missing_or_no_text_is_no_failure(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "missing") == {}
    (tmp_path / "bytes").write_bytes(b"A=\xff\nB=1\n")
    assert read_settings(tmp_path / "bytes")["B"] == "1"


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
    [
        "--serve 0.0.0.0:80 --token t",
        "--serve=localhost:1",
        "--serv :1",
        "--out ws://h:1",
        "--out=mqtt://u:p@h/t",
        "--out mqtts://h/t",
        "--out prometheus://h:1",
    ],
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
    from sage_edge.jetson.unpack import unpack

    return unpack(make_release(tmp_path), Layout(make_system(tmp_path / "root")))
