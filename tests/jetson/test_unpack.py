"""What laying a release in promises: whole on the disk or not at all, nothing outside its folder, one file where two versions have the same."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from released import make_release, make_system

from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import Release, ReleaseError
from sage_edge.jetson.unpack import unpack

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
    assert modes["release.json"] == 0o644
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
    archive = make_release(tmp_path, {"site/big": "x" * (16 << 20)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=16 << 20))
    with pytest.raises(ReleaseError, match="has 16 MB free and the release needs 17"):
        unpack(archive, layout)


@pytest.fixture
def runs(tmp_path: Path, layout: Layout) -> Path:
    """The folder of version 1.0, which is `current`."""
    folder = unpack(make_release(tmp_path, FILES), layout)
    layout.current.symlink_to("versions/1.0")
    return folder


def same_file(one: Path, other: Path, name: str) -> bool:
    return (one / name).samefile(other / name)


def test_what_the_running_version_has_is_linked_and_stays_when_that_version_goes(tmp_path: Path, layout: Layout, runs: Path) -> None:
    archive = make_release(tmp_path, {**FILES, "site/b.so": "b" * 5000, "site/new.py": "one = 1\n"}, version="1.1")
    folder = unpack(archive, layout)
    assert {name for name in contents(folder) if (runs / name).exists() and same_file(folder, runs, name)} == {
        "site/a/one.py",
        "systemd/sage-edge.conf",
    }
    assert contents(runs) == contents(tmp_path / "content-1.0")
    shutil.rmtree(runs)
    Release.read(archive).verify(folder)
    assert contents(folder) == contents(tmp_path / "content-1.1")


def append(path: Path) -> None:
    with open(path, "a") as stream:
        stream.write("x")


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [append, Path.unlink, as_link, lambda path: path.chmod(0o664), lambda path: path.chmod(0o755)])
def test_what_is_not_as_it_was_released_any_more_comes_from_the_archive(
    tmp_path: Path, layout: Layout, runs: Path, damage: Callable[[Path], object]
) -> None:
    damage(runs / "site/b.so")
    folder = unpack(make_release(tmp_path, FILES, version="1.1"), layout)
    assert not (runs / "site/b.so").exists() or not same_file(folder, runs, "site/b.so")
    assert same_file(folder, runs, "site/a/one.py")
    assert (folder / "site/b.so").lstat().st_mode == stat.S_IFREG | 0o644
    assert contents(folder) == contents(tmp_path / "content-1.1")


def test_a_folder_that_was_put_in_the_place_of_one_of_its_own_is_not_shared(tmp_path: Path, layout: Layout, runs: Path) -> None:
    as_link(runs / "site")
    folder = unpack(make_release(tmp_path, FILES, version="1.1"), layout)
    assert not same_file(folder, runs, "site/b.so")
    assert same_file(folder, runs, "systemd/sage-edge.conf")


def test_a_current_that_lies_elsewhere_shares_nothing(tmp_path: Path, layout: Layout, runs: Path) -> None:
    elsewhere = Path(shutil.copytree(runs, tmp_path / "elsewhere/1.0"))
    layout.current.unlink()
    layout.current.symlink_to(elsewhere)  # a root file system whose link means a folder of the host
    folder = unpack(make_release(tmp_path, FILES, version="1.1"), layout)
    assert not any(same_file(folder, elsewhere, name) for name in FILES)


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")
def test_a_file_that_somebody_else_owns_is_not_shared(tmp_path: Path, layout: Layout, runs: Path) -> None:
    os.chown(runs / "site/b.so", 1000, -1)
    folder = unpack(make_release(tmp_path, FILES, version="1.1"), layout)
    assert not same_file(folder, runs, "site/b.so")
    assert (folder / "site/b.so").stat().st_uid == 0


def test_a_file_system_without_links_gets_files(tmp_path: Path, layout: Layout, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as vfat says it

    monkeypatch.setattr(os, "link", link)
    folder = unpack(make_release(tmp_path, FILES, version="1.1"), layout)
    assert not any(same_file(folder, runs, name) for name in FILES)
    assert contents(folder) == contents(tmp_path / "content-1.1")


def test_a_damaged_version_is_mended_by_what_it_lacks_alone(tmp_path: Path, layout: Layout, runs: Path) -> None:
    before = (runs / "site/a/one.py").stat().st_ino
    append(runs / "site/b.so")
    assert unpack(tmp_path / make_release(tmp_path, FILES).name, layout) == runs
    assert (runs / "site/a/one.py").stat().st_ino == before
    assert contents(runs) == contents(tmp_path / "content-1.0")


def test_room_is_asked_for_what_has_to_be_written(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(make_release(tmp_path, {"site/big": "x" * (8 << 20)}), layout)
    layout.current.symlink_to("versions/1.0")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 << 20))
    unpack(make_release(tmp_path, {"site/big": "x" * (8 << 20)}, version="1.1"), layout)
    with pytest.raises(ReleaseError, match="has 4 MB free and the release needs 8"):
        unpack(make_release(tmp_path, {"site/big": "y" * (8 << 20)}, version="1.2"), layout)
