"""The plan of every board, storage and JetPack is what NVIDIA's guides say, and what can never work is refused with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_bsp import FakeBsp
from released import make_release

from sage_edge.jetson.boards import number, table
from sage_edge.jetson.host.errors import HostError
from sage_edge.jetson.host.flash_plan import STEPS, STORAGES, Wish, make_plan

TABLE = table()
NVME36 = "-c tools/kernel_flash/flash_l4t_t234_nvme.xml"
QSPI = '-p "-c bootloader/generic/cfg/flash_t234_qspi.xml"'
ORIN = "jetson-orin-nano-devkit-super"
INITRD36 = "./tools/kernel_flash/l4t_initrd_flash.sh"
GUIDES = {
    (
        "36.4.4",
        "jetson-orin-nano-devkit-super",
        "nvme",
    ): f"{INITRD36} --external-device nvme0n1p1 {NVME36} {QSPI} --showlogs --network usb0 BOARD internal",
    ("36.4.4", ORIN, "sd"): f"{INITRD36} --external-device mmcblk0p1 {NVME36} {QSPI} --showlogs --network usb0 BOARD internal",
    (
        "36.5.0",
        "jetson-orin-nano-devkit",
        "usb",
    ): f"{INITRD36} --external-device sda1 {NVME36} {QSPI} --erase-all --showlogs --network usb0 BOARD internal",
    ("36.4.4", "jetson-agx-orin-devkit", "nvme"): f"{INITRD36} --external-device nvme0n1p1 {NVME36} --showlogs --network usb0 BOARD external",
    ("36.5.2", "jetson-agx-orin-devkit", "sd"): f"{INITRD36} --external-device mmcblk0p1 {NVME36} --showlogs --network usb0 BOARD external",
    ("36.4.4", "jetson-agx-orin-devkit", "emmc"): "./flash.sh BOARD internal",
    ("39.2.0", ORIN, "nvme"): "./l4t_initrd_flash.sh --erase-all BOARD internal",
    ("39.2.1", ORIN, "sd"): "./l4t_initrd_flash.sh --external-device mmcblk0p1 --erase-all BOARD internal",
    ("39.2.1", "jetson-agx-orin-devkit", "usb"): f"./l4t_initrd_flash.sh --external-device sda1 {NVME36} --erase-all BOARD external",
    ("39.2.1", "jetson-agx-orin-devkit-industrial", "emmc"): "./flash.sh --erase-all BOARD internal",
    ("38.2.1", "jetson-agx-thor-devkit", "nvme"): "./l4t_initrd_flash.sh BOARD internal",
    ("39.2.1", "jetson-agx-thor-t4000", "usb"): "ADDITIONAL_DTB_OVERLAY_OPT=BootOrderUsb.dtbo ./l4t_initrd_flash.sh --external-device sda1 "
    "-c ./tools/kernel_flash/flash_l4t_t264_nvme.xml --showlogs BOARD internal",
}
"""Copied from the Quick Starts of R36.4.3, R36.5, R39.2.1, Flashing Support for Jetson Thor and README_initrd_flash.txt, not made from the table."""


def wish(board: str, storage: str = "nvme", **others: object) -> Wish:
    return Wish(**{"board": board, "storage": storage, "user": "sage", "hostname": "edge-1", **others})  # type: ignore[arg-type]


def combinations() -> list[tuple[str, str, str]]:
    """Every board x storage x release that exists."""
    return [
        (l4t, board.name, storage)
        for l4t in TABLE.revisions
        for board in TABLE.boards.values()
        for storage in TABLE.storages_of(board)
        if number(l4t)[0] in board.since and number(board.since[number(l4t)[0]]) <= number(l4t)
    ]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FakeBsp]:
    return {l4t: FakeBsp(tmp_path_factory.mktemp("bsp"), l4t) for l4t in TABLE.revisions}


@pytest.mark.parametrize(("l4t", "board", "storage"), GUIDES)
def test_the_command_is_the_one_of_nvidias_guide(packages: dict[str, FakeBsp], l4t: str, board: str, storage: str) -> None:
    command = make_plan(packages[l4t].bsp, wish(board, storage)).steps[-1].command()
    assert command.replace("'", '"') == GUIDES[l4t, board, storage].replace("BOARD", board)


def test_every_board_storage_and_release_has_a_plan_in_the_order_of_the_guide(packages: dict[str, FakeBsp], tmp_path: Path) -> None:
    releases = {python: make_release(tmp_path / python, python=python) for python in ("3.10", "3.12")}
    assert len(combinations()) > 100
    for l4t, board, storage in combinations():
        fake = packages[l4t]
        python = TABLE.lines[number(l4t)[0]].python
        plan = make_plan(fake.bsp, wish(board, storage, release=releases[python]))
        assert tuple(step.name for step in plan.steps) == STEPS
        flash = plan.steps[-1].argv
        assert (fake.root / flash[0]).exists()
        assert board in flash
        assert flash[-1] in ("internal", "external")
        assert ("--openrm" in plan.steps[2].argv) == ("thor" in board)
        if "--external-device" in flash:
            assert flash[flash.index("--external-device") + 1] == STORAGES[storage]
        assert all(step.why and step.proof for step in plan.steps)
        assert plan.warnings == ()


def test_what_the_table_does_not_pair_is_refused_with_what_fits(packages: dict[str, FakeBsp]) -> None:
    every = {(l4t, board, storage) for l4t in TABLE.revisions for board in TABLE.boards for storage in STORAGES}
    for l4t, board, storage in sorted(every - set(combinations())):
        with pytest.raises(HostError, match=r"takes? |take L4T") as refused:
            make_plan(packages[l4t].bsp, wish(board, storage))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("l4t", "board", "says"),
    [
        ("38.4.0", "jetson-orin-nano-devkit-super", "not made for Jetson Orin Nano and Orin NX: .* takes L4T 36.4.3 and newer"),
        ("36.4.4", "jetson-agx-thor-devkit", "not made for Jetson Thor: jetson-agx-thor-devkit takes L4T 38.2.0"),
        ("36.4.0", "jetson-orin-nano-devkit-super", "does not know jetson-orin-nano-devkit-super yet: take L4T 36.4.3 and newer of R36"),
        ("38.2.0", "jetson-agx-thor-t4000", "take L4T 38.4.0"),
        ("36.4.4", "jetson-agx-orin-devkit-super", "take L4T 39.2.0"),
        ("35.6.4", "jetson-agx-orin-devkit", "Python 3.8"),
        ("36.4.4", "jetson-orin-nano-super", "did you mean jetson-orin-nano-devkit-super"),
        ("36.4.4", "raspberry", "--board takes jetson-orin-nano-devkit, "),
    ],
)
def test_the_wrong_l4t_for_the_module_names_the_right_one(packages: dict[str, FakeBsp], l4t: str, board: str, says: str) -> None:
    with pytest.raises(HostError, match=says):
        make_plan(packages[l4t].bsp, wish(board))


def test_an_unknown_revision_warns_and_is_planned_like_its_neighbour(tmp_path: Path) -> None:
    plan = make_plan(FakeBsp(tmp_path, "36.9.1").bsp, wish("jetson-orin-nano-devkit-super"))
    assert plan.warnings == ("L4T 36.9.1 is not known yet, taken for 36.5.2 (JetPack 6.2.3)",)
    assert "--erase-all" in plan.steps[-1].argv


def test_a_folder_that_is_no_driver_package_names_where_one_is(tmp_path: Path) -> None:
    fake = FakeBsp(tmp_path, "36.4.4")
    (fake.root / "nv_tegra/bsp_version").unlink()
    with pytest.raises(HostError, match=r"no driver package.*https://developer\.nvidia\.com"):
        make_plan(fake.bsp, wish("jetson-orin-nano-devkit"))


def test_a_package_under_a_path_with_a_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my jetson").mkdir()
    with pytest.raises(HostError, match=r"has a space in its path.*move it"):
        make_plan(FakeBsp(tmp_path / "my jetson", "36.4.4").bsp, wish("jetson-orin-nano-devkit"))


@pytest.mark.parametrize("lost", ["jetson-orin-nano-devkit.conf", "apply_binaries.sh", "tools/kernel_flash/flash_l4t_t234_nvme.xml"])
def test_a_package_that_lacks_a_file_names_it_and_the_archive(tmp_path: Path, lost: str) -> None:
    fake = FakeBsp(tmp_path, "36.4.3")
    (fake.root / lost).unlink()
    with pytest.raises(HostError, match=rf"{lost}.*unpack Jetson_Linux_r36\.4\.3_aarch64\.tbz2 again \(https://.*/r36_release_v4\.3/"):
        make_plan(fake.bsp, wish("jetson-orin-nano-devkit"))


def test_a_release_for_another_python_is_refused_with_the_command_that_makes_the_right_one(packages: dict[str, FakeBsp], tmp_path: Path) -> None:
    release = make_release(tmp_path, python="3.12")
    with pytest.raises(HostError, match=r"is for Python 3\.12 on aarch64, JetPack 6 has 3\.10.*jetson/release --python 3\.10"):
        make_plan(packages["36.4.4"].bsp, wish("jetson-orin-nano-devkit", release=release))
    with pytest.raises(HostError, match="on x86_64"):
        other = make_release(tmp_path / "x", python="3.10", arch="x86_64")
        make_plan(packages["36.4.4"].bsp, wish("jetson-orin-nano-devkit", release=other))
    with pytest.raises(HostError, match="nothing"):
        make_plan(packages["36.4.4"].bsp, wish("jetson-orin-nano-devkit", release=tmp_path / "nothing.tar.gz"))


@pytest.mark.parametrize(
    ("l4t", "board", "media_gb", "fits"),
    [
        ("36.4.4", "jetson-orin-nano-devkit", 32, False),
        ("36.4.4", "jetson-orin-nano-devkit", 64, True),
        ("38.4.0", "jetson-agx-thor-devkit", 128, True),
        ("39.2.1", "jetson-agx-thor-devkit", 128, False),
        ("39.2.1", "jetson-agx-thor-devkit", 256, True),
    ],
)
def test_media_too_small_for_the_partitions_is_refused_when_its_size_is_given(
    packages: dict[str, FakeBsp], l4t: str, board: str, media_gb: int, fits: bool
) -> None:
    asked = wish(board, media_gb=media_gb)
    if fits:
        assert make_plan(packages[l4t].bsp, asked).media_gb <= media_gb
    else:
        with pytest.raises(HostError, match=f"NVMe drive of {media_gb} GB: the partition layout needs"):
            make_plan(packages[l4t].bsp, asked)


USERS = [{"user": name} for name in ("root", "sage-edge", "Ada", "a b", "-p")]


@pytest.mark.parametrize("names", [*USERS, {"hostname": "edge_1"}, {"hostname": "-a"}])
def test_names_that_the_board_would_not_take_are_refused(packages: dict[str, FakeBsp], names: dict[str, str]) -> None:
    with pytest.raises(HostError, match="small letters"):
        make_plan(packages["36.4.4"].bsp, wish("jetson-orin-nano-devkit", **names))


def test_a_password_is_in_the_command_and_never_shown(packages: dict[str, FakeBsp]) -> None:
    step = make_plan(packages["36.4.4"].bsp, wish("jetson-orin-nano-devkit", password="s3cret word")).steps[3]
    assert step.argv[step.argv.index("-p") + 1] == "s3cret word"
    assert "s3cret" not in step.command()
    assert "********" in step.command()
