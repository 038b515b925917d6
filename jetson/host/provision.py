"""Put a release on a board that runs, and see it through its first boot: `jetson/provision USER@HOST --release FILE`, or `--local` on the board.

Everything goes through ssh, with the keys and names of your own ~/.ssh; on the board it needs Python and sudo without a password, nothing
else. The board is asked first, and nothing is written where it does not fit. A second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..release_file import Release, ReleaseError
from ..settings_file import SettingsError, parse_setting
from .errors import HostError

_PROBE = """
echo "machine=$(uname -m)"
for path in /usr/bin/python3.*; do case ${path##*/python3.} in *[!0-9]*) ;; *) echo "python=${path##*/python}" ;; esac; done
folder=/opt; [ -d "$folder" ] || folder=/
echo "free_mb=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')"
case $(systemctl is-system-running 2> /dev/null) in "" | offline | unknown) ;; *) echo "systemd=yes" ;; esac
[ "$(id -u)" = 0 ] && echo "root=yes"
command -v sudo > /dev/null && sudo -n true 2> /dev/null && echo "sudo=yes"
[ -e /etc/nv_tegra_release ] && echo "l4t=$(head -n 1 /etc/nv_tegra_release)"
[ -L /opt/sage-edge/current ] && echo "current=$(readlink /opt/sage-edge/current)"
[ -e /var/lib/sage-edge/provisioned ] && echo "provisioned=yes"
true
"""
_MODULES = (
    *("__init__.py", "layout.py", "release_file.py", "unpack.py", "lay_in.py", "settings_file.py"),
    *("host/__init__.py", "host/errors.py", "host/overlay.py", "host/on_board.py"),
)
_REFUSALS = {
    "Could not resolve": "{host} is not a name that is known here; give the board's address (192.168.55.1 over its USB cable)",
    "Host key verification failed": "the key of {host} is new or has changed; run ssh {host} once and accept it (ssh-keygen -R forgets the old one)",
    "REMOTE HOST IDENTIFICATION": "the key of {host} has changed, as it does when a board is flashed; ssh-keygen -R forgets the old one",
    "Permission denied": "{host} does not take your key; ssh-copy-id {host}",
    "Connection refused": "{host} refuses ssh; is sshd running there? sudo systemctl start ssh",
    "No route to host": "{host} cannot be reached; is it on, and in this network?",
    "Network is unreachable": "{host} cannot be reached; is it on, and in this network?",
    "timed out": "{host} does not answer; is it on, and in this network?",
}
"""What ssh says -> what it means."""


@dataclass(frozen=True)
class Board:
    """Where commands run: at `host`, or here where it is None."""

    host: str | None

    def run(self, *command: str, stdin: IO[bytes] | bytes = b"", quiet: bool = True) -> str:
        """Run it there, without a terminal, and return what it printed; not `quiet`, that is shown as it comes instead.

        Raises HostError where ssh does not get there or the command fails.
        """
        out = subprocess.PIPE if quiet else None
        source, content = (subprocess.PIPE, stdin) if isinstance(stdin, bytes) else (stdin, None)
        with subprocess.Popen([*self.prefix, *self._words(command)], stdin=source, stdout=out, stderr=out) as process:
            printed, said = process.communicate(content)
        errors = (said or b"").decode(errors="replace").strip()
        if process.returncode == 255 and self.host:
            meant = next((text for words, text in _REFUSALS.items() if words in errors), "ssh {host} failed; try it by hand")
            raise HostError(meant.format(host=self.host) + (f" (ssh: {errors.splitlines()[-1]})" if errors else ""))
        if process.returncode:
            where = self.host or "this machine"
            raise HostError(f"{command[0]} failed with {process.returncode} on {where}; {errors.splitlines()[-1] if errors else 'see above'}")
        return (printed or b"").decode(errors="replace").strip()

    @property
    def prefix(self) -> list[str]:
        return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", self.host] if self.host else []

    def _words(self, command: Sequence[str]) -> list[str]:
        # ssh hands a line to the shell there
        return [shlex.join(command)] if self.host else list(command)


def probe(board: Board) -> dict[str, list[str]]:
    """What the board says of itself; nothing is written there."""
    facts: dict[str, list[str]] = {}
    for line in board.run("sh", "-s", stdin=_PROBE.encode()).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            facts.setdefault(key, []).append(value)
    return facts


def check(facts: dict[str, list[str]], release: Release, archive_bytes: int, board: Board) -> None:
    """Raises HostError for the first thing that does not fit, with what to do."""
    name = board.host or "this machine"
    machine, pythons = facts.get("machine", ["unknown"])[0], facts.get("python", [])
    if machine != release.arch:
        raise HostError(f"{name} is {machine} and the release is for {release.arch}; name a Jetson")
    if release.python not in pythons:
        newest = max(pythons, key=lambda version: int(version.removeprefix("3.")), default="3.10")
        have = ", ".join(pythons) or "none in /usr/bin"
        raise HostError(f"{name} has Python {have} and the release is for {release.python}; make one with jetson/release --python {newest}")
    if "systemd" not in facts:
        raise HostError(f"{name} was not started by systemd; run it on the board itself, not in a container")
    free_mb = int((facts.get("free_mb") or [""])[0] or 0)
    needed_mb = int(release.unpacked_bytes * 1.1 + archive_bytes * (board.host is not None)) >> 20
    if free_mb < needed_mb:
        raise HostError(f"{name} has {free_mb} MB free on /opt and the release needs {needed_mb}; make room there")
    if "root" not in facts and "sudo" not in facts and board.host:
        rule = 'echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/sage-edge'
        raise HostError(f"sudo asks for a password on {name}; allow it there for as long as this takes: {rule}")


def tool() -> bytes:
    """`on_board` with all that it imports, as one file that Python runs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for module in _MODULES:
            archive.write(Path(__file__).parents[1] / module, f"jetson/{module}")
        archive.writestr("__main__.py", "import sys\nfrom jetson.host.on_board import main\nsys.exit(main())\n")
    return buffer.getvalue()


