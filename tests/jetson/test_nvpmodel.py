"""Power modes go by name, and only what nvpmodel says afterwards counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_files import ORIN_NANO_MODES, Tools, nvpmodel, put

from sage_edge.jetson.nvpmodel import current_mode, parse_modes, read_modes, set_mode
from sage_edge.runtime.errors import BoardError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put(tmp_path / "root", {"etc/nvpmodel.conf": ORIN_NANO_MODES})


def test_modes_are_those_of_the_file_and_none_that_is_commented_out(root: Path) -> None:
    modes = read_modes(root)
    assert modes is not None
    assert modes.numbers == {"15W": 0, "25W": 1, "MAXN_SUPER": 2}
    assert modes.default == "25W"
    assert read_modes(root / "etc") is None
    assert parse_modes("< POWER_MODEL ID=0 NAME=MAXN >\n").default is None


@pytest.mark.parametrize("name", ["MAXN_SUPER", "maxn super", "Maxn-Super"])
def test_a_mode_is_set_by_its_name_and_read_back(root: Path, tools: Tools, tmp_path: Path, name: str) -> None:
    nvpmodel(tools, tmp_path / "state")
    change = set_mode(name, root)
    assert (change.asked, change.before, change.now, change.done) == ("MAXN_SUPER", "25W", "MAXN_SUPER", True)
    assert change.line() == "power mode MAXN_SUPER (was 25W)"
    assert tools.calls == ["nvpmodel -q", "nvpmodel -m 2", "nvpmodel -q"]


def test_the_mode_it_is_in_is_left_alone(root: Path, tools: Tools, tmp_path: Path) -> None:
    nvpmodel(tools, tmp_path / "state")
    assert set_mode("25W", root).line() == "power mode 25W"
    assert "nvpmodel -m 1" not in tools.calls


@pytest.fixture
def says_yes() -> Iterator[None]:
    """Whoever reads this process's stdin reads "yes"."""
    kept, (reader, writer) = os.dup(0), os.pipe()
    os.write(writer, b"yes\n")
    os.close(writer)
    os.dup2(reader, 0)
    yield
    os.dup2(kept, 0)
    for fd in (kept, reader):
        os.close(fd)


@pytest.mark.usefixtures("says_yes")
def test_a_change_that_waits_for_a_reboot_says_so_and_confirms_none(root: Path, tools: Tools, tmp_path: Path) -> None:
    ask = 'echo "NVPM WARN: Reboot required for changing to this power mode: 2"; echo "DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"; '
    nvpmodel(tools, tmp_path / "state", on_set=ask + 'read answer && printf 2 > "$S"; exit 1')
    change = set_mode("MAXN_SUPER", root)
    assert (change.done, change.needs_reboot, change.now) == (False, True, "25W")
    assert "still 25W, not MAXN_SUPER, which waits for a reboot: run 'sudo nvpmodel -m 2'" in change.line()


def test_a_change_that_silently_did_not_happen_is_seen(root: Path, tools: Tools, tmp_path: Path) -> None:
    nvpmodel(tools, tmp_path / "state", on_set="exit 0")
    change = set_mode("MAXN_SUPER", root)
    assert (change.done, change.needs_reboot) == (False, False)
    assert "still 25W, not MAXN_SUPER, though nvpmodel refused nothing" in change.line()


def test_refusals_are_one_line(root: Path, tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"there is no nvpmodel; sudo apt install nvidia-l4t-nvpmodel"):
        set_mode("15W", root)
    nvpmodel(tools, tmp_path / "state", on_set='echo "NVPM ERROR: failed to set power mode!" >&2; exit 255')
    with pytest.raises(BoardError, match=r"15W was refused: nvpmodel -m 0 says 'NVPM ERROR: failed to set power mode!'; run it as root"):
        set_mode("15W", root)
    with pytest.raises(UsageError, match=r"no power mode 'MAXN'; one of 15W, 25W, MAXN_SUPER"):
        set_mode("MAXN", root)
    with pytest.raises(BoardError, match=r"nvpmodel\.conf names none"):
        set_mode("15W", root / "etc")


def test_where_nvpmodel_does_not_answer_its_own_notes_do(root: Path, tools: Tools) -> None:
    assert current_mode(root) is None
    put(root, {"var/lib/nvpmodel/status": "pmode:0002 fmode:quiet"})
    assert current_mode(root) == "MAXN_SUPER"
    tools.add("nvpmodel", "echo 'NVPM ERROR: no permission'; exit 1")
    assert current_mode(root) == "MAXN_SUPER"
    tools.add("nvpmodel", "echo 'NV Fan Mode:quiet'; echo 'NV Power Mode: 15W'; echo 0")
    assert current_mode(root) == "15W"
