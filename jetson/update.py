"""Update a board to another release, and go back by itself where that one is not well.

    sudo sage-edge-update apply sage-edge-0.2.0-py310-aarch64.tar.gz
    sage-edge-update status
    sudo sage-edge-update rollback             # to the version before

The release is checked, laid beside the version that runs and made ready there; the golden windows decide. Only then it is on trial: a record on
the disk, `current` switched in one step, the service started anew and watched. A version that is not well, that is given up (Ctrl-C, SIGTERM), or
whose trial nobody watches any more (the power went, the updater was killed) gives its place back: sage-edge-rollback.service runs `resume` by
the version before, at boot and when the service fails. Two versions stay on the board. Exit code 0: the new version runs; 1: the old one does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sage_edge.runtime.errors import BoardError, SageError, UsageError
from sage_edge.runtime.files import lock

from .as_service import USER, account, prepare_version
from .health import Service
from .lay_in import point, write_beside
from .layout import Layout
from .release_file import Release, ReleaseError, unpack
from .service_settings import read_settings

SECONDS = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """The record on the disk: the version that is tried, the one to go back to, and what `previous` was before, "" for nothing."""

    to: str
    back_to: str
    previous: str
    began: str

    @classmethod
    def read(cls, path: Path) -> Trial | None:
        """None where nothing is on trial. Raises BoardError for a record that says nothing."""
        try:
            value = json.loads(path.read_bytes())
            return cls(*(str(value[name]) for name in ("to", "back_to", "previous", "began")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BoardError(f"{path} cannot be read ({error}); look at it, then remove it: what `current` points at runs") from None


class Updater:
    """`say` gets a line after every step. Every method but `status` raises UsageError while another update is under way."""

    def __init__(self, layout: Layout, service: Service, say: Say = print, user: str = USER) -> None:
        self._layout, self._service, self._say, self._user = layout, service, say, user

    def apply(self, archive: Path, seconds: float = SECONDS) -> str:
        """Try the release in `archive`; its version when it is well after `seconds`. Raises ReleaseError for one that is damaged or does not
        fit, UsageError for the version that runs already, BoardError with the reason when the old version runs on."""
        layout = self._layout
        with self._locked():
            self._settle("nobody watched its trial any more")
            current = self._current()
            release = Release.read(archive)
            if release.version == current:
                raise UsageError(f"version {current} runs already; nothing to do")
            folder = unpack(archive, layout)
            self._say(f"version {release.version} lies beside {current}")
            return self._try(folder, current, seconds)

    def rollback(self, seconds: float = SECONDS) -> str:
        """Try the version before, like any other; its name when it is well. Raises as `apply` does."""
        with self._locked():
            self._settle("nobody watched its trial any more")
            current, previous = self._current(), _name(self._layout.previous)
            if previous is None or previous == current:
                raise UsageError(f"there is no version before {current} on this board; apply a release")
            return self._try(self._layout.versions / previous, current, seconds)

    def resume(self) -> None:
        """Give up a trial that nobody watches. Does not wait for the service, which may be waiting for this."""
        try:
            with self._locked():
                self._settle("nobody watched its trial any more: the power went, or the updater was ended")
        except UsageError:
            self._say("an update is being watched: nothing to do here")

    def status(self) -> dict[str, Any]:
        """JSON types: current, previous (version or null), trial and last (their records or null)."""
        last = None
        with contextlib.suppress(OSError, ValueError):
            last = json.loads(self._layout.last_update.read_bytes())
        trial = Trial.read(self._layout.trial)
        return {
            "current": _name(self._layout.current),
            "previous": _name(self._layout.previous),
            "trial": None if trial is None else asdict(trial),
            "last": last,
        }

    def _try(self, folder: Path, current: str, seconds: float) -> str:
        layout, version = self._layout, folder.name
        try:
            Release.read(folder).verify(folder)
            prepare_version(folder, layout, read_settings(layout.settings), account(self._user))
        except (SageError, ReleaseError) as error:
            self._record(version, "refused", str(error))
            self._prune()
            raise
        self._say(f"version {version} is ready")
        trial = Trial(version, current, _name(layout.previous) or "", _now())
        # `previous` first: what gives a trial up is the version before's own program
        self._point(layout.previous, current)
        self._say(f"version {current} is the one to go back to")
        write_beside(layout.trial, (json.dumps(asdict(trial), indent=1) + "\n").encode(), 0o644)
        self._say("the trial is on record")
        try:
            self._point(layout.current, version)
            self._say(f"switched to {version}; waiting for its first estimate")
            why = self._service.start_again() or self._service.watch(seconds)
        except BaseException as error:
            why = str(error) if isinstance(error, BoardError) else f"the update was given up ({type(error).__name__})"
            self._go_back(trial, why)
            raise
        if why is not None:
            self._go_back(trial, why)
            raise BoardError(f"version {version} was tried and rolled back to {current}: {why}")
        self._record(version, "runs", "")
        _remove(layout.trial)
        self._say("the trial is over")
        self._prune()
        return version

    def _go_back(self, trial: Trial, why: str) -> None:
        """The old version again, and the service waited for. Every step may be the last one before the power goes."""
        self._point(self._layout.current, trial.back_to)
        self._say(f"switched back to {trial.back_to}: {why}")
        failed = self._service.start_again()
        if failed is not None:
            self._say(f"warning: version {trial.back_to} does not start either: {failed}")
        self._close(trial, why)

    def _settle(self, why: str) -> None:
        """Give up the trial there is on record, if there is one, and leave nothing else half-done."""
        trial = Trial.read(self._layout.trial)
        if trial is not None:
            if _name(self._layout.current) != trial.back_to and self._is_there(trial.back_to):
                self._point(self._layout.current, trial.back_to)
                self._say(f"switched back to {trial.back_to}: {why}")
            self._service.start_soon()
            self._close(trial, why)
        self._prune()

    def _close(self, trial: Trial, why: str) -> None:
        self._record(trial.to, "rolled back", why)
        if trial.previous and self._is_there(trial.previous):
            self._point(self._layout.previous, trial.previous)
        else:
            _remove(self._layout.previous)
        self._say("what was before the trial is again")
        _remove(self._layout.trial)
        self._prune()

    def _prune(self) -> None:
        """Remove every version but `current` and `previous`, and what was cut off in the middle."""
        layout = self._layout
        keep = {_name(layout.current), _name(layout.previous)}
        for path in sorted(layout.versions.iterdir()):
            if path.name.startswith(".") or path.name not in keep:
                gone = path if path.name.startswith(".") else path.with_name(f".{path.name}.gone")
                if gone != path:
                    shutil.rmtree(gone, ignore_errors=True)
                    os.rename(path, gone)  # never half a version under its name
                shutil.rmtree(gone)
                if gone != path:
                    self._say(f"removed version {path.name}")

    def _current(self) -> str:
        current = _name(self._layout.current)
        if current is None:
            raise UsageError(f"{self._layout.current} points at no version; install one with jetson/provision")
        return current

    def _is_there(self, version: str) -> bool:
        try:
            Release.read(self._layout.versions / version)
        except ReleaseError:
            return False
        return True

    def _point(self, link: Path, version: str) -> None:
        point(link, f"versions/{version}")

    def _record(self, version: str, result: str, why: str) -> None:
        record = {"version": version, "result": result, "why": why, "at": _now()}
        write_beside(self._layout.last_update, (json.dumps(record, indent=1) + "\n").encode(), 0o644)

    @contextlib.contextmanager
    def _locked(self) -> Any:
        self._layout.state.mkdir(parents=True, exist_ok=True)
        with lock(self._layout.state / "update.lock"):
            yield


def _name(link: Path) -> str | None:
    """The version that `link` points at; None where it points at none that is there."""
    return Path(os.readlink(link)).name if link.is_symlink() and link.exists() else None


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has gone does not end an update
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage-edge-update", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    apply = verbs.add_parser("apply", help="try a release, keep it if it is well")
    apply.add_argument("file", type=Path, metavar="FILE", help="sage-edge-VERSION-pyXY-aarch64.tar.gz, made by jetson/release")
    rollback = verbs.add_parser("rollback", help="back to the version before")
    for verb in (apply, rollback):
        verb.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help=f"how long estimates must advance (default {SECONDS:.0f})")
    verbs.add_parser("resume", help="give up a trial that nobody watches; sage-edge-rollback.service does it")
    status = verbs.add_parser("status", help="which versions there are, and how the last update went")
    status.add_argument("--json", action="store_true", help="print it as one JSON object")
    return parser


def _text(status: dict[str, Any]) -> str:
    lines = [f"{name:<9} {status[name] or 'none'}" for name in ("current", "previous")]
    if (trial := status["trial"]) is not None:
        lines.append(f"on trial  {trial['to']} since {trial['began']}; if no update is under way: sudo sage-edge-update resume")
    if (last := status["last"]) is not None:
        lines.append(f"last      {last['version']} {last['result']}, {last['at']}" + (f": {last['why']}" if last["why"] else ""))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the old version runs on, 2 wrong use, 130 given up."""
    args = _parser().parse_args(argv)

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # going back is not interrupted
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that is lost does not end an update
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    updater = Updater(Layout(), Service(say=_say), _say)
    try:
        if args.verb == "status":
            status = updater.status()
            print(json.dumps(status) if args.json else _text(status))
        elif os.geteuid() != 0:
            raise UsageError(f"{args.verb} is root's; sudo sage-edge-update {args.verb}")
        elif args.verb == "resume":
            updater.resume()
        else:
            version = updater.apply(args.file, args.seconds) if args.verb == "apply" else updater.rollback(args.seconds)
            _say(f"version {version} runs")
    except (SageError, ReleaseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, SageError) else 1
    except OSError as error:
        print(f"error: {error.filename or args.verb}: {error.strerror or error}; is the disk full or read-only?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the version that ran before runs", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
