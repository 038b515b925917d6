"""Updates: real folders, real programs, a pretended systemd that really starts and ends the service."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pwd
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_systemd import READY_S, Systemd
from released import make_system
from versions import make_version

from sage_edge.jetson import health, update
from sage_edge.jetson.health import Service
from sage_edge.jetson.lay_in import point, write_beside
from sage_edge.jetson.layout import Layout
from sage_edge.jetson.release_file import Release, ReleaseError
from sage_edge.jetson.unpack import unpack
from sage_edge.jetson.update import Trial, Updater, _text
from sage_edge.runtime.errors import BoardError, UsageError

ME = pwd.getpwuid(os.geteuid()).pw_name
SECONDS = 0.1


class Board:
    """A root with version 1 on it and running."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(make_system(root / "root"))
        self.releases = root / "releases"
        self.systemd = Systemd(root / "systemd", self.layout.current / "bin/sage-edge-service")
        self.said: list[str] = []
        point(self.layout.current, f"versions/{unpack(self.release('1'), self.layout).name}")
        assert self.systemd.restart()

    def release(self, version: str, behaviour: str = "well", prepare: str = "exit 0") -> Path:
        self.releases.mkdir(exist_ok=True)
        found = next(self.releases.glob(f"sage-edge-{version}-*.tar.gz"), None)
        return found or make_version(self.releases, version, behaviour, prepare)

    def updater(self, say: Callable[[str], None] | None = None) -> Updater:
        return Updater(self.layout, Service(), say or self.said.append, ME)

    @property
    def runs(self) -> str:
        """The version of the process that gives estimates."""
        self.systemd.wait_for(lambda: " of " in Service().state().status)
        return Service().state().status.rpartition(" of ")[2]

    def links(self) -> tuple[str | None, str | None]:
        status = self.updater().status()
        return status["current"], status["previous"]

    def folders(self) -> list[str]:
        return sorted(os.listdir(self.layout.versions))

    def check(self, runs: str, previous: str | None) -> None:
        """The board is in this state and in no other: nothing is half-done, nothing is left over."""
        assert self.links() == (runs, previous)
        assert self.folders() == sorted({name for name in (runs, previous) if name})
        for name in self.folders():
            Release.read(self.layout.versions / name).verify(self.layout.versions / name)
        assert not self.layout.trial.exists()
        assert self.systemd.active
        assert self.runs == runs


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.setattr(health, "_POLL_S", 0.02)
    monkeypatch.setenv("PATH", f"{tmp_path}/systemd/bin:{os.environ['PATH']}")
    made = Board(tmp_path)
    yield made
    made.systemd.close()


def test_a_good_release_runs_and_the_one_before_stays_to_go_back_to(board: Board) -> None:
    assert board.updater().apply(board.release("2"), SECONDS) == "2"
    board.check("2", "1")
    assert board.updater().status()["last"]["result"] == "runs"
    assert board.updater().apply(board.release("3"), SECONDS) == "3"
    board.check("3", "2")
    assert board.updater().rollback(SECONDS) == "2"
    board.check("2", "3")
    with pytest.raises(BoardError):
        board.updater().apply(board.release("4", "dies at once"), SECONDS)
    board.check("2", "3")


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("dies at once", "did not become ready: exit code 3 .*no camera of mine"),
        pytest.param("never ready", "did not become ready: it did not become ready in time", marks=pytest.mark.slow),
        pytest.param("dies later", "(ended by itself after .* s|did not become ready): exit code 4", marks=pytest.mark.slow),
        ("stalls", "no new estimate"),
    ],
)
def test_a_release_that_is_not_well_is_rolled_back_by_itself_and_why_is_kept(
    board: Board, monkeypatch: pytest.MonkeyPatch, behaviour: str, why: str
) -> None:
    if behaviour == "stalls":
        monkeypatch.setattr(health, "STALLED_S", 0.5)
    board.systemd.patience_s["2"] = 0.5 if behaviour == "never ready" else READY_S
    with pytest.raises(BoardError, match=f"version 2 was tried and rolled back to 1: .*{why}"):
        board.updater().apply(board.release("2", behaviour), 0.4)
    board.check("1", None)
    last = json.loads(json.dumps(board.updater().status()))["last"]
    assert (last["version"], last["result"]) == ("2", "rolled back")
    assert re.search(why, last["why"])


