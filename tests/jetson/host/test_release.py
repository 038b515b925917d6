"""jetson/release: which wheels of which Python a board gets, the same bytes again, and one line for what cannot be."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from released import elf_head
from ssh_server import run_tool
from wheels_by_hand import OURS, make_ours, make_wheel

from sage_edge.jetson import boards
from sage_edge.jetson.host.errors import HostError
from sage_edge.jetson.host.launchers import MODULES
from sage_edge.jetson.host.release import EXTRAS, make_release, read_bundle
from sage_edge.jetson.host.site_folder import GLIBCS, pins_for, platform_options
from sage_edge.jetson.release_file import Release
from sage_edge.runtime.bundle import digest_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip finds an empty index and nothing of this machine's settings; the checkout's revision is not known, which somebody may just be changing."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """What `release` reads of a bundle: its manifest and the files that it lists."""
    folder = tmp_path / "small.sage"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx/visual.fp32.onnx").write_bytes(b"graph")
    sha256 = hashlib.sha256(b"graph").hexdigest()
    manifest = {"files": {"onnx/visual.fp32.onnx": {"size": 5, "sha256": sha256}}, "trained_on": {"name": "made up", "synthetic": True}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": digest_of(manifest)}))
    return folder


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels as one that was kept: the same part for several Pythons, machines and versions of glibc."""
    folder = tmp_path / "wheels"
    for python, glibc, machine in (("310", 35, "aarch64"), ("312", 38, "aarch64"), ("310", 36, "aarch64"), ("310", 17, "x86_64")):
        tags = f"cp{python}-cp{python}-manylinux_2_{glibc}_{machine}"
        make_wheel(folder, f"board_part-1.0-{tags}.whl", {"board_part.py": f"tags = {tags!r}\n"})
    return folder


def quiet(_: str) -> None:
    pass


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as stream:
        return {member.name: stream.extractfile(member).read() for member in stream}  # type: ignore[union-attr]


def test_a_release_holds_the_wheels_of_its_python_the_model_the_units_and_no_trace_of_the_host(tmp_path: Path, bundle: Path, wheels: Path) -> None:
    said: list[str] = []
    archive = make_release("3.10", bundle, tmp_path / "out", wheel=make_ours(tmp_path), wheels=wheels, say=said.append)
    held = members(archive)
    assert b"cp310-cp310-manylinux_2_35_aarch64" in held["site/board_part.py"]
    assert {name for name in held if name.startswith("bin/")} == {"bin/launch.py", *(f"bin/{name}" for name in MODULES)}
    assert held["model/small.sage/onnx/visual.fp32.onnx"] == b"graph"
    units = {path.name for path in (ROOT / "jetson/systemd").iterdir() if path.is_file()}
    assert {name.removeprefix("systemd/") for name in held if name.startswith("systemd/")} == units
    release = Release.read(archive)
    assert re.fullmatch(r"9\.9\+[0-9a-f]{8}", release.version)
    assert release.model_digest == read_bundle(bundle)["digest"]
    assert not [name for name, content in held.items() if str(tmp_path).encode() in content]
    assert not [name for name in held if "__pycache__" in name or name.endswith((".pyc", "direct_url.json"))]
    assert any("SAGE_EDGE_ALLOW_DEMO=yes" in line for line in said)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [archive.name]
    assert OURS not in {path.name for path in wheels.iterdir()}

    again = make_release("3.10", bundle, tmp_path / "again", wheel=make_ours(tmp_path), wheels=wheels, say=quiet)
    assert again.name == archive.name
    assert again.read_bytes() == archive.read_bytes()
    other = make_release("3.12", bundle, tmp_path / "again", wheel=make_ours(tmp_path), wheels=wheels, say=quiet)
    assert b"cp312-cp312-manylinux_2_38_aarch64" in members(other)["site/board_part.py"]
    assert Release.read(other).version != release.version


