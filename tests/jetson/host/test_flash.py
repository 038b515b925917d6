"""Flashing a small driver package: every step in its order and once, what is done is not done again, what cannot work is refused before anything
is written. NVIDIA's tools are stand-ins that write down their calls; tar, jetson/overlay and the release are the real ones."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_bsp import READY, FakeBsp, host_root, sample_rootfs
from released import make_release

from sage_edge.jetson.boards import number, table
from sage_edge.jetson.host import flash
from sage_edge.jetson.host.errors import HostError
from sage_edge.jetson.host.flash_checks import Host, cautions, proven, refusals, selected
from sage_edge.jetson.host.flash_plan import OVERLAY, STEPS, Plan, Wish, make_plan
from sage_edge.jetson.host.flash_run import LOG, run_plan
from sage_edge.jetson.layout import Layout

TABLE = table()
NANO = "jetson-orin-nano-devkit-super"
TOOLS = ("l4t_flash_prerequisites.sh", "apply_binaries.sh", "l4t_create_default_user.sh")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the command itself needs root: run the tests with sudo")


class Job:
    """One driver package, one wish, one host."""

    def __init__(self, folder: Path, l4t: str = "36.4.4", board: str = NANO, storage: str = "nvme", tools: bool = True, **wishes: Any) -> None:
        self.fake = FakeBsp(folder, l4t, tools)
        python = TABLE.lines[number(l4t)[0]].python
        files = {"systemd/sage-edge.conf": "SAGE_EDGE_CAMERA=none\n"}
        given = {"release": make_release(folder / "release", files, python=python), "rootfs": sample_rootfs(folder, python)}
        self.wish = Wish(**{"user": "sage", "hostname": "edge-1", "accept_license": True, "board": board, "storage": storage, **given, **wishes})
        self.host = replace(READY, usb=(TABLE.modules_of(TABLE.boards[board])[-1].usb,)) if board in TABLE.boards else READY
        self.said: list[str] = []

    @property
    def plan(self) -> Plan:
        return make_plan(self.fake.bsp, self.wish)

    def proven(self, name: str) -> bool:
        return proven(name, self.fake.bsp, self.plan)

    def refused(self, only: str | None = None, until: str | None = None) -> list[str]:
        steps = selected(only, until, self.plan)
        return refusals(self.host, self.fake.bsp, self.plan, steps, [name for name in steps if not self.proven(name)])

    def cautions(self, until: str | None = None) -> list[str]:
        return cautions(self.host, self.fake.bsp, self.plan, selected(None, until, self.plan))

    def run(self, *steps: str) -> list[str]:
        """Run, and return the tools that were called, without their arguments."""
        before = len(self.fake.calls)
        try:
            run_plan(self.fake.bsp, self.plan, list(steps or STEPS), self.proven, self.said.append)
        finally:
            self.called = [call.split(" ", 1)[0] for call in self.fake.calls[before:]]
        return self.called


NEWEST = {number(l4t)[0]: l4t for l4t in sorted(TABLE.revisions, key=number)}


@pytest.mark.parametrize(("major", "thor"), [(36, False), (38, True), (39, False), (39, True)])
def test_every_board_and_storage_of_a_line_is_flashed_as_planned(tmp_path: Path, major: int, thor: bool) -> None:
    """The first with all steps, the others from the prepared package: only the last step runs again."""
    pairs = [(board, storage) for board in TABLE.boards.values() if major in board.since for storage in TABLE.storages_of(board)]
    pairs = [pair for pair in pairs if ("thor" in pair[0].name) == thor]
    job = Job(tmp_path, NEWEST[major], pairs[0][0].name, pairs[0][1], tools=False)
    assert job.refused() == []
    assert job.run() == [*TOOLS, Path(job.plan.steps[-1].argv[0]).name]
    for board, storage in pairs:
        job.wish = replace(job.wish, board=board.name, storage=storage)
        step = job.plan.steps[-1]
        assert job.run("user", "flash") == [Path(step.argv[0]).name]
        arguments = " ".join(f"[{word}]" for word in step.argv[1:])
        overlay = "".join(f" overlay={value}" for value in step.env.values())
        assert job.fake.calls[-1] == f"{Path(step.argv[0]).name} {arguments}{overlay}"
    rootfs = job.fake.root / "rootfs"
    assert (Layout(rootfs).current / "bin/sage-edge").exists()
    assert (rootfs / "usr/bin/sudo").stat().st_mode & 0o4000
    assert job.fake.calls.count("apply_binaries.sh [--openrm]") == int(thor)


@pytest.mark.parametrize("interrupted", range(len(TOOLS)))
def test_a_run_that_failed_goes_on_where_it_stopped(tmp_path: Path, interrupted: int) -> None:
    job = Job(tmp_path, tools=False)
    cause = job.fake.fail(TOOLS[interrupted], "no space left")
    step = STEPS[interrupted + 1]
    with pytest.raises(HostError, match=rf"step '{step}' failed with exit code 3: no space left; see .*{LOG}.*the same command"):
        job.run(*STEPS[:4])
    cause.unlink()
    assert job.run(*STEPS[:4]) == list(TOOLS[interrupted:])
    done = [line.split(": ")[0] for line in job.said if "done already" in line]
    assert done == [f"[{place}/4] {STEPS[place - 1]}" for place in range(1, interrupted + 2)]


def test_a_step_that_was_killed_runs_again_whatever_it_left(tmp_path: Path) -> None:
    """As after a power cut: its proof is there and it never came to its end."""
    prepare = STEPS[:-1]
    job = Job(tmp_path)
    job.run(*prepare)
    assert all(job.proven(each) for each in prepare)
    for name in prepare:
        job.fake.bsp.begin(name)
        assert [each for each in prepare if not job.proven(each)] == [name]
        job.said.clear()
        job.run(*prepare)
        assert job.fake.bsp.interrupted() == set()
        again = [line.split()[1].rstrip(":") for line in job.said if ": done in" in line]
        assert again[0] == name
        assert name == "rootfs" or again == [name], "unpacking again may undo what was laid over it, the others undo nothing"
        assert all(job.proven(each) for each in prepare)


def test_a_step_that_failed_is_done_again_also_when_another_was_done_first(tmp_path: Path) -> None:
    """As on a new host, which lacks the prerequisites: that they are installed first does not make the binaries whole."""
    job = Job(tmp_path)
    tool = job.fake.root / "apply_binaries.sh"
    good = tool.read_text()
    tool.write_text(good + "exit 5\n")
    with pytest.raises(HostError, match="step 'binaries' failed with exit code 5"):
        job.run(*STEPS[:3])
    tool.write_text(good)
    (job.fake.bin / "zstd").unlink()
    assert job.run(*STEPS[:4]) == list(TOOLS)
    assert job.fake.bsp.interrupted() == set()


def test_two_runs_at_once_are_one_too_many(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with open(job.fake.root / LOG, "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(HostError, match=r"another jetson/flash works in .*; wait for its end"):
            job.run()
    assert job.called == []
    assert job.run(*STEPS[:4]) == list(TOOLS[1:])


@pytest.mark.parametrize(("ubuntu", "fits"), [("24.04", False), ("22.04", True)])
def test_the_root_file_system_of_another_jetpack_is_refused(tmp_path: Path, ubuntu: str, fits: bool) -> None:
    job = Job(tmp_path)
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    subprocess.run(["tar", "xpf", str(job.wish.rootfs), "-C", tree], check=True)
    (tree / "etc/os-release").write_text(f'NAME="Ubuntu"\nVERSION_ID="{ubuntu}"\n')
    job.wish = replace(job.wish, rootfs=tmp_path / "other.tar")
    subprocess.run(["tar", "cpf", str(job.wish.rootfs), "-C", tree, "."], check=True)
    if fits:
        assert job.run(*STEPS[:4]) == list(TOOLS[1:])
        assert job.refused() == []
    else:
        with pytest.raises(HostError, match=r"step 'rootfs' .* left no proof \(.* Ubuntu 22\.04\)"):
            job.run()
        assert job.called == []
        assert [text for text in job.refused() if "rootfs/ is Ubuntu 24.04, that of JetPack 6 is 22.04: rm -rf" in text]


def test_an_interrupted_unpacking_is_unpacked_over_and_not_refused(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (job.fake.root / "rootfs/etc").mkdir()
    (job.fake.root / "rootfs/etc/passwd").write_text("root:x:0:0\n")
    job.fake.bsp.begin("rootfs")
    assert job.refused() == []
    job.run("rootfs")
    assert job.proven("rootfs")


def test_what_was_done_by_hand_counts(tmp_path: Path) -> None:
    job = Job(tmp_path)
    root = job.fake.root
    subprocess.run(["tar", "xpf", str(job.wish.rootfs), "-C", "rootfs"], cwd=root, check=True)
    subprocess.run(["./apply_binaries.sh"], cwd=root, env={"PATH": job.fake.bsp.path}, check=True)
    assert job.run(*STEPS[:4]) == ["l4t_create_default_user.sh"]


def test_a_tool_that_ends_well_and_did_nothing_is_not_believed(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (job.fake.root / "apply_binaries.sh").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(HostError, match=r"step 'binaries' ended well but left no proof \(rootfs/etc/nv_tegra_release says 36\.4\.4\)"):
        job.run()
    assert job.called == []


def test_a_tool_that_fails_after_it_left_its_proof_is_not_believed_either(tmp_path: Path) -> None:
    job = Job(tmp_path)
    tool = job.fake.root / "apply_binaries.sh"
    good = tool.read_text()
    tool.write_text(good + "exit 5\n")
    with pytest.raises(HostError, match="step 'binaries' failed with exit code 5"):
        job.run(*STEPS[:3])
    assert job.fake.bsp.applied() == "36.4.4"
    tool.write_text(good)
    assert job.run(*STEPS[:3]) == ["apply_binaries.sh"]


def test_a_long_step_says_now_and_then_how_far_it_is(tmp_path: Path) -> None:
    job = Job(tmp_path)
    lines = ["Flash is in progress", "Writing APP partition", "ERROR: the board went away", "Cleaning up..."]
    job.fake.fail("l4t_initrd_flash.sh", "\n\n".join(lines) + "\n")
    with pytest.raises(HostError, match="exit code 3: ERROR: the board went away; see"):
        run_plan(job.fake.bsp, job.plan, ["flash"], job.proven, job.said.append, news_s=0)
    assert job.said[1:] == [f"  0 s: {line}" for line in lines]


def test_thor_without_its_open_driver_is_not_done(tmp_path: Path) -> None:
    job = Job(tmp_path, "39.2.1", "jetson-agx-thor-devkit")
    job.run("rootfs")
    subprocess.run(["./apply_binaries.sh"], cwd=job.fake.root, env={"PATH": job.fake.bsp.path}, check=True)
    assert not job.proven("binaries")
    job.run("binaries")
    assert job.fake.calls == ["apply_binaries.sh []", "apply_binaries.sh [--openrm]"]
    assert job.proven("binaries")


@pytest.mark.parametrize(
    ("says", "fix"),
    [
        ("ERROR: might be timeout in USB write.", "another cable"),
        ("Waiting for target to boot-up...\nTimeout\nDevice ping failed after RCM boot", "unmanaged rndis_host"),
        ("NFS port is blocked by UFW", "ufw allow nfs"),
    ],
)
def test_a_known_failure_of_nvidias_tool_comes_with_its_fix(tmp_path: Path, says: str, fix: str) -> None:
    job = Job(tmp_path)
    job.fake.fail("l4t_initrd_flash.sh", says)
    with pytest.raises(HostError, match=fix):
        job.run("flash")


def test_a_given_password_is_written_nowhere_and_one_that_the_tool_made_is_said_once(tmp_path: Path) -> None:
    given = Job(tmp_path / "given", password="correct horse")
    given.run(*STEPS[:4])
    made = Job(tmp_path / "made")
    made.run(*STEPS[:4])
    for job in (given, made):
        log = job.fake.root / LOG
        assert log.stat().st_mode & 0o077 == 0
        assert "Creating: Username - sage, Password - ********, Autologin" in log.read_text()
    assert "correct horse" not in (given.fake.root / LOG).read_text() + str(given.said)
    assert "[correct horse]" in given.fake.calls[-1]
    assert [line for line in made.said if "MDg5ZTQ2" in line] == ["  user sage, password MDg5ZTQ2"]


def test_a_given_password_is_hidden_wherever_the_tool_says_it(tmp_path: Path) -> None:
    job = Job(tmp_path, password="correct horse")
    job.fake.fail(TOOLS[2], "chpasswd: ada:correct horse is too simple\n")
    with pytest.raises(HostError, match=r"chpasswd: ada:\*\*\*\*\*\*\*\* is too simple") as failed:
        job.run(*STEPS[:4])
    assert "correct horse" not in str(failed.value) + str(job.said) + (job.fake.root / LOG).read_text()


def test_the_overlay_step_is_the_command_of_its_own_with_the_settings(tmp_path: Path) -> None:
    job = Job(tmp_path, settings=("SAGE_EDGE_CAMERA=csi://0",))
    job.run(*STEPS[:5])
    assert OVERLAY.exists()
    assert "SAGE_EDGE_CAMERA=csi://0" in Layout(job.fake.root / "rootfs").settings.read_text()
    assert any(re.search("libportaudio2.*: apt-get install it there, or on the board$", line) for line in job.said), (
        "what a release cannot bring is said here, not in the log alone"
    )


OTHER_ROOTFS = Path("Tegra_Linux_Sample-Root-Filesystem_r38.4.0_aarch64.tbz2")
NX, AGX, THOR = "7323", "7023", "7026"
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another architecture": ({"machine": "aarch64"}, {}, "this host is aarch64: NVIDIA's tools are programs for x86_64"),
    "not root": ({"uid": 1000}, {}, "not root: .* run it with sudo"),
    "another distribution": (
        {"distribution": "debian", "release": "12"},
        {},
        "this host is debian 12: .* prepare it on Ubuntu 22.04",
    ),
    "Ubuntu too new": ({"release": "24.04", "kmod": 31}, {}, "this host is ubuntu 24.04"),
    "kmod too new": ({"kmod": 31}, {}, r"kmod 31 .* JetPack 6 cannot read \(30 is the newest\)"),
    "nothing on USB": ({"usb": ()}, {}, "no board in recovery mode on USB: take its power away"),
    "no lsusb": ({"usb": None}, {}, "lsusb is missing.* apt-get install usbutils"),
    "running, not in recovery mode": ({"usb": ("7020",)}, {}, r"no board in recovery mode on USB \(0955:7020 is NVIDIA's"),
    "two boards": ({"usb": (NX, AGX)}, {}, "2 boards in recovery mode .*leave one connected"),
    "another board": ({"usb": (AGX,)}, {}, r"AGX Orin .* is connected, .* is for Jetson Orin Nano and Orin NX: --board jetson-agx-orin-devkit or "),
    "a storage that the module has not": ({"usb": (NX,)}, {"storage": "sd"}, r"Jetson Orin NX 16GB \(0955:7323\) has no sd: --storage nvme or usb"),
    "no root file system": (
        {},
        {"rootfs": None},
        r"download Tegra_Linux_Sample-Root-Filesystem_r36\.4\.4_aarch64\.tbz2 \(https://developer\.nvidia\.com/",
    ),
    "a root file system that is not there": ({}, {"rootfs": Path("/nowhere.tbz2")}, "no file /nowhere.tbz2: download Tegra_Linux"),
    "a root file system of another JetPack": (
        {},
        {"rootfs": OTHER_ROOTFS},
        r"r38\.4\.0_aarch64\.tbz2 is for R38, this package is R36: download .*_r36\.4\.4_",
    ),
    "no licence": ({}, {"accept_license": False}, "Tegra_Software_License_Agreement.* --accept-license"),
    "no release": ({}, {"release": None}, "no --release: .* jetson/release"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_work_is_refused_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    host, wishes, says = REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    OTHER_ROOTFS.touch()
    job = Job(tmp_path, **wishes)
    job.host = replace(job.host, **host)
    before = job.fake.files()
    refused = job.refused()
    assert len(refused) == 1
    assert re.search(says, refused[0])
    assert "\n" not in refused[0]
    assert job.fake.files() == before


def test_a_host_too_new_may_flash_what_was_prepared_elsewhere(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run(*STEPS[:-1])
    job.host = replace(job.host, release="24.04", kmod=31)
    assert job.refused() == []
    assert [text for text in job.cautions() if "this is ubuntu 24.04" in text]


def test_preparing_needs_no_board_and_no_release(tmp_path: Path) -> None:
    job = Job(tmp_path, release=None)
    job.host = replace(job.host, usb=())
    assert job.refused(until="user") == []
    with pytest.raises(HostError, match="step 'overlay' needs --release"):
        job.refused(until="overlay")


@pytest.mark.parametrize(
    ("step", "done", "says"),
    [
        ("binaries", ["rootfs"], r"step 'binaries' before 'prerequisites' \(.*qemu-aarch64-static.* missing\): run --step prerequisites first"),
        ("binaries", ["prerequisites"], "step 'binaries' before 'rootfs'"),
        ("user", ["rootfs", "prerequisites"], "step 'user' before 'binaries'"),
        ("overlay", ["rootfs", "prerequisites", "binaries"], "step 'overlay' before 'user'"),
        ("flash", ["rootfs", "prerequisites", "binaries", "user"], "step 'flash' before 'overlay'"),
    ],
)
def test_a_step_before_its_time_is_refused(tmp_path: Path, step: str, done: list[str], says: str) -> None:
    job = Job(tmp_path, tools=False)
    if done:
        job.run(*done)
    refused = job.refused(only=step)
    assert len(refused) == 1
    assert re.search(says, refused[0])
    assert job.refused() == []


def test_apply_binaries_by_hand_before_the_prerequisites_leaves_something_that_is_not_believed(tmp_path: Path) -> None:
    """The real tool stops where it would run an arm64 program: what it copied before is no proof."""
    job = Job(tmp_path, tools=False)
    job.run("rootfs")
    assert subprocess.run(["./apply_binaries.sh"], cwd=job.fake.root, env={"PATH": job.fake.bsp.path}, check=False, capture_output=True).returncode
    assert not job.proven("binaries")
    assert job.run(*STEPS[:3]) == list(TOOLS[:2])


@pytest.mark.parametrize("damage", ["owner", "setuid", "missing"])
def test_a_root_file_system_unpacked_without_root_or_p_is_refused(tmp_path: Path, damage: str) -> None:
    job = Job(tmp_path)
    job.run("rootfs")
    sudo = job.fake.root / "rootfs/usr/bin/sudo"
    bsp = job.fake.bsp
    if damage == "owner":
        bsp = replace(bsp, owner=4321)
    elif damage == "setuid":
        sudo.chmod(0o755)
    else:
        sudo.unlink()
    (refused,) = refusals(job.host, bsp, job.plan, list(STEPS), ["rootfs"])
    assert "unpacked without root or without tar -p; rm -rf " in refused


def test_a_root_file_system_of_another_l4t_is_refused(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run(*STEPS[:3])
    (job.fake.root / "nv_tegra/bsp_version").write_text("BSP_BRANCH=36\nBSP_MAJOR=5\nBSP_MINOR=0\n")
    (refused,) = job.refused()
    assert "holds NVIDIA's packages of L4T 36.4.4, this package is 36.5.0: rm -rf" in refused


def test_an_account_of_the_system_is_no_user_to_log_in_with(tmp_path: Path) -> None:
    """Also where the host has its name already: the account alone is no proof."""
    job = Job(tmp_path, user="daemon", hostname="localhost")
    job.run("rootfs")
    assert not job.proven("user")
    (refused,) = job.refused()
    assert refused.startswith("--user daemon is an account of the system in rootfs/")
    assert job.refused(until="binaries") == []


def test_sage_edge_laid_in_before_nvidias_binaries_is_refused(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run("rootfs")
    (job.fake.root / "rootfs/opt/sage-edge/current").mkdir(parents=True)
    assert any("before NVIDIA's binaries: rm -rf" in text for text in job.refused())


def test_what_has_spoilt_runs_of_others_is_said_before_flashing_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.host = replace(job.host, autosuspend=True, network_manager=True, firewall=True)
    said = "\n".join(job.cautions())
    for text in (
        "echo -1 > /sys/module/usbcore/parameters/autosuspend",
        "unmanaged-devices+=driver:rndis_host;driver:cdc_ncm",
        "ufw allow nfs",
        "64 GB or more",
    ):
        assert text in said
    assert job.cautions(until="overlay") == []
    thor = Job(tmp_path / "thor", "39.2.1", "jetson-agx-thor-devkit")
    thor.host = replace(thor.host, network_manager=True, firewall=True)
    assert not [text for text in thor.cautions() if "NetworkManager" in text or "ufw" in text]


def test_modules_that_share_a_number_and_not_a_storage_are_told_of(tmp_path: Path) -> None:
    job = Job(tmp_path, storage="sd")
    assert job.refused() == []
    assert [text for text in job.cautions() if "see that yours is p3767-0005" in text]
    job.wish = replace(job.wish, storage="nvme")
    assert not [text for text in job.cautions() if "same USB number" in text]


def test_the_host_is_read_from_its_files_and_tools(tmp_path: Path) -> None:
    fake = FakeBsp(tmp_path, "36.4.4")
    root = host_root(tmp_path / "host")
    (root / "sys/module/usbcore/parameters").mkdir(parents=True)
    (root / "sys/module/usbcore/parameters/autosuspend").write_text("2\n")
    (root / "run/NetworkManager").mkdir(parents=True)
    (root / "etc/ufw").mkdir()
    (root / "etc/ufw/ufw.conf").write_text("# firewall\nENABLED=yes\nLOGLEVEL=low\n")
    fake.add_tool("depmod", "kmod version 29\n-XZ +ZSTD")
    fake.add_tool("lsusb", "Bus 001 Device 014: ID 0955:7323 NVIDIA Corp. APX\nBus 001 Device 001: ID 1d6b:0002 Linux Foundation 2.0 root hub")
    host = Host.read(str(fake.bin), root)
    assert host == replace(READY, machine=host.machine, uid=os.geteuid(), usb=("7323",), autosuspend=True, network_manager=True, firewall=True)
    fake.add_tool("lsusb", "")
    assert Host.read(str(fake.bin), root).usb == ()


def arguments(job: Job, *more: str) -> list[str]:
    wish = job.wish
    given = ["--bsp", str(job.fake.root), "--board", wish.board, "--storage", wish.storage, "--user", wish.user, "--hostname", wish.hostname]
    return [*given, "--rootfs", str(wish.rootfs), "--release", str(wish.release), *more]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job whose host is what `main` finds: an Ubuntu 22.04 with one board on USB."""
    job = Job(tmp_path)
    monkeypatch.setenv("PATH", str(job.fake.bin))
    host_root(tmp_path / "host")
    job.fake.add_tool("depmod", "kmod version 29")
    job.fake.add_tool("lsusb", "Bus 001 Device 014: ID 0955:7523 NVIDIA Corp. APX")
    return job


