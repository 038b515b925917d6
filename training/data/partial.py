"""What `prepare` keeps beside OUT while it is under way: OUT.partial, one finished video after the other.

    settings.json     what it was begun with
    store/            what becomes OUT: faces/, audio/, at last frames/ and index.json
    frames/VIDEO.npz  columns of the frames of a video's trials, until they go into the table of all
    done/VIDEO.json   written last: with it, a video counts as finished
    work/VIDEO/       files of a video that is not finished
    lock              held by the process at work

Workers write below work/ alone; one process moves what they finished. Killed at any moment, what done/ lists is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from sage_edge.runtime.errors import UsageError
from sage_edge.runtime.files import lock

from .store import ARRAYS, COLUMNS, array_path
from .store_writer import write_index

_OWN = {"settings.json", "store", "frames", "done", "work", "lock"}

Record = dict[str, Any]
"""{"stamp": what the video was made from, "entries": [one per trial], "cost": {...}}."""


class Partial:
    """The folder of one unfinished store."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".partial")
        self._lock: IO[bytes] | None = None

    def over(self) -> bool:
        """Whether OUT is there and this folder only what was left to remove."""
        return os.path.lexists(self.out) and self.folder.is_dir() and not self._foreign() and not (self.folder / "store").exists()

    def holds_work(self) -> bool:
        """Whether a finished video is in it."""
        done = self.folder / "done"
        return done.is_dir() and any(done.iterdir())

    def begin(self, settings: Mapping[str, Any], resume: bool) -> dict[str, Record]:
        """{video: what is finished of it}; the folder is there and ours afterwards. Raises UsageError where something is in the way."""
        if os.path.lexists(self.out):
            raise UsageError(f"{self.out} exists already; choose another path or remove it")
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is in the way and no folder; choose another path or move it")
        if foreign := self._foreign():
            raise UsageError(f"{self.folder} holds {foreign[0]!r}, which prepare did not write; choose another path or move it")
        begun = self._read(self.folder / "settings.json")
        if resume and begun is None:
            raise UsageError(f"{self.folder} holds no unfinished store; leave --resume away")
        if not resume and self.holds_work():
            raise UsageError(f"{self.folder} holds an unfinished store; continue it with --resume, or remove it")
        for key in settings:
            if resume and begun is not None and begun.get(key) != settings[key]:
                had = f"{key} {begun.get(key)}, not {settings[key]}"
                raise UsageError(f"{self.folder} was begun with {had}; repeat that, or remove it and start again")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.folder / "lock")
        shutil.rmtree(self.folder / "store" / "frames", ignore_errors=True)
        (self.folder / "store" / "index.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        for name in ("store/faces", "store/audio", "frames", "done", "work"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write(self.folder / "settings.json", settings)
        records = {path.stem: self._read(path) for path in (self.folder / "done").glob("*.json")}
        return {video: record for video, record in records.items() if record is not None and self._whole(video, record)}

    def _whole(self, video: str, record: Record) -> bool:
        try:
            files = [(array_path(self.folder / "store", entry, name), entry["files"][name]["size"]) for entry in record["entries"] for name in ARRAYS]
            return (self.folder / "frames" / f"{video}.npz").is_file() and all(path.stat().st_size == size for path, size in files)
        except (OSError, KeyError, TypeError):
            return False

    def keep_only(self, videos: Collection[str]) -> None:
        """Remove what is not of `videos`: begun, changed since, or no longer in the corpus."""
        # The records first: what they say must be there as long as they are.
        for folder, suffix in (("done", ".json"), ("frames", ".npz")):
            for path in (self.folder / folder).iterdir():
                if path.name.removesuffix(suffix) not in videos:
                    path.unlink()
        entries = [entry for video in videos for entry in json.loads((self.folder / "done" / f"{video}.json").read_text("utf-8"))["entries"]]
        wanted = {array_path(self.folder / "store", entry, name) for entry in entries for name in ARRAYS}
        for name in ARRAYS:
            for path in (self.folder / "store" / name).iterdir():
                if path not in wanted:
                    path.unlink()

    def work(self, video: str) -> Path:
        """The folder that a worker makes for `video`."""
        return self.folder / "work" / video

    def commit(self, video: str, record: Record) -> None:
        """Take over what a worker has written of `video`: work/VIDEO/{frames.npz, audio.npy, TRIAL.faces.npy}."""
        work = self.work(video)
        for entry in record["entries"]:
            os.replace(work / f"{entry['name']}.faces.npy", array_path(self.folder / "store", entry, "faces"))
        os.replace(work / "audio.npy", array_path(self.folder / "store", record["entries"][0], "audio"))
        os.replace(work / "frames.npz", self.folder / "frames" / f"{video}.npz")
        work.rmdir()
        self._write(self.folder / "done" / f"{video}.json", record)

    def finish(self, meta: Mapping[str, Any], records: Mapping[str, Record]) -> dict[str, Any]:
        """Write table and index, give the store its name, remove the rest; returns the index."""
        placed = sorted((entry["name"], video, entry) for video, record in records.items() for entry in record["entries"])
        columns = []
        for name, video, _ in placed:
            with np.load(self.folder / "frames" / f"{video}.npz") as frames:
                columns.append({column: frames[f"{name}/{column}"] for column in COLUMNS})
        content = write_index(self.folder / "store", meta, [entry for _, _, entry in placed], columns)
        os.rename(self.folder / "store", self.out)
        self.remove()
        return content

    def abandon(self) -> bool:
        """After a failure: keep a folder with a finished video in it (True), remove one without."""
        if self._lock is None:
            return False
        if not self.holds_work():
            self.remove()
            return False
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        self._close()
        return True

    def remove(self) -> None:
        """Remove the folder."""
        self._close()
        # `store` must not outlive the rest: with it, the folder would pass for unfinished work.
        for name in ("store", *sorted(_OWN - {"store"})):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _foreign(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name not in _OWN) if self.folder.is_dir() else []

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        beside = self.folder / "work" / f".{path.name}"
        beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        os.replace(beside, path)

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        """None where there is no file, or one that was cut off by a crash of the machine."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None