@pytest.mark.slow
def test_what_cannot_be_is_one_line_and_leaves_nothing(tmp_path: Path, bundle: Path, wheels: Path) -> None:
    ours = make_ours(tmp_path)
    foreign = make_wheel(tmp_path, "sage_edge-9.9-py3-none-manylinux_2_17_x86_64.whl", {})
    damaged = tmp_path / "damaged.sage"
    (damaged / "onnx").mkdir(parents=True)
    (damaged / "manifest.json").write_text((bundle / "manifest.json").read_text())
    (damaged / "onnx/visual.fp32.onnx").write_bytes(b"graqh")
    absolute, unsaid = tmp_path / "absolute.sage", tmp_path / "unsaid.sage"
    graph = read_bundle(bundle)["files"]["onnx/visual.fp32.onnx"]
    manifest = {"files": {str(bundle / "onnx/visual.fp32.onnx"): graph}, "trained_on": {"synthetic": True}}
    for folder, content in ((absolute, manifest), (unsaid, {"files": {}})):
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({**content, "digest": digest_of(content)}))
    for options, said in (
        (("--bundle", bundle, "--wheel", foreign), "is no wheel of sage-edge for aarch64"),
        (("--bundle", bundle, "--wheel", ours, "--python", "3.11"), "pip cannot fetch the wheels: "),
        (("--bundle", damaged, "--wheel", ours), "is not what its manifest lists"),
        (("--bundle", tmp_path / "none.sage", "--wheel", ours), "No such file or directory; name a bundle"),
        (("--bundle", wheels, "--wheel", ours), "name a bundle"),
        (("--bundle", absolute, "--wheel", ours), "is not what its manifest lists"),
        (("--bundle", unsaid, "--wheel", ours), "is not what its manifest lists"),
        (("--bundle", bundle, "--wheel", ours, "--out", ours), "File exists; check the path"),
    ):
        refused = run_tool("release", "--wheels", wheels, "--out", tmp_path / "out", *options)
        assert refused.returncode == 1, refused.stdout
        assert refused.stderr.startswith("error: ")
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert said in refused.stderr
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_requirement_of_the_boards_python_is_not_forgotten_on_a_host_with_another(tmp_path: Path, bundle: Path) -> None:
    """pip reads `python_version` for the Python that runs it; whichever that is here, one of these two is not the board's."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    board = "3.12" if here != "3.12" else "3.11"
    ours = make_ours(tmp_path, [f'board-part>=1; python_version == "{board}"'])
    with pytest.raises(HostError, match=f"sage_edge needs board-part>=1 and there is none, on the board's Python {re.escape(board)}"):
        make_release(board, bundle, tmp_path / "out", wheel=ours, wheels=tmp_path / "wheels", say=quiet)


@pytest.mark.slow
def test_our_own_wheel_stays_where_the_others_are_kept(tmp_path: Path, bundle: Path, wheels: Path) -> None:
    """In a folder whose name looks like extras, and with the wheels fetched from an index, of which pip keeps a copy."""
    index = tmp_path / "index/board-part"
    index.mkdir()
    for wheel in wheels.iterdir():
        wheel.rename(index / wheel.name)
    (index / "index.html").write_text("".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in index.glob("*.whl")))
    for folder in (tmp_path / "o[1]", tmp_path / "kept"):
        ours = make_ours(folder)
        make_release("3.10", bundle, folder, wheel=ours, wheels=tmp_path / "kept", say=quiet)
        assert ours.exists()
    kept = [path.name for path in (tmp_path / "kept").glob("*.whl")]
    assert sorted(kept) == ["board_part-1.0-cp310-cp310-manylinux_2_35_aarch64.whl", OURS]


@pytest.mark.slow
def test_a_library_of_another_machine_is_refused(tmp_path: Path, bundle: Path) -> None:
    make_wheel(tmp_path / "wheels", "board_part-1.0-py3-none-any.whl", {"board_part/fast.so": elf_head(62)})
    with pytest.raises(HostError, match=r"board_part/fast\.so is for x86_64, not aarch64"):
        make_release("3.10", bundle, tmp_path / "out", wheel=make_ours(tmp_path), wheels=tmp_path / "wheels", say=quiet)


def test_the_pythons_are_those_of_the_supported_boards_with_their_glibc_and_one_to_try_on() -> None:
    lines = [line for line in boards.table().lines.values() if line.supported]
    assert {line.python for line in lines} | {"3.11"} == set(GLIBCS)
    assert all(line.glibc == f"2.{GLIBCS[line.python]}" for line in lines)


def test_each_python_gets_each_pin_once() -> None:
    for python in GLIBCS:
        pins = list(pins_for(python))
        names = [pin.partition("==")[0] for pin in pins]
        assert len(names) == len(set(names))
        assert {"numpy", "onnxruntime", "opencv-python-headless", "av", "soxr", "sounddevice"} <= set(names)
    assert {"numpy==2.2.6", "onnxruntime==1.23.2"} <= set(pins_for("3.10"))


@pytest.mark.slow
@pytest.mark.parametrize("python", GLIBCS)
def test_all_that_sage_edge_needs_is_there_as_wheels_for_the_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    """At the versions of constraints.txt, from the index; nothing but their metadata is fetched."""
    monkeypatch.delenv("PIP_CONFIG_FILE")
    monkeypatch.delenv("PIP_INDEX_URL")
    declared = (ROOT / "pyproject.toml").read_text()
    requires = re.findall(r'"([^"]+)"', declared[declared.index("\ndependencies = [") :].partition("\n]")[0])
    for extra in EXTRAS:
        line = re.search(rf"^{extra} = \[(.*)\]$", declared, re.MULTILINE)
        assert line
        requires += [f'{each} ; extra == "{extra}"' for each in re.findall(r'"([^"]+)"', line[1])]
    ours = make_ours(tmp_path, requires)
    (tmp_path / "pins").write_text("\n".join(pins_for(python)))
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--target", tmp_path / "site", "--report", "-"]
    options = [*platform_options(python), "--only-binary=:all:", "-c", tmp_path / "pins", f"{ours}[{','.join(EXTRAS)}]"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["install"]
    pinned = {pin.partition("==")[0] for pin in pins_for(python)} | {"sage-edge"}
    assert {each["metadata"]["name"].lower().replace("_", "-") for each in report} <= pinned
    chosen = [each["download_info"]["url"].rsplit("/", 1)[1] for each in report]
    assert len(chosen) > 10
    assert all("aarch64" in name or name.endswith("-none-any.whl") for name in chosen)