def test_a_dry_run_prints_the_plan_and_the_refusals_and_writes_nothing(command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = command.fake.files()
    command.fake.add_tool("lsusb", "")
    assert flash.main(arguments(command, "--dry-run"), tmp_path / "host") == 0
    out = capsys.readouterr().out
    places = [out.index(f"{place}. {name} (to do)") for place, name in enumerate(STEPS, 1) if name != "prerequisites"]
    assert places == sorted(places)
    assert "2. prerequisites (done already)" in out
    assert all(step.command() in out for step in command.plan.steps)
    assert "would be refused: no board in recovery mode" in out
    assert "would be refused: NVIDIA's licence is not accepted" in out
    assert command.fake.files() == before


@as_root
def test_the_command_flashes_says_how_far_it_is_and_what_comes_next(command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    more = ("--accept-license", "--media-gb", "256", "--password-file", str(tmp_path / "password"))
    assert flash.main(arguments(command, *more), tmp_path / "host") == 0
    out, err = capsys.readouterr()
    assert [call.split(" ", 1)[0] for call in command.fake.calls] == [*TOOLS[1:], "l4t_initrd_flash.sh"]
    assert all(f"[{place}/{len(STEPS)}] {name}: done" in out for place, name in enumerate(STEPS, 1))
    assert "ssh sage@192.168.55.1" in out
    assert "correct horse" not in out + err + (command.fake.root / LOG).read_text()


def is_running(pid: str) -> bool:
    """Not gone and no zombie either, which a process without a parent stays where nobody buries it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@as_root
@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP]])
def test_ctrl_c_and_kill_stop_all_that_the_tool_started_and_the_next_run_goes_on(tmp_path: Path, numbers: list[signal.Signals]) -> None:
    """The last pair is what a login that ends sends to all that it has left."""
    job = Job(tmp_path)
    job.run(*STEPS[:-1])
    job.fake.add_tool("lsusb", "Bus 001 Device 014: ID 0955:7523 NVIDIA Corp. APX")
    (job.fake.bin / "sleep").symlink_to(shutil.which("sleep") or "sleep")
    tool = job.fake.root / "tools/kernel_flash/l4t_initrd_flash.sh"
    good = tool.read_text()
    tool.write_text("#!/bin/sh\ntrap 'sleep 0.5; exit 1' TERM\nsh -c 'trap \"\" TERM; exec sleep 600' &\necho $! > pid\nwait\n")
    command = [sys.executable, str(OVERLAY.with_name("flash")), *arguments(job)]
    process = subprocess.Popen(
        command,
        env={"PATH": job.fake.bsp.path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where these tests run under nohup
    )
    deadline = time.monotonic() + 60
    pid = job.fake.root / "pid"
    while not (pid.exists() and pid.read_text().strip()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for each in numbers:
        process.send_signal(each)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; the same command goes on with the step that was interrupted"
    while is_running(pid.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job.fake.bsp.interrupted() == {"flash"}
    tool.write_text(good)
    assert job.run() == ["l4t_initrd_flash.sh"]
    assert job.fake.bsp.interrupted() == set()


@pytest.mark.parametrize(("setting", "says"), [("SAGE_EDGE_CAMRA=1", "nearest: SAGE_EDGE_CAMERA"), ("camera", "give KEY=VALUE")])
def test_a_setting_that_the_service_has_not_is_refused_before_anything_is_written(
    command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, says: str
) -> None:
    before = command.fake.files()
    for more in ((), ("--dry-run",)):
        assert flash.main(arguments(command, "--conf", setting, *more), tmp_path / "host") == 1
        assert says in capsys.readouterr().err
    assert command.fake.files() == before


def test_the_command_refuses_everything_at_once_a_line_each(command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = command.fake.files()
    command.fake.add_tool("lsusb", "")
    assert flash.main(arguments(command), tmp_path / "host") == 1
    err = capsys.readouterr().err.splitlines()
    assert len([line for line in err if line.startswith("error: ")]) >= 2
    assert all(line.startswith(("error: ", "warning: ")) for line in err)
    assert command.fake.files() == before


@as_root
def test_a_package_that_cannot_be_written_is_one_line(command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command.fake.root / LOG).mkdir()
    assert flash.main(arguments(command, "--accept-license"), tmp_path / "host") == 1
    err = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"error: .*/{LOG}: Is a directory; check its permissions and the disk", err[-1])


@pytest.mark.parametrize("content", [None, "", "\nsecond line\n"])
def test_a_password_file_without_a_password_is_refused(command: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    assert flash.main(arguments(command, "--password-file", str(file)), tmp_path / "host") == 1
    assert "first line" in capsys.readouterr().err


def test_the_executable_runs_from_a_checkout_with_nothing_installed(tmp_path: Path) -> None:
    executable = OVERLAY.with_name("flash")
    command = [sys.executable, "-S", "-s", str(executable), "--list"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(TABLE.boards)