def provision(board: Board, archive: Path, options: Sequence[str], dry_run: bool) -> None:
    """All of it. `options` are those of `on_board`. Raises HostError."""
    if archive.is_dir():
        raise HostError(f"{archive} is a folder; name the file that jetson/release made")
    try:
        release = Release.read(archive)
    except ReleaseError as error:
        raise HostError(str(error)) from None
    facts = probe(board)
    check(facts, release, archive.stat().st_size, board)
    l4t, current = facts.get("l4t", ["no Jetson: /etc/nv_tegra_release is missing"])[0], facts.get("current", ["none"])[0]
    print(f"{board.host or 'this machine'}: {l4t}; sage-edge here: {current}", flush=True)
    root = [] if "root" in facts else ["sudo", "-n"] if board.host else ["sudo"]
    python = f"/usr/bin/python{release.python}"
    if dry_run:
        is_update = "current" in facts and "provisioned" in facts
        copy = [f"copy {archive.name}, {archive.stat().st_size / 1e6:.0f} MB, to a new folder in /var/tmp, removed at the end"] if board.host else []
        work = "sage-edge-update apply: tried, watched, rolled back where it fails" if is_update else "lay in, first boot, start sage-edge.service"
        print("\n".join([*copy, f"as root{' by ' + shlex.join(root) if root else ''}: {work}", "nothing was done"]))
        return
    folder = board.run("mktemp", "-d", "/var/tmp/sage-edge.XXXXXX")
    try:
        there = str(archive.resolve())
        if board.host:
            there = f"{folder}/{archive.name}"
            print(f"copying {archive.stat().st_size / 1e6:.0f} MB", flush=True)
            with open(archive, "rb") as stream:
                board.run("sh", "-c", 'exec cat > "$1"', "sh", there, stdin=stream)
        board.run("sh", "-c", 'exec cat > "$1"', "sh", f"{folder}/provision.pyz", stdin=tool())
        try:
            board.run(*root, python, f"{folder}/provision.pyz", "--release", there, *options, quiet=False)
        except HostError:
            raise HostError(f"{board.host or 'this machine'} is not provisioned, for what is said above; run this again when it is mended") from None
    finally:
        with contextlib.suppress(HostError):
            board.run("rm", "-rf", folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="jetson/provision", description="Put a release of sage-edge on a board that runs.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("host", nargs="?", metavar="[USER@]HOST", help="as ssh knows it")
    where.add_argument("--local", action="store_true", help="this machine is the board")
    parser.add_argument("--release", type=Path, required=True, metavar="FILE", help="what jetson/release made")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of /etc/sage-edge/sage-edge.conf; any number")
    parser.add_argument("--packages", action="store_true", help="let apt-get on the board install what it has not: libportaudio2, GStreamer")
    parser.add_argument("--dry-run", action="store_true", help="ask the board, print what would be done, and do nothing")
    arguments = parser.parse_args()
    try:
        if arguments.host is not None and not re.fullmatch(r"[^-\s]\S*", arguments.host):
            raise HostError(f"{arguments.host!r} is no [USER@]HOST; name the board, or give --local on the board itself")
        options = [word for setting in arguments.conf for word in ("--conf", "=".join(parse_setting(setting)))]
        options += ["--packages"] * arguments.packages
        provision(Board(None if arguments.local else arguments.host), arguments.release, options, arguments.dry_run)
    except (HostError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again, it goes on from there", file=sys.stderr)
        return 130
    return 0
