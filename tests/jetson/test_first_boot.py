"""First boot: power mode by name, the version made ready, then the stamp, in that order; NVIDIA's tools are recording stand-ins."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest
from board_files import ORIN_NANO_MODES, Tools, nvpmodel, put
from released import make_system
from versions import make_version

from sage_edge.jetson import first_boot as module
from sage_edge.jetson.first_boot import first_boot
from sage_edge.jetson.layout import Layout
from sage_edge.jetson.unpack import unpack
from sage_edge.runtime.errors import BoardError

ME = pwd.getpwuid(os.geteuid()).pw_name


class Board:
    def __init__(self, root: Path, prepare: str) -> None:
        self.layout = Layout(make_system(root / "root"))
        self.folder = unpack(make_version(root, "1", prepare=prepare), self.layout)
        self.said: list[str] = []

    def settings(self, text: str) -> None:
        put(self.layout.root, {"etc/sage-edge/sage-edge.conf": text})

    def boot(self) -> None:
        first_boot(self.folder, self.layout, self.said.append, ME)


def test_the_power_mode_is_set_before_engines_are_built_and_what_holds_is_on_the_stamp(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, f'echo prepare >> "{tools.folder}/calls.log"')
    board.settings("SAGE_EDGE_POWER_MODE=maxn-super\n")
    put(board.layout.root, {"etc/nvpmodel.conf": ORIN_NANO_MODES})
    nvpmodel(tools, tmp_path / "mode")
    board.boot()
    calls = tools.calls
    assert calls.index("nvpmodel -m 2") < calls.index("prepare")
    stamp = json.loads(board.layout.stamp.read_text())
    assert stamp["power_mode"] == "power mode MAXN_SUPER (was 25W)"
    assert stamp["version"] == "1"
    assert board.layout.stamp.stat().st_mode & 0o777 == 0o644


def test_the_log_names_the_board_and_what_is_known_to_go_wrong_on_it(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, "exit 0")
    put(
        board.layout.root,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 5.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: now",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
        },
    )
    board.boot()
    assert "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.5.0 (JetPack 6.2.2)" in board.said
    assert any(line.startswith("note: ") and "camera" in line for line in board.said)


def test_a_power_mode_that_cannot_be_set_is_said_and_the_board_senses_all_the_same(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, "exit 0")
    board.settings("SAGE_EDGE_POWER_MODE=MAXN\n")
    board.boot()
    assert any(line.startswith("warning: there are no power modes here") for line in board.said)
    assert board.layout.stamp.exists()
    assert tools.calls == []


def test_clocks_that_cannot_be_held_do_not_keep_the_board_from_being_ready(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, "exit 0")
    tools.add("jetson_clocks", "echo broken; exit 1")
    board.boot()
    assert any(line.startswith("warning: jetson_clocks") for line in board.said)
    assert board.layout.stamp.exists()


def test_a_version_that_is_not_ready_leaves_no_stamp_so_that_the_next_boot_tries_again(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, "exit 1")
    with pytest.raises(BoardError, match="version 1 cannot be made ready here"):
        board.boot()
    assert not board.layout.stamp.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_that_is_missing_is_said_with_the_command_that_makes_it(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, "exit 0")
    with pytest.raises(BoardError, match="there is no user sage-edge-none; sudo systemd-sysusers"):
        first_boot(board.folder, board.layout, board.said.append, "sage-edge-none")


def test_first_boot_is_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert module.main(tmp_path) == 2
    assert capsys.readouterr().err == "error: first boot is root's; sudo sage-edge-first-boot\n"


def test_an_interrupted_first_boot_puts_the_clocks_back_and_says_one_line(tmp_path: Path, tools: Tools) -> None:
    board = Board(tmp_path, f"touch {tmp_path}/begun; exec sleep 60")
    tools.add("jetson_clocks", f'[ "$1" != --store ] || touch "$2"; [ -n "$1" ] || mkdir -p {tmp_path}/held')
    code = f"""
import sys
from pathlib import Path
from sage_edge.jetson import clocks, first_boot as module
from sage_edge.jetson.layout import Layout
held = clocks.Clock("cpu0", 1.0, 1.0, 1.0, 1.0)
clocks.read_clocks = lambda root: [held]
module.Layout = lambda: Layout(Path({str(board.layout.root)!r}))
module.first_boot.__defaults__ = (*module.first_boot.__defaults__[:-1], {ME!r})
module.os.geteuid = lambda: 0
module._take_sigterm()
sys.exit(module.main(Path({str(board.folder)!r})))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        end_s = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.02)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted; run it again, what is finished is kept\n")
    assert tools.calls[-1].startswith("jetson_clocks --restore")
    assert not board.layout.stamp.exists()