def test_a_release_that_computes_something_else_here_never_runs(board: Board) -> None:
    before = list(board.systemd.calls)
    with pytest.raises(BoardError, match="version 2 cannot be made ready here"):
        board.updater().apply(board.release("2", prepare="exit 1"), SECONDS)
    assert not any("restart" in call for call in board.systemd.calls[len(before) :])
    board.check("1", None)
    assert board.updater().status()["last"]["result"] == "refused"


def test_a_version_before_that_was_damaged_meanwhile_is_not_tried(board: Board) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    calls = len(board.systemd.calls)
    with open(board.layout.versions / "1/bin/sage-edge", "a") as stream:
        stream.write("# damaged\n")
    with pytest.raises(ReleaseError, match="is not what its release lists"):
        board.updater().rollback(SECONDS)
    assert not any("restart" in call for call in board.systemd.calls[calls:])
    assert board.links() == ("2", "1")
    assert board.runs == "2"
    assert board.updater().status()["last"]["result"] == "refused"


def test_a_damaged_release_and_the_running_one_are_refused_and_change_nothing(board: Board) -> None:
    damaged = board.releases / "damaged.tar.gz"
    damaged.write_bytes(board.release("2").read_bytes()[:-200])
    with pytest.raises(ReleaseError):
        board.updater().apply(damaged, SECONDS)
    with pytest.raises(UsageError, match="version 1 runs already"):
        board.updater().apply(board.release("1"), SECONDS)
    with pytest.raises(UsageError, match="no version before 1"):
        board.updater().rollback(SECONDS)
    board.check("1", None)


def test_units_are_loaded_again_with_every_switch_and_a_unit_that_failed_too_often_may_start(board: Board) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    verbs = [call[0] for call in board.systemd.calls if call[0] != "show"]
    assert verbs == ["daemon-reload", "reset-failed", "restart"]


