"""Sinks: whole lines, flushed at once, and one clear line when they cannot be."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from estimates import HELLO, LIVE, NOTICE, SEEN, STATUS, UNSEEN

from sage_edge.runtime.errors import SinkError, UsageError
from sage_edge.runtime.estimate import Estimate, Face
from sage_edge.runtime.sinks import SinkClosed, open_sink, open_sinks
from sage_edge.runtime.sinks.csv import COLUMNS


def test_jsonl_is_the_hello_and_the_estimates(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'x.jsonl'}")
    assert not (tmp_path / "x.jsonl").exists(), "nothing is made before the run starts"
    sink.start(HELLO)
    assert (tmp_path / "x.jsonl").read_text() == '{"type":"hello","v":1}\n', "each line is there at once"
    sink.write(SEEN)
    sink.write(UNSEEN)
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert lines[1:] == [SEEN.to_json(), UNSEEN.to_json()]
    assert [list(json.loads(line)) for line in lines[1:]] == [list(SEEN.to_dict())] * 2, "keys never disappear"
    sink.close()
    sink.close()


def test_jsonl_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("jsonl:-")
    sink.start(HELLO)
    sink.write(SEEN)
    sink.close()
    assert capsys.readouterr().out.splitlines() == ['{"type":"hello","v":1}', SEEN.to_json()]


def test_csv_is_a_header_and_rows(tmp_path: Path) -> None:
    sink = open_sink(f"csv:{tmp_path / 'x.csv'}")
    sink.start(HELLO)
    sink.write(SEEN)
    sink.write(UNSEEN)
    sink.close()
    with open(tmp_path / "x.csv", newline="") as stream:
        seen, unseen = csv.DictReader(stream)
    assert tuple(seen) == COLUMNS
    assert seen == {
        **{"t_ns": "466666667", "age_ms": "12.3", "valence": "0.123457", "arousal": "-0.5"},
        **{"reliability_temporal": "0.9", "reliability_visual": "0.64", "reliability_audio": "0.36"},
        **{"face_track": "2", "face_x": "10.0", "face_y": "20.0", "face_w": "96.0", "face_h": "96.0", "face_score": "0.97"},
        **{"audio_rms_dbfs": "-31.0", "audio_warm": "1", "drops_frames_stale": "3", "drops_audio_overruns": "1", "drops_sinks": "0"},
        **{"smooth_valence": "", "smooth_arousal": "", "late_ms": "", "frame_age_ms": "", "drift_ppm": "", "camera": "", "microphone": ""},
        **{"face_every": "", "hop": "", "why": ""},
    }
    assert unseen["valence"] == "0.0"
    assert [name for name, value in unseen.items() if value == ""] == [
        *("age_ms", "reliability_visual", "reliability_audio"),
        *("face_track", "face_x", "face_y", "face_w", "face_h", "face_score"),
        *COLUMNS[COLUMNS.index("smooth_valence") :],
    ]


def test_csv_has_the_columns_of_a_live_run(tmp_path: Path) -> None:
    sink = open_sink(f"csv:{tmp_path / 'x.csv'}")
    sink.start(HELLO)
    sink.write(LIVE)
    sink.close()
    with open(tmp_path / "x.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert {name: row[name] for name in COLUMNS[COLUMNS.index("smooth_valence") :]} == {
        **{"smooth_valence": "0.11", "smooth_arousal": "-0.49", "late_ms": "63.1", "frame_age_ms": "21.0", "drift_ppm": "-12.5"},
        **{"camera": "live", "microphone": "stalled", "face_every": "2", "hop": "15", "why": "hot"},
    }


@pytest.mark.parametrize("scheme", ["jsonl", "csv"])
def test_a_sink_that_is_started_again_does_not_begin_again(tmp_path: Path, scheme: str) -> None:
    sink = open_sink(f"{scheme}:{tmp_path / 'x'}")
    sink.start(HELLO)
    sink.write(SEEN)
    before = (tmp_path / "x").read_text()
    sink.start(HELLO)
    assert (tmp_path / "x").read_text() == before


def test_notices_are_lines_among_the_estimates_and_a_status_is_none(tmp_path: Path) -> None:
    for scheme, lines in (("jsonl", [json.dumps(HELLO, separators=(",", ":")), NOTICE.to_json()]), ("csv", [",".join(COLUMNS)])):
        sink = open_sink(f"{scheme}:{tmp_path / scheme}")
        sink.start(HELLO)
        sink.notice(NOTICE)
        sink.status(STATUS)
        sink.close()
        assert (tmp_path / scheme).read_text().splitlines() == lines


def test_a_crop_that_was_pushed_has_no_box(tmp_path: Path) -> None:
    sink = open_sink(f"csv:{tmp_path / 'x.csv'}")
    sink.start(HELLO)
    sink.write(Estimate(**{**SEEN.__dict__, "face": Face(1, None, None)}))
    sink.close()
    with open(tmp_path / "x.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["face_track"], row["face_x"], row["face_score"], row["audio_rms_dbfs"]) == ("1", "", "", "-31.0")


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("older and longer than what comes now " * 10)
    sink = open_sink(f"jsonl:{tmp_path / 'x.jsonl'}")
    sink.start(HELLO)
    sink.close()
    assert (tmp_path / "x.jsonl").read_text() == '{"type":"hello","v":1}\n'


def test_a_file_is_appended_to_when_asked(tmp_path: Path) -> None:
    for name, head in (("jsonl", '{"type":"hello","v":1}'), ("csv", ",".join(COLUMNS))):
        path = tmp_path / f"x.{name}"
        for _ in range(3):
            sink = open_sink(f"{name}:{path}?append=1")
            assert sink.spec == f"{name}:{path}?append=1"
            sink.start(HELLO)
            sink.write(SEEN)
            sink.close()
        lines = path.read_text().splitlines()
        assert [line == head for line in lines] == ([True, False] * 3 if name == "jsonl" else [True, False, False, False])
        assert lines[1] == lines[-1], "the rows are as in a new file"
        open_sink(f"{name}:{path}?append=0").start(HELLO)
        assert path.read_text() == head + "\n"


def test_a_file_that_is_emptied_under_way_goes_on_at_its_beginning(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'x.jsonl'}?append=1")
    sink.start(HELLO)
    sink.write(SEEN)
    os.truncate(tmp_path / "x.jsonl", 0)  # logrotate's copytruncate
    sink.write(UNSEEN)
    sink.close()
    assert (tmp_path / "x.jsonl").read_text() == UNSEEN.to_json() + "\n"


def test_half_a_line_that_a_power_cut_left_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"whole":1}\n{"ha')
    sink = open_sink(f"jsonl:{tmp_path / 'x.jsonl'}?append=1")
    assert (tmp_path / "x.jsonl").read_text() == '{"whole":1}\n{"ha', "nothing is touched before the run starts"
    sink.start(HELLO)
    sink.write(SEEN)
    assert (tmp_path / "x.jsonl").read_text().splitlines() == ['{"whole":1}', '{"ha', '{"type":"hello","v":1}', SEEN.to_json()]


def test_rows_are_not_appended_to_other_columns(tmp_path: Path) -> None:
    for there in ("t_ns,valence\n1,2\n", ",".join(COLUMNS) + ",more\n", "\0" * 10_000, ",".join(COLUMNS)[:-1] + "\n"):
        (tmp_path / "x.csv").write_text(there)
        with pytest.raises(SinkError, match="has other columns than these rows"):
            open_sink(f"csv:{tmp_path / 'x.csv'}?append=1")
        assert (tmp_path / "x.csv").read_text() == there


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("jsnl:-", "unknown sink 'jsnl:-'; did you mean jsonl:- or jsonl:FILE[?append=1]?"),
        ("cvs:x.csv", "did you mean csv:FILE[?append=1]?"),
        ("x.csv", "unknown sink 'x.csv'"),
        ("jsonl", "sink 'jsonl' names no target; write jsonl:- or jsonl:FILE[?append=1]"),
        ("csv:", "sink 'csv:' names no target; write csv:FILE[?append=1]"),
        ("csv:-", "csv goes to a file"),
        ("csv:a\0b", "names no target"),
        ("jsonl:x?apend=1", "'x?apend=1' has an unknown option; write FILE?append=1"),
        ("csv:x?", "'x?' has an unknown option"),
        ("jsonl:-?append=1", "write FILE?append=1"),
        ("jsonl:?append=1", "write FILE?append=1"),
        ("", "unknown sink ''"),
    ],
)
def test_wrong_use(spec: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_sinks_to_one_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two outputs go to"):
        open_sinks([f"jsonl:{tmp_path}/x", f"csv:{tmp_path}/x"])
    with pytest.raises(UsageError, match="names no target"):
        open_sinks(["jsonl:a\0b"])
    assert [sink.spec for sink in open_sinks(["jsonl:-", f"csv:{tmp_path}/x"])] == ["jsonl:-", f"csv:{tmp_path}/x"]
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist; make it with mkdir -p"):
        open_sink(f"jsonl:{tmp_path / 'no' / 'x.jsonl'}")
    with pytest.raises(SinkError, match="is a folder"):
        open_sink(f"csv:{tmp_path}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_a_full_device() -> None:
    with pytest.raises(SinkError, match=r"/dev/full: No space left on device"):
        open_sink("jsonl:/dev/full").start(HELLO)


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    # no byte code: under a limit on file sizes Python would leave half a module of ours behind
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    done = run(
        "import resource, sys; from estimates import *\n"
        "from sage_edge.runtime.errors import SinkError; from sage_edge.runtime.sinks import open_sink\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        f"sink = open_sink('jsonl:{path}'); sink.start(HELLO); count = 0\n"
        "try:\n"
        "    for count in range(100): sink.write(SEEN)\n"
        "except SinkError as error: print(count, error)\n"
    )
    count, message = done.stdout.split(" ", 1)
    assert "File too large" in message
    assert "holds the lines up to here" in message
    text = path.read_text()
    assert text.endswith("\n"), "half a line was left"
    assert text.splitlines() == ['{"type":"hello","v":1}', *[SEEN.to_json()] * int(count)]
    assert 3000 - len(SEEN.to_json()) - 1 <= len(text) <= 3000


def test_a_pipe_whose_reader_has_gone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink(f"jsonl:{pipe}")
    sink.start(HELLO)
    assert os.read(reader, 100) == b'{"type":"hello","v":1}\n'
    os.close(reader)
    before = signal.getsignal(signal.SIGPIPE)
    with pytest.raises(SinkClosed, match="its reader has gone"):
        sink.write(SEEN)
    assert signal.getsignal(signal.SIGPIPE) == before
    sink.close()


def test_one_place_written_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a")
    for other in ("jsonl:a?append=1", "csv:./a", f"csv:{tmp_path}/a", "jsonl:../" + tmp_path.name + "/a", "csv:link"):
        with pytest.raises(UsageError, match="two outputs go to"):
            open_sinks(["jsonl:a", other])
    assert [sink.spec for sink in open_sinks(["jsonl:-", "jsonl:./-", "csv:b"])] == ["jsonl:-", "jsonl:./-", "csv:b"]
