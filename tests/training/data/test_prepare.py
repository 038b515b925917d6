"""`prepare` is resumable: killed at any moment it ends with the store of an undisturbed run, and what has changed since is done again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from sage_edge.cli.main import main
from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.progress import Progress
from sage_edge.training.data import prepare as prepare_module
from sage_edge.training.data.partial import Partial
from sage_edge.training.data.store import Store, prepare
from sage_edge.training.data.synthetic import synthesise
from sage_edge.training.data.synthetic_video import write_mp4

KILLS = 20


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def interrupted(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path/s, whose first video is finished."""
    after(monkeypatch, 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tmp_path / "s", workers=1, progress=False)
    monkeypatch.undo()
    assert not (tmp_path / "s").exists()
    return tmp_path / "s"


def after(monkeypatch: pytest.MonkeyPatch, videos: int, happens: Callable[[], object]) -> None:
    """What happens once so many videos are finished."""
    step, count = Progress.step, 0

    def counting_step(self: Progress, n: int = 1, note: str | None = None) -> None:
        nonlocal count
        step(self, n, note)
        count += self.label == "prepare"
        if count == videos:
            happens()

    monkeypatch.setattr(Progress, "step", counting_step)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are worked on from now on."""
    seen: list[str] = []
    work = prepare_module._prepare_video

    def counted(job: prepare_module._Job) -> dict[str, object]:
        seen.append(job.video)
        return work(job)

    monkeypatch.setattr(prepare_module, "_prepare_video", counted)
    return seen


def test_resume_does_what_is_left_and_the_store_is_the_same(interrupted: Path, corpus: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    done = [path.stem for path in (interrupted.with_name("s.partial") / "done").iterdir()]
    assert len(done) == 1
    seen = counting(monkeypatch)
    summary = prepare(corpus, interrupted, workers=1, resume=True, progress=False)
    assert sorted(seen + done) == sorted({entry["source"].removesuffix(".mp4") for entry in store.entries})
    assert summary.cost.resumed == 1
    assert summary.digest == store.digest
    assert content(interrupted) == content(store.path)
    assert [path.name for path in interrupted.parent.iterdir()] == ["s"]


def test_an_unfinished_store_needs_the_flag_and_its_own_settings(interrupted: Path, corpus: Path, tmp_path: Path) -> None:
    before = content(tmp_path)
    with pytest.raises(UsageError, match=r"s.partial holds an unfinished store; continue it with --resume, or remove it"):
        prepare(corpus, interrupted, workers=1, progress=False)
    with pytest.raises(UsageError, match="was begun with rate 30, not native; repeat that, or remove it"):
        prepare(corpus, interrupted, rate="native", workers=1, resume=True, progress=False)
    with pytest.raises(UsageError, match=r"other\.partial holds no unfinished store; leave --resume away"):
        prepare(corpus, tmp_path / "other", workers=1, resume=True, progress=False)
    assert content(tmp_path) == before


def test_what_lies_in_the_way_stays(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s.partial"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"holds 'letter\.txt', which prepare did not write"):
        prepare(corpus, tmp_path / "s", workers=1, progress=False)
    assert content(tmp_path) == {"s.partial/letter.txt": b"dear"}
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(UsageError, match="is in the way and no folder"):
        prepare(corpus, tmp_path / "s", workers=1, progress=False)
    with pytest.raises(UsageError, match="0 workers are too few"):
        prepare(corpus, tmp_path / "t", workers=0, progress=False)


@pytest.mark.parametrize("touch", ["labels", "crop", "video", "subject"])
def test_a_video_whose_files_have_changed_is_done_again(touch: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "c"))
    after(monkeypatch, 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "s", workers=1, progress=False)
    monkeypatch.undo()
    (done,) = (path.stem for path in (tmp_path / "s.partial/done").iterdir())
    trial = json.loads((tmp_path / f"s.partial/done/{done}.json").read_text())["entries"][0]
    label_file = next((root / "VA_Estimation_Challenge").rglob(f"{trial['name']}.txt"))
    if touch == "labels":
        label_file.write_text("valence,arousal\n" + "0.5,0.5\n" * 40)
    elif touch == "crop":
        crop = next((root / "cropped_aligned" / trial["name"]).iterdir())
        cv2.imwrite(str(crop), np.full((112, 112, 3), 200, np.uint8))  # in place: the folder looks as before
    elif touch == "video":
        os.utime(root / "batch1" / trial["source"], ns=(0, 0))
    else:
        note = root / "synthetic/corpus.json"
        said = json.loads(note.read_text())
        note.write_text(json.dumps({**said, "subjects": {**said["subjects"], trial["name"]: "somebody else"}}))
    seen = counting(monkeypatch)
    summary = prepare(root, tmp_path / "s", workers=1, resume=True, progress=False)
    assert done in seen
    assert summary.cost.resumed == 0
    assert summary.digest == prepare(root, tmp_path / "fresh", workers=1, progress=False).digest
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


def test_a_video_that_left_the_corpus_leaves_the_store(interrupted: Path, corpus: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "c"))
    (done,) = (path.stem for path in (tmp_path / "s.partial/done").iterdir())
    for label_file in (root / "VA_Estimation_Challenge").rglob(f"{done}*.txt"):
        label_file.unlink()
    summary = prepare(root, interrupted, workers=1, resume=True, progress=False)
    assert summary.unused_videos == [done]
    assert content(interrupted) == content(prepare(root, tmp_path / "fresh", workers=1, progress=False).path)


@pytest.mark.parametrize("lost", ["done/*.json", "store/faces/*", "store/audio/*", "frames/*"])
def test_what_a_crash_of_the_machine_took_is_done_again(lost: str, interrupted: Path, corpus: Path, store: Store) -> None:
    for path in interrupted.with_name("s.partial").glob(lost):
        path.write_bytes(b"")
        if lost == "frames/*":
            path.unlink()
    assert prepare(corpus, interrupted, workers=1, resume=True, progress=False).digest == store.digest
    assert content(interrupted) == content(store.path)


def test_two_at_once_are_one_too_many(interrupted: Path, corpus: Path) -> None:
    first = Partial(interrupted)
    settings = json.loads((first.folder / "settings.json").read_text())
    first.begin(settings, resume=True)
    with pytest.raises(UsageError, match="is being written by another process"):
        prepare(corpus, interrupted, workers=1, resume=True, progress=False)
    assert first.abandon()
    prepare(corpus, interrupted, workers=1, resume=True, progress=False)


def test_killed_while_it_tidied_up_it_is_finished(interrupted: Path, corpus: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store.path, interrupted)
    shutil.rmtree(interrupted.with_name("s.partial") / "store")
    assert main(["prepare", str(corpus), str(interrupted), "--resume"]) == 0
    assert store.digest[:12] in capsys.readouterr().out
    assert [path.name for path in interrupted.parent.iterdir()] == ["s"]


def test_ctrl_c_says_how_to_go_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    after(monkeypatch, 1, interrupt)
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--workers", "1"]) == 130
    said = capsys.readouterr().err.splitlines()[-2:]
    assert said[0] == f"{tmp_path / 's.partial'} holds every finished video; continue with --resume, or remove it"
    assert said[1].startswith("error: interrupted")
    monkeypatch.undo()
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--workers", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("continue it with --resume, or remove it")
    assert main(["prepare", str(corpus), str(tmp_path / "s"), "--workers", "1", "--resume"]) == 0
    assert "(1 videos were there already)" in capsys.readouterr().out


def test_a_failure_keeps_what_was_finished(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "c"))

    def spoil() -> None:
        for folder in (root / "cropped_aligned").iterdir():
            (folder / "face.jpg").write_bytes(b"")

    after(monkeypatch, 1, spoil)
    assert main(["prepare", str(root), str(tmp_path / "s"), "--workers", "1"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-2].endswith("s.partial holds every finished video; continue with --resume, or remove it")
    assert "face.jpg: a crop's name is its frame number" in said[-1]
    monkeypatch.undo()
    for file in (root / "cropped_aligned").glob("*/face.jpg"):
        file.unlink()
    # what was finished looks as it did, but for the file that came and went
    assert prepare(root, tmp_path / "s", workers=1, resume=True, progress=False).cost.resumed == 1


def killed_at(moment: int, corpus: Path, out: Path) -> bool:
    """Prepare in a child process, resuming where it can; SIGKILL before its `moment`-th change of the file system. Whether it came to that."""
    child = os.fork()
    if child:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in (0, -signal.SIGKILL)
        return ended != 0
    changes = 0

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            changes += 1
            if changes == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(count)
        resume = (Partial(out).folder / "settings.json").is_file() or out.exists()
        prepare(corpus, out, workers=1, resume=resume, progress=False)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def test_killed_at_every_change_of_the_file_system_it_ends_with_the_same_store(tmp_path: Path) -> None:
    corpus, whole = tmp_path / "c", tmp_path / "whole"
    for name in ("v_left", "v_right", "w"):
        labels = corpus / f"VA_Estimation_Challenge/Train_Set/{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("valence,arousal\n" + "0.1,0.2\n" * 5)
        (corpus / "cropped_aligned" / name).mkdir(parents=True)
        for k in (1, 2, 4):
            cv2.imwrite(str(corpus / f"cropped_aligned/{name}/{k:05d}.jpg"), np.full((112, 112, 3), 40 * k, np.uint8))
    (corpus / "batch1").mkdir()
    for name in "vw":
        write_mp4(corpus / f"batch1/{name}.mp4", ((k * 3000, np.zeros((48, 64, 3), np.uint8)) for k in range(5)), (64, 48), Fraction(30), None)
    assert not killed_at(0, corpus, whole)
    moment, out = 1, tmp_path / "s"
    while killed_at(moment, corpus, out):
        if not out.exists() or Partial(out).folder.exists():
            assert not killed_at(0, corpus, out), f"not to be resumed after change {moment}"
        assert content(out) == content(whole), f"another store after change {moment}"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "s", "whole"], f"litter after change {moment}"
        shutil.rmtree(out)
        moment += 1
    assert moment > 40


COMMAND = "import sys; from sage_edge.cli.main import main; sys.exit(main(sys.argv[1:]))"


def start(corpus: Path, out: Path) -> subprocess.Popen[str]:
    """The command, from the moment on at which it begins to write; with --resume where there is something to resume."""
    partial = Partial(out)
    resume = ["--resume"] if (partial.folder / "settings.json").is_file() or out.exists() else []
    command = [sys.executable, "-c", COMMAND, "prepare", str(corpus), str(out), "--workers", "2", *resume]
    before = partial.folder.exists()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not before and process.poll() is None and not partial.folder.exists():
        time.sleep(0.005)
    return process


def without_interpreter_start(said: str) -> str:
    """`said` without what Python itself prints in a worker whose parent is gone before it has handed over what to run: none of our code is in it."""
    return re.sub(
        r'Traceback \(most recent call last\):\n(  File "(<string>|[^"]*multiprocessing/spawn\.py)".*\n(    .*\n)*)+EOFError: Ran out of input\n',
        "",
        said,
    )


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_store(tmp_path: Path) -> None:
    """SIGKILL to the process alone, as the kernel does it when memory runs out; its workers must not go on and meddle with the next run."""
    corpus = synthesise(tmp_path / "c", seed=3, train=14, val=6, seconds=2, workers=2, progress=False)
    undisturbed = start(corpus, tmp_path / "whole")
    begin_s = time.monotonic()
    assert undisturbed.wait(300) == 0
    all_s = time.monotonic() - begin_s
    whole = content(tmp_path / "whole")
    out, partial = tmp_path / "s", Partial(tmp_path / "s")
    chance, kills, partly = random.Random(1), 0, 0
    while kills < KILLS or partial.folder.exists():
        process = start(corpus, out)
        if kills < KILLS:
            time.sleep(chance.uniform(0, all_s))
            process.kill()
            kills += 1
        _, said = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), said
        assert "Traceback" not in without_interpreter_start(said)
        partly += partial.holds_work()
        if out.exists() and not partial.folder.exists():
            assert content(out) == whole
            assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "s", "whole"]
            if kills < KILLS:
                shutil.rmtree(out)
    assert Store.open(out).digest == Store.open(tmp_path / "whole").digest
    assert partly > 0, "some kills found work half done"
