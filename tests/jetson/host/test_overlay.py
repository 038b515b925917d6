"""jetson/overlay on small systems: what is written where, what stays, what is refused, and the same links as systemctl's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from released import PYTHON, make_release, make_system

from sage_edge.jetson.host.errors import HostError
from sage_edge.jetson.host.overlay import PACKAGES, missing_packages, overlay, plan
from sage_edge.jetson.lay_in import point
from sage_edge.jetson.layout import Layout
from sage_edge.jetson.settings_file import SettingsError, known_settings, parse_setting, with_settings

UNITS = {
    "bin/sage-edge-update": "#!/bin/sh\n",
    "bin/sage-edge-service": "#!/bin/sh\n",
    "systemd/sage-edge.service": "[Unit]\nWantedBy=nobody.target\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target a.target\n",
    "systemd/sage-edge-rollback.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\nRequiredBy=b.target\n",
    "systemd/sage-edge-first-boot.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "systemd/60-sage-edge.rules": 'SUBSYSTEM=="video4linux"\n',
    "systemd/sage-edge.conf": "SAGE_EDGE_CAMERA=/dev/video0\n#SAGE_EDGE_MIC=\n",
    "systemd/sage-edge-network.conf": "[Service]\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/etc").mkdir(parents=True)
    return make_system(tmp_path / "root")


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Every file and link of a system: its inode, so that what was written again is seen, and its content."""
    return {
        path.relative_to(root).as_posix(): (path.lstat().st_ino, os.readlink(path) if path.is_symlink() else path.read_text(errors="replace"))
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def quiet(_: str) -> None:
    pass


def test_everything_lies_where_the_system_looks_for_it_and_again_changes_nothing(tmp_path: Path, root: Path) -> None:
    archive = make_release(tmp_path, UNITS)
    told: list[str] = []
    planned = plan(root, archive, {})
    assert snapshot(root).keys() == {f"usr/bin/python{PYTHON}"}
    folder = overlay(root, archive, {}, told.append)
    links = {name: content for name, (_, content) in snapshot(root).items() if (root / name).is_symlink()}
    assert links == {
        "opt/sage-edge/current": "versions/1.0",
        "usr/local/bin/sage-edge": "/opt/sage-edge/current/bin/sage-edge",
        "usr/local/bin/sage-edge-update": "/opt/sage-edge/current/bin/sage-edge-update",
        "etc/systemd/system/sage-edge.service": "/opt/sage-edge/current/systemd/sage-edge.service",
        "etc/systemd/system/sage-edge-rollback.service": "/opt/sage-edge/current/systemd/sage-edge-rollback.service",
        "etc/systemd/system/sage-edge-first-boot.service": "/opt/sage-edge/current/systemd/sage-edge-first-boot.service",
        "etc/systemd/system/multi-user.target.wants/sage-edge.service": "/etc/systemd/system/sage-edge.service",
        "etc/systemd/system/a.target.wants/sage-edge.service": "/etc/systemd/system/sage-edge.service",
        "etc/systemd/system/b.target.requires/sage-edge-rollback.service": "/etc/systemd/system/sage-edge-rollback.service",
    }
    outside = {name for name in snapshot(root) if not name.startswith("opt/") and name not in links}
    assert outside == {f"usr/bin/python{PYTHON}", "etc/udev/rules.d/60-sage-edge.rules", "etc/sage-edge/sage-edge.conf"}
    assert (root / "etc/sage-edge/sage-edge.conf").stat().st_mode & 0o777 == 0o600
    said = {line.split(":")[0].split(" -> ")[0] for line in told}
    assert {line.split(":")[0].split(" -> ")[0] for line in planned} <= said
    before = snapshot(root)
    assert overlay(root, archive, {}, told.append) == folder
    assert snapshot(root) == before
    assert told[-1] == "all else was as it should be"


def test_what_the_owner_changed_stays_and_another_release_becomes_the_one_that_starts(tmp_path: Path, root: Path) -> None:
    overlay(root, make_release(tmp_path, UNITS), {}, quiet)
    settings = root / "etc/sage-edge/sage-edge.conf"
    settings.write_text("SAGE_EDGE_CAMERA=csi://0\n# mine\n#SAGE_EDGE_MIC=\n")
    (root / "etc/systemd/system/multi-user.target.wants/sage-edge.service").unlink()
    newer = {**UNITS, "systemd/sage-edge-extra.service": "[Install]\nWantedBy=multi-user.target\n", "systemd/60-sage-edge.rules": "# newer\n"}
    overlay(root, make_release(tmp_path, newer, version="2.0"), {"SAGE_EDGE_MIC": 'hw:CARD="my mic"\\'}, quiet)
    assert settings.read_text() == 'SAGE_EDGE_CAMERA=csi://0\n# mine\nSAGE_EDGE_MIC="hw:CARD=\\"my mic\\"\\\\"\n'
    wants = [path.name for path in (root / "etc/systemd/system/multi-user.target.wants").iterdir()]
    assert wants == ["sage-edge-extra.service"]
    assert (root / "etc/udev/rules.d/60-sage-edge.rules").read_text() == "# newer\n"
    assert os.readlink(root / "opt/sage-edge/current") == "versions/2.0"
    assert (root / "opt/sage-edge/versions/1.0/release.json").exists()


def test_units_are_enabled_as_systemctl_enables_them(tmp_path: Path, root: Path) -> None:
    if not shutil.which("systemctl"):
        pytest.skip("needs systemctl: apt-get install systemd")
    overlay(root, make_release(tmp_path, UNITS), {}, quiet)

    def targets() -> set[tuple[str, str]]:
        folders = [*(root / "etc/systemd/system").glob("*.wants"), *(root / "etc/systemd/system").glob("*.requires")]
        return {(folder.name, link.name) for folder in folders for link in folder.iterdir()}

    ours = targets()
    for name in ("sage-edge.service", "sage-edge-rollback.service"):
        state = subprocess.run(["systemctl", f"--root={root}", "is-enabled", name], capture_output=True, text=True, check=False)
        assert state.stdout.strip() == "enabled", state.stderr
    for folder in [*(root / "etc/systemd/system").glob("*.wants"), *(root / "etc/systemd/system").glob("*.requires")]:
        shutil.rmtree(folder)
    subprocess.run(["systemctl", f"--root={root}", "enable", "sage-edge.service", "sage-edge-rollback.service"], capture_output=True, check=True)
    assert targets() == ours


def test_a_cut_between_any_two_writes_is_mended_by_the_next_run(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th replacing of a file or link fails, for every n: then a run without failures gives what one at once would have given."""
    archive = make_release(tmp_path, UNITS)
    whole = make_system(tmp_path / "whole")
    (whole / "etc").mkdir()
    overlay(whole, archive, {"SAGE_EDGE_MIC": "none"}, quiet)
    replace, cuts, is_whole = os.replace, 0, False
    while not is_whole:
        left = cuts

        def cut(source: Path, target: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device", str(target))
            replace(source, target)

        system = make_system(tmp_path / f"cut-{cuts}")
        (system / "etc").mkdir()
        monkeypatch.setattr(os, "replace", cut)
        refused = ""
        try:
            overlay(system, archive, {"SAGE_EDGE_MIC": "none"}, quiet)
        except HostError as error:
            refused = str(error)
        monkeypatch.setattr(os, "replace", replace)
        is_whole = not refused
        assert is_whole or "No space left on device" in refused
        assert is_whole == (system / "opt/sage-edge/current").is_symlink()
        overlay(system, archive, {"SAGE_EDGE_MIC": "none"}, quiet)
        contents = [{name: content for name, (_, content) in snapshot(each).items()} for each in (system, whole)]
        assert contents[0] == contents[1]
        cuts += 1
    assert cuts > 8


def test_the_running_system_and_what_is_no_system_are_refused(tmp_path: Path, root: Path) -> None:
    archive = make_release(tmp_path, UNITS)
    (tmp_path / "slash").symlink_to("/")
    for place, said in ((Path("/"), "is the system that runs"), (tmp_path / "slash", "is the system that runs"), (tmp_path, "no root file system")):
        for refuse in (overlay, plan):
            with pytest.raises(HostError, match=said):
                refuse(place, archive, {})


def folders_written(tmp_path: Path) -> list[str]:
    """Every folder in which the overlay puts anything, and those that these are in."""
    whole = make_system(tmp_path / "whole")
    (whole / "etc").mkdir()
    overlay(whole, make_release(tmp_path, UNITS), {}, quiet)
    written = {Path(name).parent for name in snapshot(whole) if not name.startswith(("usr/bin/", "opt/sage-edge/versions/"))}
    return sorted({str(each) for folder in {*written, Path("opt/sage-edge/versions")} for each in (folder, *folder.parents)} - {".", "etc", "usr"})


def test_no_link_of_the_root_file_system_leads_out_of_it(tmp_path: Path) -> None:
    folders = folders_written(tmp_path)
    assert {"opt/sage-edge/versions", "etc/systemd/system/a.target.wants", "etc/systemd/system/b.target.requires", "usr/local"} <= set(folders)
    archive = make_release(tmp_path, UNITS)
    for number, folder in enumerate(folders):
        root = make_system(tmp_path / f"root-{number}")
        outside = tmp_path / f"outside-{number}"
        outside.mkdir()
        (root / "etc").mkdir()
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(outside)
        before = snapshot(root)
        for refuse in (plan, overlay):
            with pytest.raises(HostError, match="outside of"):
                refuse(root, archive, {})
        assert list(outside.iterdir()) == [], folder
        assert snapshot(root) == before, folder


def test_a_setting_that_does_not_exist_is_refused_before_anything_is_written(tmp_path: Path, root: Path) -> None:
    archive = make_release(tmp_path, UNITS)
    before = snapshot(root)
    for refuse in (plan, overlay):
        with pytest.raises(HostError, match="'SAGE_EDGE_CAMRA' does not exist; nearest: SAGE_EDGE_CAMERA"):
            refuse(root, archive, {"SAGE_EDGE_CAMRA": "1"})
    assert snapshot(root) == before


def test_a_setting_that_only_the_new_release_knows_is_added_to_the_owners(tmp_path: Path, root: Path) -> None:
    overlay(root, make_release(tmp_path, UNITS), {}, quiet)
    newer = {**UNITS, "systemd/sage-edge.conf": "#SAGE_EDGE_NEW=\n"}
    overlay(root, make_release(tmp_path, newer, version="2.0"), {"SAGE_EDGE_NEW": "1"}, quiet)
    assert (root / "etc/sage-edge/sage-edge.conf").read_text() == UNITS["systemd/sage-edge.conf"] + "\nSAGE_EDGE_NEW=1\n"


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path, root: Path) -> None:
    archive = make_release(tmp_path, UNITS)
    mounted = [
        "unshare",
        *([] if os.geteuid() == 0 else ["-r"]),
        "-m",
        "sh",
        "-c",
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
    ]
    if subprocess.run([*mounted, root, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces (unshare -m)")
    tool = Path(__file__).parents[3] / "jetson/overlay"
    refused = subprocess.run([*mounted, root, sys.executable, tool, root, "--release", archive], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "etc cannot be written; mount it anew" in refused.stderr


def test_a_masked_unit_stays_masked(tmp_path: Path, root: Path) -> None:
    mask = root / "etc/systemd/system/sage-edge.service"
    mask.parent.mkdir(parents=True)
    mask.symlink_to("/dev/null")
    overlay(root, make_release(tmp_path, UNITS), {}, quiet)
    assert os.readlink(mask) == "/dev/null"
    assert not (root / "etc/systemd/system/multi-user.target.wants").exists()


def test_a_command_of_the_owner_is_not_overwritten(tmp_path: Path, root: Path) -> None:
    mine = root / "usr/local/bin/sage-edge"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(HostError, match="usr/local/bin/sage-edge: is there already and no link"):
        overlay(root, make_release(tmp_path, UNITS), {}, quiet)
    assert mine.read_text() == "mine"
    assert not (root / "opt/sage-edge/current").exists()


def test_what_a_board_reads_is_readable_whatever_the_umask(tmp_path: Path, root: Path) -> None:
    archive = make_release(tmp_path, UNITS)
    before = os.umask(0o077)
    try:
        overlay(root, archive, {}, quiet)
    finally:
        os.umask(before)
    made = [path for top in ("opt", "etc/systemd", "etc/udev", "etc/sage-edge", "usr/local") for path in (root / top, *(root / top).rglob("*"))]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir() and not path.is_symlink()} == {0o755}
    assert {path.name for path in made if path.is_file() and not path.is_symlink() and not path.stat().st_mode & 0o004} == {"sage-edge.conf"}


def test_a_link_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "current"
    replace, seen = os.replace, []

    def watched(source: Path, target: Path) -> None:
        seen.append(os.readlink(link) if link.is_symlink() else None)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    assert point(link, "one") == [link]
    before = link.lstat().st_ino
    assert point(link, "one") == []
    assert link.lstat().st_ino == before
    assert point(link, "two") == [link]
    assert os.readlink(link) == "two"
    assert seen == [None, "one"], "at no moment is there no link"
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_missing_packages_are_read_from_the_list_of_dpkg(root: Path) -> None:
    assert missing_packages(root) == []
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: libportaudio2t64\nStatus: install ok installed\n\nPackage: gstreamer1.0-tools\nStatus: deinstall ok config-files\n\n"
        "Package: gstreamer1.0-plugins-base\nEssential: no\nStatus: install ok installed\n"
    )
    assert missing_packages(root) == ["gstreamer1.0-tools"]
    assert set(missing_packages(root)) < set(PACKAGES)


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "))


@given(values=st.dictionaries(st.sampled_from(["SAGE_EDGE_CAMERA", "SAGE_EDGE_MIC", "SAGE_EDGE_TWICE"]), VALUES, min_size=1))
def test_settings_are_read_back_by_the_rules_of_environment_files(values: dict[str, str]) -> None:
    text = "# camera\nSAGE_EDGE_CAMERA=/dev/video0\n# SAGE_EDGE_MIC=hw:0\nSAGE_EDGE_TWICE=1\nSAGE_EDGE_TWICE=2\n# the end\n"
    changed = with_settings(text, values)
    assert known_settings(changed) == known_settings(text)
    assert [line for line in changed.splitlines() if line.startswith("# ") and "=" not in line] == ["# camera", "# the end"]
    assert with_settings(changed, values) == changed
    at_the_end = with_settings("# mine", values, text).splitlines()
    assert at_the_end[:1] == ["# mine"]
    assert [line.partition("=")[0] for line in at_the_end[1:] if line] == list(values)
    read = {}
    for line in changed.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            read[key] = value[1:-1].replace('\\"', '"').replace("\\\\", "\\") if value.startswith('"') else value
    assert {key: read[key] for key in values} == values


@pytest.mark.parametrize("text", ["SAGE_EDGE_MIC", "=1", "sage=1", "A B=1", "SAGE_EDGE_MIC=a\nb", "SAGE_EDGE_MIC=\x00"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give KEY=VALUE in one line"):
        parse_setting(text)
    with pytest.raises(SettingsError, match="nearest: SAGE_EDGE_MIC"):
        with_settings("#SAGE_EDGE_MIC=\n", {"SAGE_EDGE_MICK": "1"})


def test_nothing_but_pythons_own_library_is_needed(tmp_path: Path, root: Path) -> None:
    """The tool as a person runs it from a checkout, in a Python that has nothing installed, and what it prints for a dry run."""
    archive = make_release(tmp_path, UNITS)
    tool = Path(__file__).parents[3] / "jetson/overlay"
    bare = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", shutil.which("python3", path="/usr/bin") or "python3", "-I", "-S", str(tool)]
    assert Layout(root).versions.exists() is False
    shown = subprocess.run([*bare, root, "--release", archive, "--dry-run"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[-1] == "/opt/sage-edge/current -> versions/1.0"
    wrong = subprocess.run([*bare, root, "--release", archive, "--conf", "CAMERA=1"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "setting 'CAMERA' does not exist; nearest: " in wrong.stderr
