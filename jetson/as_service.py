"""Make a version ready as the service's user, so that its cache belongs to that user and what works then works for the service."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_edge.runtime.errors import BoardError

from .layout import Layout

USER = "sage-edge"
GROUPS = ("video", "audio", "render")
"""Those of the devices; the same as SupplementaryGroups= of sage-edge.service."""


@dataclass(frozen=True)
class Account:
    """Who a child process becomes."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def popen(self) -> dict[str, Any]:
        """Keywords of subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}


def account(name: str = USER) -> Account | None:
    """The user and its devices' groups; None when this process is not root's, and can become nobody. Raises BoardError where it is missing."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise BoardError(f"there is no user {name}; sudo systemd-sysusers /opt/sage-edge/current/systemd/sysusers.conf") from None
    return Account(found.pw_uid, found.pw_gid, tuple(group.gr_gid for group in grp.getgrall() if group.gr_name in GROUPS))


def prepare_version(folder: Path, layout: Layout, settings: Mapping[str, str], who: Account | None) -> None:
    """Run `folder`'s own sage-edge-prepare, its log on this process' stdout and stderr. Raises BoardError when the version is not ready then."""
    layout.cache.mkdir(parents=True, exist_ok=True)
    if who is not None:
        os.chown(layout.cache, who.uid, who.gid)
    environment = {
        **{key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "LD_LIBRARY_PATH")},
        **{key: value for key, value in settings.items() if key.startswith("SAGE_EDGE_")},
        "HOME": str(layout.cache),
        "CACHE_DIRECTORY": str(layout.cache),
        "PYTHONPYCACHEPREFIX": str(layout.cache / "pycache"),
    }
    command = [str(folder / "bin/sage-edge-prepare")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, env=environment, cwd="/", umask=0o027, check=False, **({} if who is None else who.popen())
        )
    except OSError as error:
        raise BoardError(f"{command[0]} cannot be started ({error.strerror}); install the release again") from None
    if done.returncode != 0:
        raise BoardError(f"version {folder.name} cannot be made ready here (exit code {done.returncode}); the line before this one says why")
