"""A prepared corpus: decoded once, memory-mapped afterwards. No torch in here.

    STORE/index.json             schema, meta, one entry per trial with counts, and the size and sha256 of every file
    STORE/frames/                one table for the frames of all trials, one file per column; a trial is a run of its rows
        frame_t_ns.npy           int64 [R], ns after the trial's first frame       labels.npy        float32 [R, 2]
        frame_face.npy           int32 [R], row of the trial's faces or -1         labels_valid.npy  bool [R]
    STORE/faces/TRIAL.npy        uint8 [n, 48, 48, 3] RGB, one per trial: each person has crops of their own
    STORE/audio/VIDEO.npy        int16 [N], mono 16 kHz, from time zero, one per raw video: NAME_left and NAME_right share its sound

Opening reads the index and looks at the size of each file; faces and sound are mapped when they are used (`mapped`).
`sage-edge prepare SRC STORE` writes one (see `prepare.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import DataError

from .mapped import ArrayFile, mapped_fields

SCHEMA = 2
FACE_SIZE = 48
COLUMNS = ("frame_t_ns", "frame_face", "labels", "labels_valid")
"""Of the table of frames."""
ARRAYS = {"faces": (np.uint8, (FACE_SIZE, FACE_SIZE, 3)), "audio": (np.int16, ())}
"""Element type and shape of a row of what is in a file of its own."""


@mapped_fields("faces", "audio")
@dataclass(frozen=True, eq=False)
class Trial:
    """One annotated person in one video. Of a store, all arrays are memory-mapped and read-only, `faces` and `audio` only while in use."""

    name: str
    split: str
    source: str
    """File name of the raw video."""
    subject: str | None
    frame_t_ns: NDArray[np.int64]
    """[F] presentation times after the first frame."""
    frame_face: NDArray[np.int32]
    """[F] row of `faces`, -1 where the frame has no face."""
    faces: NDArray[np.uint8]
    """[n, 48, 48, 3] RGB."""
    labels: NDArray[np.float32]
    """[F, 2] valence, arousal in [-1, 1]; zeros where not valid."""
    labels_valid: NDArray[np.bool_]
    """[F]."""
    audio: NDArray[np.int16]
    """[N] mono 16 kHz, sample 0 at time zero of `frame_t_ns`; N = 0 when there is no sound."""
    rate_hz: int
    """Ticks per second; in a native store the video's own rate, rounded."""
    native: bool = False
    """Ticks are the video's own frames instead of a uniform grid."""

    @property
    def n_ticks(self) -> int:
        """Ticks up to the first one at or after the last frame."""
        if self.native:
            return len(self.frame_t_ns)
        return ticks.tick_at_or_after(int(self.frame_t_ns[-1]), self.rate_hz) + 1

    @cached_property
    def tick_frame(self) -> NDArray[np.int32]:
        """int32 [n_ticks]: the frame that each tick takes, -1 where it is too old or missing."""
        if self.native:
            return np.arange(self.n_ticks, dtype=np.int32)
        return ticks.frames_of_ticks(self.frame_t_ns, self.n_ticks, self.rate_hz)

    @cached_property
    def tick_face(self) -> NDArray[np.int32]:
        """int32 [n_ticks]: the row of `faces` that each tick shows, -1 for none."""
        return np.where(self.tick_frame >= 0, self.frame_face[self.tick_frame], -1).astype(np.int32)

    @cached_property
    def frame_tick(self) -> NDArray[np.int64]:
        """int64 [F]: the first tick at or after each frame, the one whose estimate the frame takes."""
        if self.native:
            return np.arange(self.n_ticks, dtype=np.int64)
        return ticks.ticks_at_or_after(self.frame_t_ns, self.rate_hz)

    def first_sample(self, tick: int) -> int:
        """Index of the first audio sample of `tick`, which may lie outside the clip."""
        if self.native and 0 <= tick < self.n_ticks:
            return (2 * int(self.frame_t_ns[tick]) * ticks.SAMPLE_RATE_HZ + ticks.NS_PER_S) // (2 * ticks.NS_PER_S)
        if self.native and tick >= self.n_ticks:
            last = self.n_ticks - 1
            return self.first_sample(last) + ticks.first_sample(tick - last, self.rate_hz)
        return ticks.first_sample(tick, self.rate_hz)

    def samples(self, start: int, count: int) -> NDArray[np.float32]:
        """float32 [count] in [-1, 1] from sample `start` on; zeros outside the sound track."""
        out = np.zeros(count, np.float32)
        low, high = max(start, 0), min(start + count, len(self.audio))
        if high > low:
            out[low - start : high - start] = self.audio[low:high].astype(np.float32) / 32768.0
        return out


