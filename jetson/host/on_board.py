"""The part of jetson/provision that runs on the board, as root, with the board's own Python: lay in, first boot, start.

A board that has been provisioned gets the release as an update instead: tried, watched, and rolled back by itself where it fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ..layout import Layout
from ..release_file import Release, ReleaseError
from ..settings_file import SettingsError, change_settings, parse_setting
from .errors import HostError
from .overlay import PACKAGES, lay_in, missing_packages

FIRST_BOOT, SERVICE = "sage-edge-first-boot.service", "sage-edge.service"
_POLL_S = 0.5


def put_on(archive: Path, settings: Mapping[str, str], packages: bool) -> None:
    """Everything, in order, each step said. Raises HostError for the first that fails; a second run goes on from there."""
    layout = Layout()
    if (missing := missing_packages(layout.root)) and packages:
        _say(f"apt-get install {' '.join(missing)}")
        _do("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        missing = []
    if layout.stamp.exists() and layout.current.exists():
        _update(layout, archive, settings)
    else:
        lay_in(layout, archive, settings, _say)
        _do("systemctl", "daemon-reload")
        _do("udevadm", "control", "--reload")
        _do("udevadm", "trigger", "--action=change", "--subsystem-match=video4linux", "--subsystem-match=sound")
        _follow(FIRST_BOOT)
        # it is ready with its first estimate, which a board without a camera does not give: that is looked at, not waited for
        _do("systemctl", "start", "--no-block", SERVICE)
    if missing:
        needed = ", ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        _say(f"note: no {' '.join(missing)} here, needed for {needed}: sudo apt-get install {' '.join(missing)}, or give --packages")
    _say(f"done: journalctl -u {SERVICE} -f shows it at work, sage-edge doctor what is missing")


def _update(layout: Layout, archive: Path, settings: Mapping[str, str]) -> None:
    try:
        release = Release.read(archive)
        is_same = release == Release.read(layout.current)
        changed = bool(settings) and change_settings(layout.settings, settings, release.read_text(archive, f"systemd/{layout.settings.name}"))
    except (ReleaseError, SettingsError) as error:
        raise HostError(str(error)) from None
    if not is_same:
        _say("provisioned already: sage-edge-update apply")
        _do(str(layout.current / "bin/sage-edge-update"), "apply", str(archive))
    elif changed:
        _say(f"this release runs already: settings changed, {SERVICE} restarted")
        _do("systemctl", "restart", "--no-block", SERVICE)
    else:
        _say("this release runs already, with these settings")


def _follow(unit: str) -> None:
    """Start a oneshot `unit` and say what it writes to the journal until it is done."""
    cursor, _ = _journal(unit, None)
    _say(f"{unit}: started; building engines takes minutes")
    with subprocess.Popen(["systemctl", "start", unit], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(_POLL_S)
            cursor, lines = _journal(unit, cursor)
            for line in lines:
                _say(f"  {line}")
        subprocess.run(["journalctl", "--sync"], check=False)
        for line in _journal(unit, cursor)[1]:
            _say(f"  {line}")
    if process.returncode:
        raise HostError(f"{unit} failed, as said above; on the board: journalctl -u {unit}, then sudo sage-edge-first-boot")


def _journal(unit: str, cursor: str | None) -> tuple[str | None, list[str]]:
    """(where the journal of `unit` ends, its lines after `cursor`); with no cursor no lines."""
    where = ["--after-cursor", cursor] if cursor else ["-n", "0"]
    command = ["journalctl", "-q", "--no-pager", "-o", "cat", "--show-cursor", "-u", unit, *where]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    if lines and lines[-1].startswith("-- cursor: "):
        cursor = lines.pop().removeprefix("-- cursor: ")
    return cursor, lines


def _do(*command: str) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise HostError(f"{' '.join(command)} failed with {code}; what it said is above")


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--conf", action="append", default=[])
    parser.add_argument("--packages", action="store_true")
    arguments = parser.parse_args()
    try:
        put_on(arguments.release, dict(map(parse_setting, arguments.conf)), arguments.packages)
    except (HostError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; check it and the disk", file=sys.stderr)
        return 1
    return 0
