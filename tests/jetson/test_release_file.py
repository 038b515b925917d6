"""What a release file promises: the same bytes for the same files, and a description that is checked."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from released import PYTHON, make_release, make_system

from sage_edge.jetson.host.archive import pack
from sage_edge.jetson.release_file import Release, ReleaseError, pythons

FILES = {"site/a/one.py": "one = 1\n", "site/b.so": "a\x00" * 2500, "systemd/sage-edge.conf": ""}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = make_release(tmp_path / "one", FILES), make_release(tmp_path / "two", dict(reversed(FILES.items())))
    os.utime(tmp_path / "two/content-1.0/site/b.so", (1, 1))
    assert pack(tmp_path / "two/content-1.0", tmp_path / "two") == two
    assert one.name == f"sage-edge-1.0-py{PYTHON.replace('.', '')}-aarch64.tar.gz"
    assert one.read_bytes() == two.read_bytes()


def test_no_such_file_and_no_archive_are_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path / "text", "no release"), (tmp_path, "is no release")):
        with pytest.raises(ReleaseError, match=said):
            Release.read(path)


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