@dataclass(frozen=True, eq=False)
class Store:
    """A store folder, opened. `digest` is the sha256 of its index, which lists the sha256 of every file."""

    path: Path
    digest: str
    meta: dict[str, Any]
    """name ("synthetic", "aff-wild2"), synthetic, seed, face_size, rate (30 or "native"), schema."""
    entries: tuple[dict[str, Any], ...]

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Read the index and compare the size of every file with it. Raises DataError."""
        path = Path(path)
        index = path / "index.json"
        if not index.is_file():
            raise DataError(f"{path} is no prepared store (no index.json); run: sage-edge prepare CORPUS {path}")
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            meta, entries = content["meta"], tuple(content["trials"])
            schema = int(meta["schema"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{index} cannot be read as a store's index; prepare the corpus again into a new folder") from None
        if schema != SCHEMA:
            raise DataError(f"{index} has schema {schema}, this version reads {SCHEMA}; prepare the corpus again or use the version that wrote it")
        for key in ("rate", "face_size"):
            if key not in meta:
                raise DataError(f"{index}: meta has no {key!r}; prepare the corpus again into a new folder")
        for number, entry in enumerate(entries):
            _check_entry(index, number, entry)
        sizes = {array_path(path, entry, name): entry["files"][name]["size"] for entry in entries for name in ARRAYS}
        for name in COLUMNS:
            try:
                sizes[path / "frames" / f"{name}.npy"] = content["frames"][name]["size"]
            except (KeyError, TypeError):
                raise DataError(f"{index} lists no frames/{name}.npy; prepare the corpus again into a new folder") from None
        for file, size in sizes.items():
            if not file.is_file() or file.stat().st_size != size:
                found = f"{file.stat().st_size} bytes" if file.is_file() else "missing"
                raise DataError(f"{file} is {found}, the index says {size} bytes; prepare the corpus again")
        return cls(path, index_digest(content), meta, entries)

    def trials(self, split: str) -> list[Trial]:
        """The trials of "train", "val" or "test", by name. Raises DataError when the store has none of them."""
        chosen = [self._trial(entry) for entry in self.entries if entry["split"] == split]
        if not chosen:
            have = ", ".join(sorted({entry["split"] for entry in self.entries})) or "none"
            raise DataError(f"{self.path} has no {split!r} trials; its splits: {have}")
        return chosen

    @cached_property
    def _frames(self) -> dict[str, NDArray[Any]]:
        return {name: np.load(self.path / "frames" / f"{name}.npy", mmap_mode="r") for name in COLUMNS}

    def _trial(self, entry: dict[str, Any]) -> Trial:
        rows = slice(entry["first_row"], entry["first_row"] + entry["counts"]["frames"])
        arrays: dict[str, Any] = {name: np.asarray(column[rows]) for name, column in self._frames.items()}
        for name, (kind, shape) in ARRAYS.items():
            # NumPy cannot map an array without elements
            empty = not entry["counts"][name]
            arrays[name] = np.zeros((0, *shape), kind) if empty else ArrayFile(array_path(self.path, entry, name), entry["files"][name]["sha256"])
        keys = ("name", "split", "source", "subject", "rate_hz")
        return Trial(**{key: entry[key] for key in keys}, native=self.meta["rate"] == "native", **arrays)


def array_path(store: Path, entry: dict[str, Any], array: str) -> Path:
    """The file that holds `array` ("faces" or "audio") of a trial."""
    return store / array / f"{entry['name'] if array == 'faces' else Path(entry['source']).stem}.npy"


def _check_entry(index: Path, number: int, entry: Any) -> None:
    """DataError naming the first key that entry `number` of an index lacks, so that later code can rely on all of them."""
    name = entry.get("name", number) if isinstance(entry, dict) else number
    wanted: list[tuple[str, Any, tuple[str, ...]]] = [
        ("", entry, ("name", "split", "source", "subject", "rate_hz", "first_row", "last_ns", "counts", "files"))
    ]
    if isinstance(entry, dict):
        files = entry.get("files")
        wanted += [("counts.", entry.get("counts"), ("frames", "faces", "audio", "label_rows", "valid")), ("files.", files, tuple(ARRAYS))]
        wanted += [(f"files.{file}.", record, ("size", "sha256")) for file, record in (files.items() if isinstance(files, dict) else ())]
    for prefix, value, keys in wanted:
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise DataError(f"{index}: trial {name} has no {prefix + key!r}; prepare the corpus again into a new folder")


def index_digest(content: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of an index."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    rate: int | str = ticks.RATE_HZ,
    workers: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Any:
    """Decode a corpus in Aff-Wild2's layout into the store folder `out`; returns `summary.Summary`.

    `out` appears when all is done; until then `out`.partial holds every finished video, from which `resume` continues. `rate="native"` keeps
    each video's frames as its ticks. Raises DataError for a corpus or file that cannot be used, UsageError when `out` or an unfinished
    `out`.partial exists, or there is nothing to resume.
    """
    from .prepare import prepare_store

    return prepare_store(Path(source), Path(out), rate=rate, workers=workers, resume=resume, progress=progress)
