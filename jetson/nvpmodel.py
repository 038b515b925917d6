"""Power modes of a Jetson by name: what nvpmodel has, which one it is in, and a change that is read back.

    change = set_mode("MAXN_SUPER")          # as root
    print(change.line())                     # power mode MAXN_SUPER (was 25W)

Numbers mean another mode on another module (MAXN_SUPER is 0 on Orin NX and 2 on Orin Nano), so names are taken from /etc/nvpmodel.conf. A mode
that changes what is switched on waits for a reboot, about which nvpmodel asks at a terminal; without one it may end with 0 and change nothing.
So what counts is what `nvpmodel -q` says afterwards. Nothing here reboots. Not run on a board: there, `sudo sage-edge doctor` names the mode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sage_edge.runtime.errors import BoardError, UsageError

from .sysfs import text
from .tools import run_tool

_MODE = re.compile(r"^<\s*POWER_MODEL\s+ID=([0-9]+)\s+NAME=(\S+)\s*>", re.MULTILINE)
_DEFAULT = re.compile(r"^<\s*PM_CONFIG\s+DEFAULT=([0-9]+)\s*>", re.MULTILINE)
_NOW = re.compile(r"NV Power Mode:\s*(\S+)")
_STATUS = re.compile(r"pmode:([0-9]+)")


@dataclass(frozen=True)
class Modes:
    """What /etc/nvpmodel.conf has: name -> number; `default` is what a board is in that was never told."""

    numbers: dict[str, int]
    default: str | None

    def name(self, number: int) -> str | None:
        """The mode with this number."""
        return next((name for name, its in self.numbers.items() if its == number), None)

    def find(self, name: str) -> str:
        """The mode's own spelling of `name`, whatever its case, with - or a space for _. Raises UsageError, which lists what there is."""
        wanted = _folded(name)
        found = next((each for each in self.numbers if _folded(each) == wanted), None)
        if found is None:
            raise UsageError(f"this board has no power mode {name!r}; one of {', '.join(self.numbers)}")
        return found


@dataclass(frozen=True)
class ModeChange:
    """A mode that was asked for, and what the board is in `before` and `now`. `needs_reboot`: nvpmodel spoke of one."""

    asked: str
    number: int
    before: str | None
    now: str | None
    needs_reboot: bool

    @property
    def done(self) -> bool:
        """The board is in the mode that was asked for."""
        return self.now == self.asked

    def line(self) -> str:
        """The change in one line for people, with what is left to do."""
        if self.done:
            return f"power mode {self.asked}" + ("" if self.before == self.asked else f" (was {self.before or 'unknown'})")
        why = "which waits for a reboot" if self.needs_reboot else "though nvpmodel refused nothing; it may wait for a reboot"
        return (
            f"power mode is still {self.now or 'unknown'}, not {self.asked}, {why}: run 'sudo nvpmodel -m {self.number}' at a terminal and answer yes"
        )


def parse_modes(conf: str) -> Modes:
    """The modes in the text of an nvpmodel.conf."""
    numbers = {name: int(number) for number, name in _MODE.findall(conf)}
    default = _DEFAULT.search(conf)
    modes = Modes(numbers, None)
    return modes if default is None else Modes(numbers, modes.name(int(default[1])))


def read_modes(root: str | Path = "/") -> Modes | None:
    """Those of the board whose root file system this is; None where there is no nvpmodel.conf, or no mode in it."""
    conf = text(Path(root) / "etc/nvpmodel.conf")
    modes = None if conf is None else parse_modes(conf)
    return modes if modes and modes.numbers else None


def current_mode(root: str | Path = "/") -> str | None:
    """The name of the mode that the board is in: what nvpmodel says, else what it wrote down last; None where neither tells."""
    said = run_tool("nvpmodel", "-q")
    if said is not None and said.code == 0 and (now := _NOW.search(said.text)):
        return now[1]
    status, modes = _STATUS.search(text(Path(root) / "var/lib/nvpmodel/status") or ""), read_modes(root)
    return None if status is None or modes is None else modes.name(int(status[1]))


def set_mode(name: str, root: str | Path = "/") -> ModeChange:
    """Put the board into the mode `name`, if it is not in it, and read back what it is in then.

    Raises UsageError for a name that the board does not have, BoardError where there is no nvpmodel or where it refuses.
    """
    modes = read_modes(root)
    if modes is None:
        raise BoardError("there are no power modes here, /etc/nvpmodel.conf names none; sudo apt install nvidia-l4t-nvpmodel, or leave the mode away")
    asked = modes.find(name)
    number, before = modes.numbers[asked], current_mode(root)
    if before == asked:
        return ModeChange(asked, number, before, before, False)
    said = run_tool("nvpmodel", "-m", str(number))
    if said is None:
        raise BoardError(f"power mode {asked} cannot be set, there is no nvpmodel; sudo apt install nvidia-l4t-nvpmodel")
    change = ModeChange(asked, number, before, current_mode(root), "reboot" in said.text.lower())
    if said.code != 0 and not change.done and not change.needs_reboot:
        raise BoardError(f"power mode {asked} was refused: nvpmodel -m {number} says {said.last!r}; run it as root")
    return change


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
