"""What a training run keeps beside its checkpoint while it is under way: CKPT.run with state.pt, metrics.jsonl, tensorboard/, features/, and at
the end for a moment checkpoint/, which becomes CKPT. One process at a time: `lock` is held while it runs.

state.pt is replaced atomically after each epoch, so a run that was stopped at any moment continues from the last whole epoch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.runtime.files import atomic_file, lock

from .checkpoint import META, defined

FEATURES = "features"
RESULT = "checkpoint"
_OWN = ("state.pt", "metrics.jsonl", "tensorboard", "lock", FEATURES, RESULT)
_TEMPORARY = re.compile(r"\.(state\..+\.pt|metrics\..+\.jsonl)")
"""What `atomic_file` calls the two while they are written."""


class Run:
    """The folder of one run."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = Path(checkpoint)
        self.folder = self.checkpoint.with_name(self.checkpoint.name + ".run")
        self.records: list[dict[str, Any]] = []
        self._writer: Any = None
        self._lock: IO[bytes] | None = None

    def over(self) -> bool:
        """Whether the checkpoint is whole and only the run's own files are left: killed between the two."""
        return (self.checkpoint / META).is_file() and self.folder.is_dir() and not self._foreign()

    def begin(self, resume: bool) -> dict[str, Any] | None:
        """The state to continue from, None for a fresh run. Raises UsageError (something is in the way), CheckpointError (state damaged)."""
        if self.checkpoint.exists():
            raise UsageError(f"{self.checkpoint} exists already; choose another --out or remove it")
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is in the way and no folder; choose another --out or move it")
        if foreign := self._foreign():
            raise UsageError(f"{self.folder} holds {foreign[0].name!r}, which no training wrote; choose another --out or move it")
        self._lock = lock(self.folder / "lock") if self.folder.is_dir() else None
        try:
            return self._state(resume)
        except BaseException:
            self.close()
            raise

    def _state(self, resume: bool) -> dict[str, Any] | None:
        there = (self.folder / "state.pt").is_file()
        if resume and there:
            state = self.read()
            self._write_records()
            return state
        if there:
            raise UsageError(f"{self.folder} holds an unfinished run; continue it with --resume, or remove it")
        if resume and not (self.folder / FEATURES).is_dir():
            raise UsageError(f"{self.folder} holds no unfinished run; leave --resume away")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = lock(self.folder / "lock")
        return None

    def read(self) -> dict[str, Any] | None:
        """What `save` wrote, None when there is nothing yet. Raises CheckpointError."""
        state_file = self.folder / "state.pt"
        if not state_file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(state_file, map_location="cpu", weights_only=True)
            self.records = list(state["records"])
        except Exception as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{state_file} cannot be read ({what}); remove {self.folder} and start again") from None
        return state

    def record(self, entry: dict[str, Any], step: int) -> None:
        """One line of metrics.jsonl, and a TensorBoard scalar for each number; `step` counts epochs over all stages."""
        self.records.append(entry)
        self._write_records()
        if self._writer is None:
            # heavy, and wanted only once there is something to write
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / "tensorboard"))
        for key, value in entry.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{entry['stage']}/{key}", value, step)
        self._writer.flush()

    def _write_records(self) -> None:
        with atomic_file(self.folder / "metrics.jsonl") as file:
            file.write_text("".join(json.dumps(defined(entry)) + "\n" for entry in self.records), encoding="utf-8")

    def save(self, state: dict[str, Any]) -> None:
        """Replace state.pt."""
        with atomic_file(self.folder / "state.pt") as file:
            torch.save({**state, "records": self.records}, file)

    def publish(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder, add the logs, and make it the checkpoint: whole or not at all, and nothing beside it after a kill."""
        self._close_log()
        work = self.folder / RESULT
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        write(work)
        if (self.folder / "metrics.jsonl").exists():
            shutil.copy2(self.folder / "metrics.jsonl", work)
        if (self.folder / "tensorboard").exists():
            shutil.copytree(self.folder / "tensorboard", work / "tensorboard")
        if os.path.lexists(self.checkpoint):
            raise UsageError(f"{self.checkpoint} was made by something else meanwhile; move it, and repeat with --resume")
        os.rename(work, self.checkpoint)

    def end(self) -> None:
        """Remove the run's files: all that matters is in the checkpoint now."""
        self.close()
        self._remove()

    def abandon(self) -> bool:
        """After a failure: keep a run that can be continued (True), be it its features alone; remove one that cannot."""
        self.close()
        if (self.folder / "state.pt").is_file() or (self.folder / FEATURES).is_dir():
            return True
        self._remove()
        return False

    def _foreign(self) -> list[Path]:
        """What lies in the folder and is not a run's: neither its files nor what a killed process left of writing them."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name not in _OWN and not _TEMPORARY.fullmatch(path.name))

    def _remove(self) -> None:
        """Remove the folder, but keep what somebody else has put into it meanwhile."""
        foreign = self._foreign()
        if not foreign:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in set(self.folder.iterdir()) - set(foreign):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the logs and let other processes in."""
        self._close_log()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_log(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
