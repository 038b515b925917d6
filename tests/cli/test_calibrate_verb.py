"""`sage-edge calibrate`: what is refused before a checkpoint or a store is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_edge.cli.main import main


@pytest.mark.parametrize("clips", ["0", "-3"])
def test_no_clips_are_refused_before_anything_is_opened(clips: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert main(["calibrate", nowhere, "--data", nowhere, "--out", str(tmp_path / "ranges.json"), "--clips", clips]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"error: {clips} clips are too few to calibrate on; give at least 1\n"
    assert shown.out == ""
    assert not list(tmp_path.iterdir())


def test_every_method_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    from sage_edge.calibration.ranges import AUTO, METHODS

    assert main(["calibrate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(method in shown for method in (*METHODS, AUTO))


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("folder", "is a folder; name a file in it"),
        ("file/ranges.json", "is no folder, so "),
        ("file/missing/ranges.json", "is no folder, so "),
        ("ranges.svg", "is where the picture of --search goes"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused_before_anything_is_opened(
    out: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "nowhere")
    assert main(["calibrate", nowhere, "--data", nowhere, "--out", str(tmp_path / out), "--force", "--search"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
