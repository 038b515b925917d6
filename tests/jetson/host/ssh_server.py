"""A real sshd on loopback for this user alone, with keys made for it, and a board behind it: what its commands see as / is a folder.

The board takes whoever runs the test for no root and asks sudo, whose commands run with that folder's etc, opt, usr/local and var/lib in the
places of the machine's own (a mount namespace of theirs). systemctl, journalctl, udevadm and apt-get are stand-ins that write down what they
were asked and start no service.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = "/usr/sbin/sshd"
_SUDO = """#!/bin/sh
echo "sudo $*" >> {log}
[ "$1" = -n ] && shift
[ "$*" = true ] && exit {refuses}
exec unshare {map}-m sh -c 'for folder in etc opt usr/local var/lib; do mount --bind {root}/$folder /$folder || exit 9; done; exec "$@"' sudo "$@"
"""
_ASKED = """#!/bin/sh
echo "${{0##*/}} $*" >> {log}
"""
_SYSTEMCTL = (
    _ASKED
    + """
case "$*" in
is-system-running) echo degraded; exit 1 ;;
"start sage-edge-first-boot.service") echo "engines: 1 of 2" >> {journal}; sleep 0.7; echo "engines: 2 of 2" >> {journal}; exit {first_boot} ;;
esac
"""
)
_JOURNALCTL = """#!/usr/bin/env python3
import pathlib, sys
path = pathlib.Path({journal!r})
lines = path.read_text().splitlines() if path.exists() else []
if "-u" in sys.argv:
    after = int(sys.argv[sys.argv.index("--after-cursor") + 1]) if "--after-cursor" in sys.argv else len(lines)
    print(*lines[after:], f"-- cursor: {{len(lines)}}", sep="\\n")
"""


def why_not() -> str | None:
    """Why no such server can run here."""
    if not os.path.exists(SSHD) or not shutil.which("ssh"):
        return "needs sshd: apt-get install openssh-server openssh-client"
    if not shutil.which("unshare") or subprocess.run(["unshare", *_map(), "-m", "true"], capture_output=True, check=False).returncode:
        return "needs mount namespaces (unshare -m)"
    return None


def _map() -> list[str]:
    return [] if os.geteuid() == 0 else ["-r"]


def make_commands(folder: Path, root: Path, *, first_boot: int = 0, sudo_refuses: int = 0) -> Path:
    """The stand-ins in `folder`; returns the file in which they write down what they were asked."""
    for name in ("etc", "opt", "usr/local/bin", "var/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    log, journal = folder / "log", folder / "journal"
    journal.write_text("engines: from an earlier boot\n")
    texts = {
        "sudo": _SUDO.format(log=log, root=root, map="-r " if _map() else "", refuses=sudo_refuses),
        "systemctl": _SYSTEMCTL.format(log=log, journal=journal, first_boot=first_boot),
        "journalctl": _JOURNALCTL.format(journal=str(journal)),
        "id": "#!/bin/sh\necho 1000\n",
        "udevadm": _ASKED.format(log=log),
        "apt-get": _ASKED.format(log=log),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    log.write_text("")
    return log


@contextmanager
def ssh_server(folder: Path, commands: Path) -> Iterator[Path]:
    """Runs sshd with `commands` first on its PATH; yields a folder whose `ssh` is the real one, set to reach it as `board` (`stranger`: with
    another key; `unknown`: its host key not known; `closed`: nobody listens)."""
    folder.mkdir(mode=0o700)
    for name in ("host", "user", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as probe, socket.socket() as closed:
        probe.bind(("127.0.0.1", 0))
        closed.bind(("127.0.0.1", 0))
        port, closed_port = probe.getsockname()[1], closed.getsockname()[1]
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        f"PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv PATH={commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
    common = f"HostName 127.0.0.1\n User {getpass.getuser()}\n IdentitiesOnly yes\n"
    (folder / "ssh_config").write_text(
        f"Host board\n {common} Port {port}\n IdentityFile {folder}/user\n UserKnownHostsFile {folder}/known\n"
        f"Host stranger\n {common} Port {port}\n IdentityFile {folder}/other\n UserKnownHostsFile {folder}/known\n"
        f"Host unknown\n {common} Port {port}\n IdentityFile {folder}/user\n UserKnownHostsFile {folder}/nobody\n StrictHostKeyChecking ask\n"
        f"Host closed\n {common} Port {closed_port}\n"
    )
    client = folder / "bin"
    client.mkdir()
    (client / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (client / "ssh").chmod(0o755)
    with open(folder / "sshd.log", "wb") as log, subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log) as server:
        try:
            give_up_s = time.monotonic() + 30
            while True:
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if server.poll() is not None or time.monotonic() > give_up_s:
                    raise RuntimeError((folder / "sshd.log").read_text())
                time.sleep(0.02)
            yield client
        finally:
            server.terminate()


def run_tool(name: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """An executable of jetson/ as a person runs it, with nothing of this environment's Python."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    tool = Path(__file__).parents[3] / "jetson" / name
    return subprocess.run([sys.executable, "-I", tool, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)
