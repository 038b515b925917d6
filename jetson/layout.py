"""Where everything lies on a board. Every path is under `root`, "/" on the board itself, a folder for an image or a test.

/opt/sage-edge/versions/VERSION/   one release, read-only: release.json  bin/  site/ (wheels, unpacked)  model/NAME.sage  systemd/
/opt/sage-edge/current             symlink to the version that runs; `previous` to the one before it
/etc/sage-edge/sage-edge.conf      the owner's settings, an environment file; never overwritten
/var/lib/sage-edge/                what this board knows: provisioned (stamp of first boot), trial.json (an update on trial),
                                   update.json (how the last one went)
/var/cache/sage-edge/              engines and timings ($CACHE_DIRECTORY): may be deleted, is made again
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREPARED = "prepared.json"
"""In the cache folder: what was found when the version was made ready. Without it first boot is done again."""


@dataclass(frozen=True)
class Layout:
    """The paths under `root`."""

    root: Path = Path("/")

    @property
    def prefix(self) -> Path:
        return self.root / "opt/sage-edge"

    @property
    def versions(self) -> Path:
        return self.prefix / "versions"

    @property
    def current(self) -> Path:
        return self.prefix / "current"

    @property
    def previous(self) -> Path:
        return self.prefix / "previous"

    @property
    def settings(self) -> Path:
        return self.root / "etc/sage-edge/sage-edge.conf"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/sage-edge"

    @property
    def stamp(self) -> Path:
        return self.state / "provisioned"

    @property
    def trial(self) -> Path:
        return self.state / "trial.json"

    @property
    def last_update(self) -> Path:
        return self.state / "update.json"

    @property
    def cache(self) -> Path:
        return self.root / "var/cache/sage-edge"
