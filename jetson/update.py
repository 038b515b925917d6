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
from .release_file import Release, ReleaseError
from .service_settings import read_settings
from .unpack import unpack

SECONDS, MOST_SECONDS = 30.0, 3600.0
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
            raise BoardError(f"{path} cannot be read ({type(error).__name__}: {error}); sudo sage-edge-update resume") from None


class Updater:
    """`say` gets a line after every step. Every method but `status` raises UsageError while another update is under way."""

    def __init__(self, layout: Layout, service: Service, say: Say = print, user: str = USER) -> None:
        self._layout, self._service, self._say, self._user = layout, service, say, user

    def apply(self, archive: Path, seconds: float = SECONDS) -> str:
        """Try the release in `archive`; its version when it is well after `seconds`. Raises ReleaseError for one that is damaged or does not
        fit, UsageError for the version that runs already, BoardError with the reason when the old version runs on."""
        layout = self._layout
        with self._locked():
            current = self._begin()
            release = Release.read(archive)
            if release.version == current:
                raise UsageError(f"version {current} runs already; nothing to do")
            folder = unpack(archive, layout)
            self._say(f"version {release.version} lies beside {current}")
            return self._try(folder, current, seconds, whole=True)

    def rollback(self, seconds: float = SECONDS) -> str:
        """Try the version before, like any other; its name when it is well. Raises as `apply` does."""
        with self._locked():
            current, previous = self._begin(), _name(self._layout.previous)
            if previous is None or previous == current:
                raise UsageError(f"there is no version before {current} on this board; apply a release")
            return self._try(self._layout.versions / previous, current, seconds)

    def resume(self) -> None:
        """Give up a trial that nobody watches. Waits neither for the service, which may be waiting for this, nor for what can be removed later."""
        try:
            with self._locked():
                self._settle()
        except UsageError:
            self._say("an update is being watched: nothing to do here")

    def status(self) -> dict[str, Any]:
        """JSON types: current, previous (version or null), trial and last (their records or null)."""
        last = None
        with contextlib.suppress(OSError, ValueError):
            last = json.loads(self._layout.last_update.read_bytes())
        trial: dict[str, str] | None = None
        try:
            if (found := Trial.read(self._layout.trial)) is not None:
                trial = asdict(found)
        except BoardError as error:
            trial = {"damaged": str(error)}
        return {"current": _name(self._layout.current), "previous": _name(self._layout.previous), "trial": trial, "last": last}

    def _try(self, folder: Path, current: str, seconds: float, whole: bool = False) -> str:
        """`whole`: every file of it was read and found right just now."""
        layout, version = self._layout, folder.name
        try:
            if not whole:
                Release.read(folder).verify(folder)
            prepare_version(folder, layout, read_settings(layout.settings), account(self._user))
        except (SageError, ReleaseError) as error:
            self._record(version, "refused", str(error))
            self._prune()
            raise
        self._say(f"version {version} is ready")
        trial = Trial(version, current, _name(layout.previous) or "", _now())
        try:
            # `previous` first: what gives a trial up is the version before's own program
            self._point(layout.previous, current)
            self._say(f"version {current} is the one to go back to")
            write_beside(layout.trial, (json.dumps(asdict(trial), indent=1) + "\n").encode(), 0o644)
            self._say("the trial is on record")
            self._point(layout.current, version)
            self._say(f"switched to {version}; waiting for its first estimate")
            why = self._service.start_again() or self._service.watch(seconds)
        except BaseException as error:
            self._go_back(trial, str(error) if isinstance(error, BoardError | OSError) else f"the update was given up ({type(error).__name__})")
            raise
        if why is not None:
            self._go_back(trial, why)
            raise BoardError(f"version {version} was tried and rolled back to {current}: {why}")
        _remove(layout.trial)
        self._say("the trial is over")
        self._prune()
        self._record(version, "runs", "")
        return version

    def _go_back(self, trial: Trial, why: str) -> None:
        """The old version again, and the service waited for where it was told of another. Every step may be the last one before the power goes."""
        if self._point(self._layout.current, trial.back_to):
            self._say(f"switched back to {trial.back_to}: {why}")
            failed = self._service.start_again()
            if failed is not None:
                self._say(f"warning: version {trial.back_to} does not start either: {failed}")
        self._close(trial, "rolled back", why)
        self._prune()

    def _begin(self) -> str:
        """Leave nothing of an earlier update, and the version that runs. Raises UsageError where there is none."""
        self._settle()
        layout = self._layout
        current, previous = _name(layout.current), _name(layout.previous)
        if current is None and previous is not None and self._is_there(previous):
            self._point(layout.current, previous)
            self._say(f"{layout.current} pointed at no version: it is {previous} again")
            current = previous
        if current is None:
            raise UsageError(f"{layout.current} points at no version; install one with jetson/provision")
        self._prune()
        return current

    def _settle(self) -> None:
        """Give up the trial there is on record, if there is one."""
        layout, why = self._layout, "nobody watched its trial any more: the power went, or the updater was ended"
        try:
            trial = Trial.read(layout.trial)
        except BoardError as error:  # `previous` is written first, so it says where to go back to
            current = _name(layout.current) or ""
            trial, why = Trial(current, _name(layout.previous) or current, "", ""), f"{why}; {error}"
        if trial is None:
            return
        result = "rolled back"
        if _name(layout.current) != trial.back_to:
            if self._is_there(trial.back_to):
                self._point(layout.current, trial.back_to)
                self._say(f"switched back to {trial.back_to}: {why}")
            else:
                result, why = "kept", f"{why}, and {trial.back_to} is not there to go back to"
                self._say(f"version {trial.to} stays: {why}")
        self._service.start_soon()
        self._close(trial, result, why)

    def _close(self, trial: Trial, result: str, why: str) -> None:
        self._record(trial.to, result, why)
        if trial.previous and self._is_there(trial.previous):
            self._point(self._layout.previous, trial.previous)
        else:
            _remove(self._layout.previous)
        self._say("what was before the trial is again")
        _remove(self._layout.trial)

    def _prune(self) -> None:
        """Remove every version but `current` and `previous`, and what was cut off in the middle; nothing while no version runs."""
        layout = self._layout
        if _name(layout.current) is None:
            return
        keep = {_name(layout.current), _name(layout.previous)}
        for path in sorted(layout.versions.iterdir()):
            if path.name.startswith("."):
                shutil.rmtree(path)
            elif path.name not in keep:
                gone = path.with_name(f".{path.name}.gone")
                shutil.rmtree(gone, ignore_errors=True)
                os.rename(path, gone)  # never half a version under its name
                shutil.rmtree(gone)
                self._say(f"removed version {path.name}")

    def _is_there(self, version: str) -> bool:
        try:
            Release.read(self._layout.versions / version)
        except ReleaseError:
            return False
        return True

    def _point(self, link: Path, version: str) -> bool:
        """Whether that changed anything."""
        return bool(point(link, f"versions/{version}"))

    def _record(self, version: str, result: str, why: str) -> None:
        """Keep how it went; a disk that is full has no part in that."""
        record = {"version": version, "result": result, "why": why, "at": _now()}
        try:
            write_beside(self._layout.last_update, (json.dumps(record, indent=1) + "\n").encode(), 0o644)
        except OSError as error:
            self._say(f"warning: {self._layout.last_update} cannot be written ({error.strerror}): version {version} {result}")

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
        what = trial.get("damaged") or f"{trial['to']} since {trial['began']}; if no update is under way: sudo sage-edge-update resume"
        lines.append(f"on trial  {what}")
    if (last := status["last"]) is not None:
        lines.append(f"last      {last['version']} {last['result']}, {last['at']}" + (f": {last['why']}" if last["why"] else ""))
    return "\n".join(lines)


def _take_signals() -> None:
    """The first SIGINT or SIGTERM gives up the update, more of them are ignored."""

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # going back is not interrupted
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that is lost does not end an update
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the old version runs on, 2 wrong use, 130 given up."""
    args = _parser().parse_args(argv)
    updater = Updater(Layout(), Service(say=_say), _say)
    try:
        if args.verb == "status":
            status = updater.status()
            print(json.dumps(status) if args.json else _text(status))
        elif args.verb in ("apply", "rollback") and not 0 < args.seconds <= MOST_SECONDS:
            raise UsageError(f"--seconds {args.seconds:g} is no time to watch for; give a number above 0, at most {MOST_SECONDS:.0f}")
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
    _take_signals()
    sys.exit(main())
