"""What a release file promises: the same bytes for the same files, whole on the disk or not at all, nothing outside its folder."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from released import PYTHON, make_release, make_system

from sage_edge.jetson.host.archive import pack
from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import Release, ReleaseError, pythons, unpack

FILES = {"site/a/one.py": "one = 1\n", "site/b.so": "a\x00" * 2500, "systemd/sage-edge.conf": ""}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(make_system(tmp_path / "root"))


def rewrite(archive: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> Path:
    """A copy of `archive` whose members `change` has edited in place."""
    with tarfile.open(archive) as stream:
        members = [(member, stream.extractfile(member).read() if member.isreg() else b"") for member in stream]  # type: ignore[union-attr]
    change(members)
    target = archive.with_name("changed.tar.gz")
    with tarfile.open(target, "w:gz") as stream:
        for member, content in members:
            if member.isreg():
                member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    return target


def describe(change: Callable[[dict[str, object]], object]) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]:
    """A change of release.json's keys."""

    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        value = json.loads(members[0][1])
        change(value)
        members[0] = (members[0][0], json.dumps(value).encode())

    return edit


def named(name: str, content: bytes = b"evil", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, content


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_release_arrives_as_it_was_packed_and_a_second_time_touches_nothing(tmp_path: Path, layout: Layout) -> None:
    archive = make_release(tmp_path, FILES)
    umask = os.umask(0o077)
    try:
        folder = unpack(archive, layout)
    finally:
        os.umask(umask)
    assert folder == layout.versions / "1.0"
    assert contents(folder) == contents(tmp_path / "content-1.0")
    modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes["bin/sage-edge"] == 0o755
    assert modes["site/b.so"] == 0o644
    assert modes["site/a"] == 0o755
    assert folder.stat().st_mode & 0o777 == 0o755
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert unpack(archive, layout) == folder
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before
    assert [path.name for path in layout.versions.iterdir()] == ["1.0"]


def test_the_version_that_runs_is_not_replaced_by_another_of_its_name(tmp_path: Path, layout: Layout) -> None:
    folder = unpack(make_release(tmp_path / "one", FILES), layout)
    other = make_release(tmp_path / "two", {**FILES, "site/b.so": "other"})
    layout.current.symlink_to("versions/1.0")
    before = contents(folder)
    with pytest.raises(ReleaseError, match="runs and is another release of that version; make this one with another version"):
        unpack(other, layout)
    assert contents(folder) == before
    layout.current.unlink()
    assert contents(unpack(other, layout)) != before


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = make_release(tmp_path / "one", FILES), make_release(tmp_path / "two", dict(reversed(FILES.items())))
    os.utime(tmp_path / "two/content-1.0/site/b.so", (1, 1))
    assert pack(tmp_path / "two/content-1.0", tmp_path / "two") == two
    assert one.name == f"sage-edge-1.0-py{PYTHON.replace('.', '')}-aarch64.tar.gz"
    assert one.read_bytes() == two.read_bytes()


def test_a_damaged_or_foreign_file_in_an_installed_release_is_found_and_installing_again_mends_it(tmp_path: Path, layout: Layout) -> None:
    archive = make_release(tmp_path, FILES)
    release, folder = Release.read(archive), unpack(archive, layout)
    (folder / "site/a/__pycache__").mkdir()
    (folder / "site/a/__pycache__/one.pyc").write_bytes(b"compiled on the board")
    release.verify(folder)
    damages: list[Callable[[], object]] = [
        lambda: (folder / "site/b.so").write_text("\x01" * 5000),
        lambda: (folder / "site/b.so").unlink(),
        lambda: (folder / "site/new.py").write_text(""),
        lambda: ((folder / "site/b.so").unlink(), (folder / "site/b.so").symlink_to(tmp_path / "content-1.0/site/b.so")),
    ]
    for damage in damages:
        damage()
        with pytest.raises(ReleaseError, match="install the release again"):
            release.verify(folder)
        unpack(archive, layout)
        release.verify(folder)
        assert contents(folder) == contents(tmp_path / "content-1.0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda members: members.append(named("../evil")), "is not what"),
        (lambda members: members.append(named("/tmp/evil")), "is not what"),
        (lambda members: members.append(named("site/link", b"", tarfile.SYMTYPE, "/etc")), "is not what"),
        (lambda members: members.__setitem__(1, named(members[1][0].name, b"", tarfile.SYMTYPE, "/etc/passwd")), "is not what"),
        (lambda members: members.append(members[1]), "is not what"),
        (lambda members: members.pop(), "is missing"),
        (lambda members: members.__setitem__(-1, (members[-1][0], b"x")), "is not what"),
        (lambda members: members.__setitem__(-1, (members[-1][0], members[-1][1].swapcase())), "sha256"),
        (lambda members: members.pop(0), "does not begin with release.json"),
        (lambda members: members.reverse(), "does not begin with release.json"),
        (lambda members: members.clear(), "damaged or no release|does not begin"),
        (describe(lambda value: value.update(schema=2)), "schema 2 and this sage-edge reads 1"),
        (describe(lambda value: value.update(schema="1")), "'schema' is '1'"),
        (describe(lambda value: value.update(version="../../etc")), "'version'"),
        (describe(lambda value: value.update(version=".hidden")), "'version'"),
        (describe(lambda value: value.pop("python")), "'python' is None"),
        (describe(lambda value: value.update(model="model/other.sage")), "is not among its files"),
        (describe(lambda value: value.update(files=[])), "'files' is no object"),
        (describe(lambda value: value["files"].update({"../evil": {"bytes": 4, "sha256": "0" * 64}})), "leads out of the release"),
        (describe(lambda value: value["files"].update({"/evil": {"bytes": 4, "sha256": "0" * 64}})), "leads out of the release"),
        (describe(lambda value: value["files"].update({"a/./evil": {"bytes": 4, "sha256": "0" * 64}})), "leads out of the release"),
        (describe(lambda value: value["files"].update({"evil": {"bytes": -4, "sha256": "0" * 64}})), "no size and sha256"),
        (describe(lambda value: value["files"].update({"evil": {"bytes": 10**400, "sha256": "0" * 64}})), "no size and sha256"),
        (lambda members: members.__setitem__(0, (members[0][0], b"[" * 100000)), "not valid JSON"),
    ],
)
def test_what_is_not_a_whole_and_safe_release_is_refused_and_leaves_nothing(
    tmp_path: Path, layout: Layout, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object], said: str
) -> None:
    archive = rewrite(make_release(tmp_path, FILES), change)
    before = contents(tmp_path)
    with pytest.raises(ReleaseError, match=said) as refused:
        unpack(archive, layout)
    assert "\n" not in str(refused.value)
    assert "; " in str(refused.value)
    assert contents(tmp_path) == before
    assert not layout.versions.exists() or list(layout.versions.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_archive_is_refused(tmp_path: Path, layout: Layout, kept: float) -> None:
    whole = make_release(tmp_path, {"site/noise": os.urandom(200_000).hex()}).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ReleaseError, match="copy it again"):
        unpack(cut, layout)
    flipped = bytearray(gzip.decompress(whole))
    flipped[len(flipped) // 2] ^= 1
    cut.write_bytes(gzip.compress(bytes(flipped), 1))
    with pytest.raises(ReleaseError, match="sha256"):
        unpack(cut, layout)
    assert list(layout.versions.iterdir()) == []


def test_what_a_killed_unpacking_left_is_removed_by_the_next_but_not_while_it_lives(tmp_path: Path, layout: Layout) -> None:
    archive = make_release(tmp_path, FILES)
    left = layout.versions / ".1.0.abc/site"
    left.mkdir(parents=True)
    handle = os.open(layout.versions, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ReleaseError, match="is being written by another process"):
        unpack(archive, layout)
    assert left.is_dir()
    os.close(handle)
    unpack(archive, layout)
    assert [path.name for path in layout.versions.iterdir()] == ["1.0"]


def test_no_such_file_and_no_archive_are_said(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "text").write_text("hello")
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path / "text", "no release"), (tmp_path, "is no release")):
        with pytest.raises(ReleaseError, match=said):
            Release.read(path)


