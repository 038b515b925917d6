"""Fill a folder with wheels for a board's Python and machine, as `pip install --target` unpacks those of another platform: nothing of them is run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..release_file import machine_of
from .errors import HostError
from .wheel import ROOT

ARCH = "aarch64"
GLIBCS = {"3.10": 35, "3.11": 36, "3.12": 39}
"""Python -> minor version of glibc 2 beside it: Ubuntu 22.04 (JetPack 6), Debian 12 (the emulated machine), Ubuntu 24.04 (JetPack 7)."""
_OLDEST_GLIBC = 17
"""The oldest for which there are AArch64 wheels: manylinux2014 (PEP 599)."""
_OF_THE_HOST = ("direct_url.json", "REQUESTED")
"""What pip notes about the machine and the command that installed."""


def fill_site(site: Path, python: str, requirement: str, wheels: Path, say: Callable[[str], None]) -> None:
    """Unpack `requirement` (a wheel's path with extras) and all it needs into the new folder `site`, at the versions of constraints.txt.

    The wheels are taken from the folder `wheels` where they are there; what is not is fetched into it, and said. Raises HostError where pip
    cannot, where a requirement for the board is not met, and for a library of another machine.
    """
    ours, _, extras = requirement.removesuffix("]").rpartition("[") if requirement.endswith("]") else (requirement, "", "")
    copied = wheels / Path(ours).name
    is_theirs = copied.exists()
    pip = [_python_with_pip(), "-m", "pip", "--disable-pip-version-check", "--no-color", "--no-input"]
    wheels.mkdir(parents=True, exist_ok=True)
    pins = wheels / f".constraints-{python}.txt"
    pins.write_text("\n".join(pins_for(python)) + "\n")
    chosen = [*platform_options(python), "--only-binary=:all:", "-c", str(pins), requirement]
    unpack = [*pip, "install", "--no-index", "--find-links", str(wheels), "--no-compile", "--target", str(site), *chosen]
    try:
        if _run(unpack).returncode:
            shutil.rmtree(site, ignore_errors=True)
            say(f"fetched by pip, from the index that it is set to, for Python {python} on {ARCH}:")
            _fetch([*pip, "download", "--progress-bar", "off", "--find-links", str(wheels), "--dest", str(wheels), *chosen], say)
            done = _run(unpack)
            if done.returncode:
                raise HostError(f"pip cannot unpack the wheels: {_said(done.stderr)}; mend that, then run it again")
    finally:
        pins.unlink()
        # pip download leaves a copy of the wheel that it was given, too
        if not is_theirs:
            copied.unlink(missing_ok=True)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for info in site.glob("*.dist-info"):
        for name in _OF_THE_HOST:
            (info / name).unlink(missing_ok=True)
        lines = (info / "RECORD").read_text().splitlines()
        (info / "RECORD").write_text("".join(line + "\n" for line in lines if (site / line.split(",")[0].strip('"')).exists()))
    check_machine(site)
    _check_requirements(site, python, extras)


def pins_for(python: str) -> Iterator[str]:
    """The lines of constraints.txt that hold for this Python, without their markers, which pip would read for the Python that runs it."""
    minor = int(python.removeprefix("3."))
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin, _, marker = line.partition(";")
        if not pin or pin.startswith("#"):
            continue
        if marker:
            rule = re.fullmatch(r' python_version (<|>=) "3\.(\d+)"', marker)
            if rule is None:
                raise HostError(f'constraints.txt: {line!r} has a marker other than python_version < or >= "3.X"; write it as two lines')
            if (minor < int(rule[2])) != (rule[1] == "<"):
                continue
        yield pin


def check_machine(site: Path) -> None:
    """Raises HostError for a library in `site` that a board cannot load."""
    for path in site.rglob("*"):
        if path.is_file() and (machine := machine_of(path)) not in (None, ARCH):
            raise HostError(f"{path.relative_to(site)} is for {machine}, not {ARCH}; remove its wheel from the folder of wheels")


def platform_options(python: str) -> list[str]:
    """pip's options for the wheels that a board with this Python can load."""
    tags = [f"manylinux_2_{minor}_{ARCH}" for minor in range(GLIBCS[python], _OLDEST_GLIBC - 1, -1)]
    abis = (f"cp{python.replace('.', '')}", "abi3", "none")
    options = ["--python-version", python, "--implementation", "cp"]
    options += [word for abi in abis for word in ("--abi", abi)]
    return options + [word for tag in (*tags, f"manylinux2014_{ARCH}") for word in ("--platform", tag)]


def _python_with_pip() -> str:
    """The running Python or the checkout's .venv, whichever has pip."""
    for python in (sys.executable, str(ROOT / ".venv/bin/python")):
        if Path(python).exists() and not subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
            return python
    raise HostError(f"{sys.executable} has no pip; sudo apt-get install python3-pip")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _fetch(command: list[str], say: Callable[[str], None]) -> None:
    """`pip download`, its lines about files said as they come."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if re.match(r"\s*(Downloading|Using cached) ", line) and ".metadata" not in line:
                say("  " + line.strip())
        errors = process.stderr.read()
    if process.returncode:
        raise HostError(f"pip cannot fetch the wheels: {_said(errors)}; check the network, or give a folder that has them with --wheels")


def _said(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    return (reasons[:1] or lines[-1:] or ["it did not say why"])[0]


_UNMET = """
import sys
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
from email.parser import HeaderParser
site, python, arch, extras = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4].split(",")
of_board = {"python_version": python, "python_full_version": python + ".0", "platform_machine": arch, "sys_platform": "linux", "os_name": "posix",
            "platform_system": "Linux", "implementation_name": "cpython", "platform_python_implementation": "CPython"}
read = [HeaderParser().parsestr(path.read_text(errors="replace")) for path in site.glob("*.dist-info/METADATA")]
have = {canonicalize_name(each["Name"]): each["Version"] for each in read}
for each in read:
    of_package = extras if canonicalize_name(each["Name"]) == "sage-edge" else []
    for text in each.get_all("Requires-Dist") or []:
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({**of_board, "extra": extra}) for extra in ["", *of_package]):
            version = have.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, prereleases=True):
                print(f"{each['Name']} needs {need.name}{need.specifier} and there is {version or 'none'}")
"""


def _check_requirements(site: Path, python: str, extras: str) -> None:
    """pip reads the markers of requirements for the Python that runs it, not for the one asked for: look again, for the board's."""
    done = _run([_python_with_pip(), "-c", _UNMET, str(site), python, ARCH, extras])
    if done.returncode:
        raise HostError(f"requirements cannot be checked: {done.stderr.splitlines()[-1]}; python3 -m pip install --upgrade pip")
    if done.stdout:
        raise HostError(
            f"{done.stdout.splitlines()[0]}, on the board's Python {python}; make the release with python{python}, or pin it in constraints.txt"
        )