def test_a_version_is_made_ready_with_the_owners_settings_and_the_services_cache(board: Board) -> None:
    board.layout.settings.parent.mkdir(parents=True)
    board.layout.settings.write_text('# mine\nSAGE_EDGE_OPTIONS="--hop 15"\nLD_PRELOAD=/tmp/evil.so\n')
    board.updater().apply(board.release("2", prepare='test -z "$LD_PRELOAD"'), SECONDS)
    cache = board.layout.cache
    assert (cache / "prepared-2").read_text().split() == [str(cache), str(cache), f"{cache}/pycache", str(os.geteuid()), "--hop", "15"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_version_is_made_ready_as_the_services_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        root = Path(name) / "board"
        monkeypatch.setenv("PATH", f"{root}/systemd/bin:{os.environ['PATH']}")
        board = Board(root)
        try:
            Updater(board.layout, Service(), board.said.append, "nobody").apply(board.release("2"), SECONDS)
            nobody = pwd.getpwnam("nobody").pw_uid
            assert (board.layout.cache / "prepared-2").read_text().split()[3] == str(nobody)
            assert board.layout.cache.stat().st_uid == nobody
            assert board.layout.trial.parent.stat().st_uid == 0
        finally:
            board.systemd.close()


def test_every_file_is_read_once_before_it_is_tried(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    verify = Release.verify
    monkeypatch.setattr(Release, "verify", lambda release, folder: (verified.append(release.version), verify(release, folder)))
    board.updater().apply(board.release("2"), SECONDS)
    assert verified == []  # it was checked while it was written
    board.updater().rollback(SECONDS)
    assert verified == ["1"]


def test_two_updates_at_once_are_refused_and_the_watched_trial_is_left_alone(board: Board) -> None:
    at_trial, go_on = threading.Event(), threading.Event()

    def say(text: str) -> None:
        if text.startswith("switched to"):
            at_trial.set()
            assert go_on.wait(20)

    thread = threading.Thread(target=board.updater(say).apply, args=(board.release("2"), SECONDS))
    thread.start()
    assert at_trial.wait(20)
    with pytest.raises(UsageError, match="another process"):
        board.updater().apply(board.release("3"), SECONDS)
    board.updater().resume()
    assert board.said[-1] == "an update is being watched: nothing to do here"
    go_on.set()
    thread.join(20)
    board.check("2", "1")


def test_an_interrupted_trial_is_given_up_before_the_program_ends(board: Board) -> None:
    def say(text: str) -> None:
        if text.startswith("switched to"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        board.updater(say).apply(board.release("2"), SECONDS)
    board.check("1", None)
    assert "given up (KeyboardInterrupt)" in board.updater().status()["last"]["why"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"to": "2"}', "\0" * 40])
def test_a_record_that_says_nothing_is_known_for_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "trial.json").write_text(text)
    with pytest.raises(BoardError, match=r"trial.json cannot be read"):
        Trial.read(tmp_path / "trial.json")


def test_a_record_that_says_nothing_is_a_trial_to_give_up(board: Board) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    board.layout.trial.write_text("")
    assert "trial.json cannot be read" in board.updater().status()["trial"]["damaged"]
    assert "trial.json cannot be read" in _text(board.updater().status())
    board.updater().resume()
    board.systemd.wait_for(lambda: board.systemd.active)
    assert board.runs == "1"
    with pytest.raises(UsageError, match="version 1 runs already"):
        board.updater().apply(board.release("1"), SECONDS)
    board.check("1", None)


def test_nothing_is_removed_while_no_version_runs(board: Board) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    board.layout.current.unlink()
    previous = board.layout.previous.readlink()
    board.layout.previous.unlink()
    for _ in range(2):
        board.updater().resume()
        with pytest.raises(UsageError, match="points at no version; install one"):
            board.updater().apply(board.release("3"), SECONDS)
        assert board.folders() == ["1", "2"]
    board.layout.previous.symlink_to(previous)
    board.updater().apply(board.release("3"), SECONDS)
    board.check("3", "1")


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No room for the file `name`."""

    def write(target: Path, content: bytes, mode: int) -> None:
        if target.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        write_beside(target, content, mode)

    monkeypatch.setattr(update, "write_beside", write)


def test_no_room_for_the_record_of_a_trial_leaves_everything_as_it_was(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    calls = len(board.systemd.calls)
    full_disk(monkeypatch, "trial.json")
    with pytest.raises(OSError, match="No space left"):
        board.updater().apply(board.release("3"), SECONDS)
    assert not any("restart" in call for call in board.systemd.calls[calls:])
    board.check("2", "1")


@pytest.mark.parametrize("behaviour", [pytest.param("well", marks=pytest.mark.slow), "dies at once"])
def test_no_room_for_how_it_went_does_not_change_how_it_goes(board: Board, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    full_disk(monkeypatch, "update.json")
    with contextlib.nullcontext() if behaviour == "well" else pytest.raises(BoardError, match="rolled back to 1"):
        board.updater().apply(board.release("2", behaviour), SECONDS)
    board.check(*(("2", "1") if behaviour == "well" else ("1", None)))
    assert any(line.startswith("warning: ") and "update.json cannot be written" in line for line in board.said)


def test_a_version_that_is_gone_is_not_said_to_run(board: Board) -> None:
    board.updater().apply(board.release("2"), SECONDS)
    trial = {"to": "2", "back_to": "0", "previous": "1", "began": ""}
    board.layout.trial.write_text(json.dumps(trial))
    board.updater().resume()
    last = board.updater().status()["last"]
    assert (last["version"], last["result"]) == ("2", "kept")
    board.systemd.wait_for(lambda: board.systemd.active)
    board.check("2", "1")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "4000"])
def test_a_time_that_would_not_end_or_not_begin_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert update.main(["apply", "FILE", "--seconds", seconds]) == 2
    assert "is no time to watch for" in capsys.readouterr().err


def cut_off(run: Callable[[], Any]) -> bool:
    """Run in a child that may end itself at once, like a machine whose power goes; whether it came to that."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the child ends
            run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def boot(board: Board) -> None:
    """What systemd does: the rollback unit where there is a trial on record, by the version before, then the service."""
    board.systemd.power_off()
    if board.layout.trial.exists():
        trial = Trial.read(board.layout.trial)
        assert trial is not None
        current, previous = board.links()
        assert (previous or current) != trial.to, "the unit runs the program of `previous`, then that of `current`"
        board.updater().resume()
    board.systemd.wait_for(lambda: board.systemd.active or board.systemd.restart())


def check_after_boot(board: Board, wanted: tuple[str, ...]) -> None:
    """One of the versions `wanted` runs, whole, after the next boot; and whatever is done next leaves nothing of a trial."""
    boot(board)
    runs, previous = board.links()
    assert runs in wanted
    assert board.runs == runs
    assert not board.layout.trial.exists()
    for name in filter(None, (runs, previous)):
        Release.read(board.layout.versions / name).verify(board.layout.versions / name)
    with pytest.raises(UsageError, match="runs already"):
        board.updater().apply(board.release(runs or ""), SECONDS)
    board.check(runs or "", previous)


@pytest.mark.parametrize(("step", "runs"), [("switched to 2", "1"), pytest.param("the trial is over", "2", marks=pytest.mark.slow)])
def test_power_may_go_in_a_trial_and_the_next_boot_has_a_whole_version(board: Board, step: str, runs: str) -> None:
    release = board.release("2")

    def say(text: str) -> None:
        if text.startswith(step):
            os.kill(os.getpid(), signal.SIGKILL)

    assert cut_off(lambda: board.updater(say).apply(release, SECONDS))
    check_after_boot(board, (runs,))
    board.updater().apply(board.release("3"), SECONDS)
    board.check("3", runs)


EVENTS = {"os.rename", "os.symlink", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "subprocess.Popen", "open"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "every"),
    [
        ("dies at once", 5),
        pytest.param("dies at once", 1, marks=pytest.mark.nightly),
        pytest.param("well", 1, marks=pytest.mark.nightly),
    ],
)
def test_power_may_go_before_every_change_of_the_disk_and_the_next_boot_has_a_whole_version(board: Board, behaviour: str, every: int) -> None:
    versions = map(str, itertools.count(2))
    for number in itertools.count(0, every):
        began, tried = board.links()[0] or "", next(versions)
        release = board.release(tried, behaviour)

        def run(number: int = number, release: Path = release) -> None:
            calls = itertools.count()

            def hook(event: str, args: tuple[Any, ...]) -> None:
                if event in EVENTS and not (event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)) and next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            board.updater().apply(release, SECONDS)

        killed = cut_off(run)
        check_after_boot(board, (began, tried) if behaviour == "well" else (began,))
        if not killed:
            break
    assert number > 40


def test_status_is_readable_for_people() -> None:
    last = {"version": "3", "result": "rolled back", "why": "no new estimate for 20 s", "at": "2026-11-21T10:00:00Z"}
    trial = {"to": "3", "back_to": "2", "previous": "", "began": "2026-11-21T09:59:00Z"}
    assert _text({"current": "2", "previous": None, "trial": trial, "last": last}).splitlines() == [
        "current   2",
        "previous  none",
        "on trial  3 since 2026-11-21T09:59:00Z; if no update is under way: sudo sage-edge-update resume",
        "last      3 rolled back, 2026-11-21T10:00:00Z: no new estimate for 20 s",
    ]