@pytest.mark.parametrize(
    ("pythons", "machine", "arch", "said"),
    [
        (("3.12",), 183, "aarch64", "has Python 3.12; make one with jetson/release --python 3.12"),
        (("3.9", "3.12"), 183, "aarch64", "has Python 3.9, 3.12; make one with jetson/release --python 3.12"),
        (("3.10",), 62, "aarch64", "for aarch64 and .* is x86_64"),
        (("3.10",), 40, "aarch64", "is machine 40"),
        ((), 183, "aarch64", "no /usr/bin/python3.X"),
    ],
)
def test_another_python_or_machine_is_refused_with_what_to_make(tmp_path: Path, pythons: tuple[str, ...], machine: int, arch: str, said: str) -> None:
    layout = Layout(make_system(tmp_path / "root", pythons=pythons, machine=machine))
    with pytest.raises(ReleaseError, match=said):
        unpack(make_release(tmp_path, python="3.10", arch=arch), layout)
    assert not layout.prefix.exists()


def test_the_release_is_refused_before_it_fills_the_disk(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_release(tmp_path, {"site/big": "x" * (8 << 20)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 << 20))
    with pytest.raises(ReleaseError, match="has 4 MB free and the release needs 8"):
        unpack(archive, layout)


def test_pythons_reads_the_machine_and_skips_what_is_no_interpreter(tmp_path: Path) -> None:
    root = make_system(tmp_path, pythons=("3.10", "3.12"))
    (root / "usr/bin/python3.11-config").write_text("#!/bin/sh\n")
    (root / "usr/bin/python3.13").write_text("#!/bin/sh\n")
    (root / "usr/bin/python3").symlink_to("python3.10")
    assert pythons(root) == {"3.10": "aarch64", "3.12": "aarch64"}


def test_the_description_survives_its_own_text(tmp_path: Path) -> None:
    release = Release.read(make_release(tmp_path, FILES))
    assert Release.from_json(release.to_json()) == release
    with pytest.raises(ReleaseError, match="'revision'"):
        dataclasses.replace(release, revision="two words").to_json()
