"""The table of boards is whole and agrees with itself; a Jetson is known by its files, an unknown release by its nearest neighbour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_edge.jetson.boards import Device, detect, known, nearest, number, table

TABLE = table()


def jetson(root: Path, l4t: str | None = "36.4.4", compatible: str = "p3768-0000+p3767-0005", model: str = "NVIDIA Jetson Orin Nano") -> Path:
    """A root that looks like a Jetson: device tree properties end in NUL, as the kernel gives them."""
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (root / "etc").mkdir()
    (tree / "model").write_bytes(model.encode() + b"\0")
    (tree / "compatible").write_bytes(b"\0".join([f"nvidia,{compatible}".encode(), b"nvidia,tegra234", b""]))
    if l4t:
        major, rest = l4t.split(".", 1)
        line = f"# R{major} (release), REVISION: {rest}, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 16:07:13 UTC 2025\n"
        (root / "etc/nv_tegra_release").write_text(line + "# KERNEL_VARIANT: oot\n")
    return root


def found(root: Path) -> Device:
    device = detect(root)
    assert device is not None
    return device


def test_every_row_names_its_source_and_every_name_leads_somewhere() -> None:
    named = [*TABLE.modules.values(), *TABLE.boards.values(), *TABLE.lines.values(), *TABLE.revisions.values()]
    rows: list[Any] = [*named, *TABLE.recipes, *TABLE.quirks, *TABLE.failures]
    for row in rows:
        names = re.sub(r" \(.*\)$", "", row.source).split(", ")
        assert all(name.startswith("https://") or name in TABLE.sources for name in names), row
    families = {module.family for module in TABLE.modules.values()}
    assert {family for line in TABLE.lines.values() for family in line.families} == families
    assert all({TABLE.modules[name].family for name in board.modules} < families for board in TABLE.boards.values())
    assert all(number(l4t)[0] in TABLE.lines for l4t in TABLE.revisions)
    assert all(quirk.fact and quirk.fix and set(quirk.families) <= families for quirk in TABLE.quirks)


def test_every_board_storage_and_line_has_one_recipe() -> None:
    for board in TABLE.boards.values():
        family = TABLE.modules_of(board)[0].family
        assert all(number(l4t)[0] == major and l4t in TABLE.revisions for major, l4t in board.since.items())
        for major in board.since:
            assert family in TABLE.lines[major].families
            for storage in TABLE.storages_of(board):
                fitting = [each for each in TABLE.recipes if major in each.majors and family == each.family and storage in each.storages]
                assert len(fitting) == 1, (board.name, major, storage)


def test_modules_are_those_of_nvidias_tables() -> None:
    """What guides print of each module in recovery mode, and the compute capability of each processor: written out, not made from the table."""
    usb = {"7023": ["p3701-0000", "p3701-0005", "p3701-0008"], "7223": ["p3701-0004"], "7323": ["p3767-0000"], "7423": ["p3767-0001"]}
    usb |= {"7523": ["p3767-0003", "p3767-0005"], "7623": ["p3767-0004"], "7026": ["p3834-0008"], "7226": ["p3834-0000"]}
    assert {module.id: module.usb for module in TABLE.modules.values()} == {name: number for number, names in usb.items() for name in names}
    assert {(module.soc, module.sm) for module in TABLE.modules.values()} == {("t234", 87), ("t264", 110)}


def test_a_module_in_recovery_mode_is_known_by_its_usb_number_up_to_its_family() -> None:
    by_usb: dict[str, set[str]] = {}
    for module in TABLE.modules.values():
        by_usb.setdefault(module.usb, set()).add(module.family)
    assert all(len(families) == 1 for families in by_usb.values())


@pytest.mark.parametrize("l4t", sorted(TABLE.revisions))
def test_a_known_release_is_read_from_nv_tegra_release(tmp_path: Path, l4t: str) -> None:
    device = found(jetson(tmp_path, l4t))
    assert device.l4t == l4t
    assert device.revision is TABLE.revisions[l4t]
    assert device.line is TABLE.lines[number(l4t)[0]]
    assert bool([text for text in device.warnings if "known yet" in text]) is False


@pytest.mark.parametrize("module", sorted(TABLE.modules))
@pytest.mark.parametrize("suffix", ["", "-super"])
def test_every_module_is_known_by_its_device_tree(tmp_path: Path, module: str, suffix: str) -> None:
    device = found(jetson(tmp_path, "39.2.1", f"p9999-0000+{module}{suffix}", "NVIDIA Jetson"))
    assert device.module is TABLE.modules[module]
    assert device.super_mode is bool(suffix)
    assert device.model == "NVIDIA Jetson"
    assert device.warnings == ()


def test_thor_is_told_from_its_twin_by_the_record_of_flashing(tmp_path: Path) -> None:
    jetson(tmp_path, "38.4.0", "p4071-0000+p3834-0008")
    (tmp_path / "etc/nv_boot_control.conf").write_text("TNSPEC 3834-400-0000-M.0-1-0-jetson-agx-thor-t4000-\nTEGRA_CHIPID 0x26\n")
    assert found(tmp_path).module is TABLE.modules["p3834-0000"]


@given(major=st.integers(30, 60), minor=st.integers(0, 20), patch=st.integers(0, 20))
def test_an_unknown_release_takes_the_nearest_of_its_line_and_warns(major: int, minor: int, patch: int) -> None:
    l4t = f"{major}.{minor}.{patch}"
    line, revision, warnings = known(l4t)
    assert number(revision.l4t)[0] == line.major
    assert any("not known yet" in text for text in warnings) == (l4t not in TABLE.revisions)
    assert any("not supported" in text for text in warnings) == (not line.supported)
    if major in TABLE.lines:
        assert line.major == major
        same = [each for each in TABLE.revisions if number(each)[0] == major]
        assert revision.l4t == nearest(l4t, same)
        between = [each for each in same if number(revision.l4t) < number(each) <= number(l4t)]
        assert between == []


def test_without_nv_tegra_release_dpkg_is_asked(tmp_path: Path) -> None:
    jetson(tmp_path, None)
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    other = "Package: nvidia-l4t-core-extra\nVersion: 1.2.3\n\n"
    status.write_text(other + "Package: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.7-20250918154033\n\n")
    device = found(tmp_path)
    assert device.l4t == "36.4.7"
    assert "argus-relaunch" in [quirk.id for quirk in device.quirks]


def test_a_jetson_without_nvidias_system_is_still_a_jetson(tmp_path: Path) -> None:
    device = found(jetson(tmp_path, None))
    assert (device.l4t, device.line, device.revision, device.quirks) == (None, None, None, ())
    assert device.module is TABLE.modules["p3767-0005"]
    assert "flash the board" in device.warnings[0]


def test_a_system_that_the_module_is_not_made_for_is_said(tmp_path: Path) -> None:
    assert found(jetson(tmp_path, "38.4.0")).warnings == ("L4T 38.4.0 is not made for Jetson Orin Nano 8GB (developer kit)",)


def test_an_old_jetpack_and_an_unknown_module_are_said(tmp_path: Path) -> None:
    device = found(jetson(tmp_path, "35.6.4", "p2972-0000+p2888-0001"))
    assert device.module is None
    old, unknown = device.warnings
    assert "Python 3.8" in old
    assert "p2972-0000+p2888-0001" in unknown


@pytest.mark.parametrize("compatible", [None, b"raspberrypi,5-model-b\0brcm,bcm2712\0"])
def test_another_machine_is_no_jetson(tmp_path: Path, compatible: bytes | None) -> None:
    if compatible:
        (tmp_path / "proc/device-tree").mkdir(parents=True)
        (tmp_path / "proc/device-tree/compatible").write_bytes(compatible)
    assert detect(tmp_path) is None


def test_quirks_are_those_of_the_release_and_the_family(tmp_path: Path) -> None:
    orin, thor = (found(jetson(tmp_path / name, "39.2.1", name)) for name in ("p3768-0000+p3767-0000", "p4071-0000+p3834-0008"))
    assert {quirk.id for quirk in orin.quirks} == {"nvdla-compiler", "firmware-stays"}
    assert {quirk.id for quirk in thor.quirks} == {"openrm", "no-reset"}


def test_the_page_for_people_says_what_the_table_says() -> None:
    page = (Path(__file__).parents[2] / "jetson/README.md").read_text()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if re.match(r"\| \d", line)]
    supported = [line for line in TABLE.lines.values() if line.supported]
    assert len(rows) == len(supported)
    for row, line in zip(rows, supported, strict=True):
        assert row[0].startswith(line.jetpack)
        assert row[1].split()[0] == f"R{line.major}"
        assert row[3] == line.python
        assert f"--python {line.python}" in row[4]
    assert set(re.findall(r"--board (\S+)", page)) <= set(TABLE.boards)
    assert set(re.findall(r"Jetson_Linux_\S+?_aarch64\.tbz2", page)) <= {each.driver_package for each in TABLE.revisions.values()}
