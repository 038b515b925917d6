"""What a training run keeps beside its checkpoint while it is under way: CKPT.run with state.pt, metrics.jsonl and tensorboard/.

state.pt is replaced atomically after each epoch, so a run that was stopped at any moment continues from the last whole epoch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from sage_edge.runtime.errors import CheckpointError, UsageError
from sage_edge.runtime.files import atomic_file


class Run:
    """The folder of one run."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = Path(checkpoint)
        self.folder = self.checkpoint.with_name(self.checkpoint.name + ".run")
        self.records: list[dict[str, Any]] = []
        self._writer: Any = None

    def begin(self, resume: bool) -> dict[str, Any] | None:
        """The state to continue from, None for a fresh run. Raises UsageError (something is in the way), CheckpointError (state damaged)."""
        if self.checkpoint.exists():
            raise UsageError(f"{self.checkpoint} exists already; choose another --out or remove it")
        state_file = self.folder / "state.pt"
        if resume and state_file.is_file():
            try:
                state: dict[str, Any] = torch.load(state_file, map_location="cpu", weights_only=True)
                self.records = list(state["records"])
            except Exception as error:
                what = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise CheckpointError(f"{state_file} cannot be read ({what}); remove {self.folder} and start again") from None
            self._write_records()
            return state
        if self.folder.exists() and state_file.is_file():
            raise UsageError(f"{self.folder} holds an unfinished run; continue it with --resume, or remove it")
        if resume:
            raise UsageError(f"{self.folder} holds no unfinished run; leave --resume away")
        self.folder.mkdir(parents=True, exist_ok=True)
        return None

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
            file.write_text("".join(json.dumps(entry) + "\n" for entry in self.records), encoding="utf-8")

    def save(self, state: dict[str, Any]) -> None:
        """Replace state.pt."""
        with atomic_file(self.folder / "state.pt") as file:
            torch.save({**state, "records": self.records}, file)

    def collect(self, folder: Path) -> None:
        """Move the logs into the finished checkpoint folder."""
        self.close()
        for name in ("metrics.jsonl", "tensorboard"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, folder / name) if name == "tensorboard" else shutil.copy2(self.folder / name, folder / name)

    def end(self) -> None:
        """Remove the run's folder: all that matters is in the checkpoint now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def abandon(self) -> bool:
        """After a failure: keep a run that can be continued (True), remove one that cannot."""
        self.close()
        if (self.folder / "state.pt").is_file():
            return True
        shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
