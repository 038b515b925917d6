"""The units of the service: systemd's own tools find nothing wrong, and what they name is where the programs look for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sage_edge.jetson.as_service import GROUPS, USER
from sage_edge.jetson.health import UNIT
from sage_edge.jetson.host.launchers import write_launchers
from sage_edge.jetson.layout import PREPARED, Layout

UNITS = Path(__file__).parents[2] / "jetson/systemd"
SYSTEM = Path("/usr/lib/systemd/system")
NAMES = sorted(path.name for path in UNITS.glob("*.service"))
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM.is_dir(), reason="systemd's tools are missing: apt-get install systemd"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What of a board systemd looks at: its own units, ours, and the programs that they start."""
    made = tmp_path / "root"
    shutil.copytree(SYSTEM, made / SYSTEM.relative_to("/"), symlinks=True)
    (made / "etc").mkdir()
    shutil.copytree(UNITS, made / "etc/systemd/system")
    (made / "usr/bin").mkdir()
    shutil.copy("/usr/bin/systemd-sysusers", made / "usr/bin")
    for name in ("current", "previous"):
        (made / "opt/sage-edge" / name).mkdir(parents=True)
        write_launchers(made / "opt/sage-edge" / name / "bin", "3.10")
    return made


def verify(root: Path, *names: str) -> str:
    done = subprocess.run(["systemd-analyze", "verify", f"--root={root}", *names], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")


def exposure(name: str, root: Path | None = None) -> float:
    where = [str(UNITS / name)] if root is None else [f"--root={root}", name]
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", *where], capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def with_network(root: Path) -> None:
    folder = root / "etc/systemd/system/sage-edge.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "sage-edge-network.conf", folder / "network.conf")


@needs_systemd
def test_systemd_finds_nothing_to_say_about_any_unit(root: Path) -> None:
    assert verify(root, *NAMES) == ""
    with_network(root)
    assert verify(root, *NAMES) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("change", "complaint"),
    [("WatchdogSec", "WatchdgSec"), ("bin/sage-edge-service", "bin/sage-edge-servce"), ("Type=notify", "Type=notfy")],
)
def test_a_slip_in_a_unit_would_be_seen(root: Path, change: str, complaint: str) -> None:
    path = root / "etc/systemd/system" / UNIT
    path.write_text(path.read_text().replace(change, complaint))
    assert verify(root, *NAMES) != ""


@needs_systemd
def test_the_service_is_exposed_little_enough_with_and_without_a_network(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {name: exposure(name) for name in NAMES}
    with_network(root)
    values[f"{UNIT} with a network"] = exposure(UNIT, root)
    with capsys.disabled():
        print("\nsystemd-analyze security: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    assert values[UNIT] <= 3.0
    assert values[f"{UNIT} with a network"] <= 3.0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is missing: apt-get install systemd")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users, also in a folder")
def test_the_user_is_made_with_every_group_that_the_service_asks_for(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name, text in {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\nvideo:x:44:\n"}.items():
        (tmp_path / "etc" / name).write_text(text)
    (tmp_path / "etc/sysusers.d").mkdir()
    shutil.copy(UNITS / "sysusers.conf", tmp_path / "etc/sysusers.d")
    for _ in range(2):  # again does nothing
        subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True, capture_output=True)
    groups = {line.split(":")[0]: line.split(":")[3].strip() for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert all(groups[group] == USER for group in GROUPS)
    (user,) = [line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith(f"{USER}:")]
    assert user.split(":")[5] == str(Layout().cache)
    assert user.endswith("nologin")


def test_units_name_the_paths_that_the_programs_use() -> None:
    layout, text = Layout(), {name: (UNITS / name).read_text() for name in NAMES}
    assert set(NAMES) == {UNIT, "sage-edge-first-boot.service", "sage-edge-rollback.service"}
    assert f"ConditionPathExists=|!{layout.stamp}\nConditionPathExists=|!{layout.cache / PREPARED}\n" in text["sage-edge-first-boot.service"]
    assert f"ConditionPathExists={layout.trial}\n" in text["sage-edge-rollback.service"]
    resume = "/bin/sage-edge-update resume\n"
    assert f"ExecStart=-{layout.previous}{resume}ExecStart=-{layout.current}{resume}" in text["sage-edge-rollback.service"]
    assert f"EnvironmentFile=-{layout.settings}\n" in text[UNIT]
    assert f"SupplementaryGroups={' '.join(GROUPS)}\n" in text[UNIT]
    assert f"User={USER}\n" in text[UNIT]
    assert f"CacheDirectory={layout.cache.name}\n" in text[UNIT]
    assert f"Environment=TMPDIR={layout.cache}\n" in text[UNIT], "the system's own are read-only there"
    for unit in text.values():
        programs = re.findall(r"^ExecStart=-?(\S+)", unit, re.MULTILINE)
        assert all(program.startswith((f"{layout.current}/bin/", f"{layout.previous}/bin/")) for program in programs)


def test_what_runs_before_the_service_is_ordered_before_it() -> None:
    service = (UNITS / UNIT).read_text()
    assert "Requires=sage-edge-first-boot.service\nAfter=sage-edge-first-boot.service\n" in service
    assert "OnFailure=sage-edge-rollback.service\n" in service
    assert f"Before={UNIT} sage-edge-first-boot.service\n" in (UNITS / "sage-edge-rollback.service").read_text()


def test_every_udev_rule_has_the_form_of_one_and_sets_nothing_but_power() -> None:
    token = r'[A-Z]+(\{[\w/]+\})?(==|!=|=|\+=|:=)"[^"]*"'
    for line in (UNITS / "60-sage-edge.rules").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(rf"{token}(, {token})*", line), line
            assert re.findall(r'(\S+?)(?<![=!])=(?!=)"', line) == ["ATTR{power/control}"]
