"""What a board needs once, before it senses: its power mode, its engines, and the proof that it computes what it should.

    sudo sage-edge-first-boot          # again, by hand; systemd runs it where it was not done yet

Run by sage-edge-first-boot.service as root, of which only the power mode, the clocks and the stamp need anything: engines are built and checked
as the service's user. A power mode that cannot be set is said and does not keep the board from sensing. Power modes and clocks were not run on
a board: there, `journalctl -u sage-edge-first-boot` shows them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sage_edge.runtime.errors import BoardError, SageError, UsageError

from .as_service import USER, account, prepare_version
from .boards import detect
from .clocks import fastest_clocks
from .lay_in import write_beside
from .layout import Layout
from .nvpmodel import set_mode
from .release_file import Release, ReleaseError
from .service import own_folder
from .service_settings import read_settings
from .tools import find_tool

Say = Callable[[str], None]


def first_boot(folder: Path, layout: Layout, say: Say = print, user: str = USER) -> None:
    """Everything, in order, then the stamp. Raises UsageError for settings that cannot be taken, BoardError where the version is not ready then."""
    settings = read_settings(layout.settings)
    release = Release.read(folder)
    say(f"first boot of sage-edge {release.version}")
    _introduce(layout, say)
    power_mode = _power_mode(settings.get("SAGE_EDGE_POWER_MODE", ""), layout, say)
    with contextlib.ExitStack() as stack:
        if find_tool("jetson_clocks"):
            stack.enter_context(_steady_clocks(say))
        prepare_version(folder, layout, settings, account(user))
    stamp = {"version": release.version, "power_mode": power_mode, "done": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_beside(layout.stamp, (json.dumps(stamp, indent=1) + "\n").encode(), 0o644)
    say("first boot is done")


def _introduce(layout: Layout, say: Say) -> None:
    """Which board this is, and what is known to go wrong on it."""
    device = detect(layout.root)
    if device is None:
        say("this is no Jetson, or none that says so: it senses without TensorRT and power modes")
        return
    jetpack = f" (JetPack {device.revision.jetpack})" if device.revision is not None else ""
    say(f"{device.model or 'a Jetson'}, L4T {device.l4t or 'unknown'}{jetpack}")
    for warning in device.warnings:
        say(f"warning: {warning}")
    for quirk in device.quirks:
        say(f"note: {quirk.fact}; {quirk.fix}")


def _power_mode(name: str, layout: Layout, say: Say) -> str | None:
    """Set the mode `name`, "" for none, and say what holds; the line that was said, None where nothing was asked."""
    if not name:
        return None
    try:
        line = set_mode(name, layout.root).line()
    except (BoardError, UsageError) as error:
        line = f"warning: {error}"
    say(line)
    return line


@contextlib.contextmanager
def _steady_clocks(say: Say) -> Iterator[None]:
    """Clocks at their fastest meanwhile, so that timings can be compared; without, where that does not work."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(fastest_clocks())
        except BoardError as error:
            say(f"warning: {error}")
        try:
            yield
        finally:
            try:
                stack.close()
            except BoardError as error:
                say(f"warning: {error}")


def _take_sigterm() -> None:
    """As Ctrl-C, so that clocks are put back."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def main(folder: Path | None = None) -> int:
    """0 when the board is ready to sense."""
    begin_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin_s:6.1f} s] {text}", flush=True)

    try:
        if os.geteuid() != 0:
            raise UsageError("first boot is root's; sudo sage-edge-first-boot")
        first_boot(folder or own_folder(), Layout(), say)
    except (SageError, ReleaseError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, SageError) else 1
    except OSError as error:
        print(f"error: {error.filename or 'first boot'}: {error.strerror or error}; is /var full or read-only?", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again, what is finished is kept", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    _take_sigterm()
    sys.exit(main())
