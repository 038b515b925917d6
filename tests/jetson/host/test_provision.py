"""jetson/provision over a real ssh: what the board is asked, what happens on it, and one line for each reason that it cannot be done."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from released import make_release
from ssh_server import make_commands, run_tool, ssh_server, why_not

from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import pythons

HERE = pythons(Path("/"))
pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(not HERE, reason="needs the system's own Python: apt-get install python3"),
]
UNITS = {
    "systemd/sage-edge.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "systemd/sage-edge-first-boot.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "systemd/sage-edge.conf": "# the camera\nSAGE_EDGE_CAMERA=/dev/video0\n#SAGE_EDGE_MIC=\n",
}


class Machine:
    """A board to provision: its / and what its commands were asked."""

    def __init__(self, folder: Path) -> None:
        self.root, self.commands = folder / "root", folder / "commands"
        self.log = make_commands(self.commands, self.root)
        self.layout = Layout(self.root)

    @property
    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if not line.startswith("sudo") and "is-system-running" not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def client(tmp_path: Path, machine: Machine) -> Iterator[Path]:
    with ssh_server(tmp_path / "ssh", machine.commands) as client:
        yield client


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_release(tmp_path, UNITS, python=list(HERE)[-1], arch=platform.machine())


@pytest.mark.slow
def test_a_board_gets_the_release_its_first_boot_and_its_service(machine: Machine, client: Path, archive: Path) -> None:
    asked = run_tool("provision", "board", "--release", archive, "--dry-run", path=client)
    assert asked.returncode == 0, asked.stderr
    assert "nothing was done" in asked.stdout
    assert machine.asked == []
    assert not machine.layout.versions.exists()

    (machine.root / "var/lib/dpkg").mkdir()
    (machine.root / "var/lib/dpkg/status").write_text("Package: gstreamer1.0-tools\nStatus: install ok installed\n\n")
    done = run_tool("provision", "board", "--release", archive, "--packages", "--conf", "SAGE_EDGE_MIC=hw:1 $(x)", path=client)
    assert done.returncode == 0, done.stderr
    assert machine.asked[0] == "apt-get install -y -qq --no-install-recommends libportaudio2 gstreamer1.0-plugins-base"
    assert (machine.layout.current / "bin/sage-edge").read_text() == "#!/bin/sh\necho 1.0\n"
    assert 'SAGE_EDGE_MIC="hw:1 $(x)"' in machine.layout.settings.read_text().splitlines()
    assert (machine.root / "etc/systemd/system/multi-user.target.wants/sage-edge.service").is_symlink()
    assert [line for line in machine.asked if line.startswith("systemctl")] == [
        "systemctl daemon-reload",
        "systemctl start sage-edge-first-boot.service",
        "systemctl start --no-block sage-edge.service",
    ]
    # the journal of this boot's first start, each line once
    assert re.findall("engines: .*", done.stdout) == ["engines: 1 of 2", "engines: 2 of 2"]
    folders = re.findall(r"/var/tmp/sage-edge\.\w+", machine.log.read_text())
    assert folders
    assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.slow
def test_the_board_itself_needs_no_ssh(machine: Machine, archive: Path) -> None:
    done = run_tool("provision", "--local", "--release", archive, path=machine.commands)
    assert done.returncode == 0, done.stderr
    assert (machine.layout.current / "release.json").exists()
    assert machine.asked[-2:] == ["systemctl start sage-edge-first-boot.service", "systemctl start --no-block sage-edge.service"]
    assert "copying" not in done.stdout


@pytest.mark.slow
def test_a_board_that_has_been_provisioned_gets_an_update(machine: Machine, client: Path, archive: Path, tmp_path: Path) -> None:
    updater = {**UNITS, "bin/sage-edge-update": f'#!/bin/sh\necho "update $*" >> {machine.log}\n'}
    first = make_release(tmp_path, updater, version="0.9", python=list(HERE)[-1], arch=platform.machine())
    assert run_tool("provision", "board", "--release", first, path=client).returncode == 0
    machine.layout.state.mkdir(exist_ok=True)
    machine.layout.stamp.write_text("")
    machine.log.write_text("")
    again = run_tool("provision", "board", "--release", first, path=client)
    assert (again.returncode, machine.asked) == (0, []), again.stderr
    changed = run_tool("provision", "board", "--release", first, "--conf", "SAGE_EDGE_CAMERA=/dev/video2", path=client)
    assert changed.returncode == 0, changed.stderr
    assert machine.asked == ["systemctl restart --no-block sage-edge.service"]
    assert "SAGE_EDGE_CAMERA=/dev/video2" in machine.layout.settings.read_text()
    machine.log.write_text("")
    done = run_tool("provision", "board", "--release", archive, path=client)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"update apply /var/tmp/sage-edge\.\w+/{re.escape(archive.name)}", machine.asked[0])
    assert (machine.layout.current / "release.json").read_text() == (machine.layout.versions / "0.9/release.json").read_text()


def test_what_stands_in_the_way_is_one_line_and_changes_nothing(machine: Machine, client: Path, archive: Path, tmp_path: Path) -> None:
    older = make_release(tmp_path / "older", UNITS, python="3.2", arch=platform.machine())
    other = make_release(tmp_path / "other", UNITS, python=list(HERE)[-1], arch="riscv64")
    for host, file, said in (
        ("stranger", archive, "does not take your key; ssh-copy-id stranger"),
        ("unknown", archive, "is new or has changed; run ssh unknown once"),
        ("closed", archive, "refuses ssh; is sshd running there"),
        ("no.such.host.invalid", archive, "is not a name that is known here"),
        ("board", older, f"make one with jetson/release --python {list(HERE)[-1]}"),
        ("board", other, "the release is for riscv64; name a Jetson"),
        ("board", tmp_path / "none", "No such file"),
        ("", archive, "'' is no [USER@]HOST"),
        ("a b", archive, "'a b' is no [USER@]HOST"),
        ("board", archive.with_name("content-1.0"), "is a folder; name the file"),
    ):
        refused = run_tool("provision", host, "--release", file, path=client)
        assert refused.returncode == 1, host
        assert refused.stderr.startswith("error: "), host
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert said in refused.stderr
    dashed = run_tool("provision", "--release", archive, "--", "-oProxyCommand=touch x", path=client)
    assert "'-oProxyCommand=touch x' is no [USER@]HOST" in dashed.stderr
    assert machine.asked == []
    assert not machine.layout.versions.exists()


@pytest.mark.slow
def test_a_board_whose_sudo_asks_is_told_how_to_allow_it(machine: Machine, client: Path, archive: Path) -> None:
    make_commands(machine.commands, machine.root, sudo_refuses=1)
    refused = run_tool("provision", "board", "--release", archive, path=client)
    assert "sudo asks for a password" in refused.stderr
    assert machine.asked == []


@pytest.mark.slow
def test_a_first_boot_that_fails_is_said_with_its_journal_and_the_next_run_goes_on(machine: Machine, client: Path, archive: Path) -> None:
    make_commands(machine.commands, machine.root, first_boot=1)
    failed = run_tool("provision", "board", "--release", archive, path=client)
    assert failed.returncode == 1
    assert "engines: 2 of 2" in failed.stdout
    assert "sage-edge-first-boot.service failed" in failed.stderr
    assert not any("--no-block" in line for line in machine.asked)
    make_commands(machine.commands, machine.root)
    assert run_tool("provision", "board", "--release", archive, path=client).returncode == 0
    assert machine.asked[-1] == "systemctl start --no-block sage-edge.service"


@pytest.mark.slow
def test_a_setting_that_does_not_exist_is_refused_before_anything_starts(machine: Machine, client: Path, archive: Path) -> None:
    refused = run_tool("provision", "board", "--release", archive, "--conf", "SAGE_EDGE_CAMRA=1", path=client)
    assert "nearest: SAGE_EDGE_CAMERA" in refused.stderr
    assert not machine.layout.current.exists()
    assert machine.asked == []
