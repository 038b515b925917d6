"""Corpus folder in Aff-Wild2's layout -> store folder: labels checked, crops decoded and averaged to 48 x 48, time stamps and sound read.

The work goes video by video, on several processes, in OUT.partial (see `partial`); OUT appears when all is done. A worker holds one crop and one
packet of sound at a time, and what is known of each frame of a video.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import DataError, SageError, SourceError, UsageError
from sage_edge.runtime.machine import peak_rss_mb
from sage_edge.runtime.native import resize
from sage_edge.runtime.progress import Progress

from . import affwild2, media
from .partial import Partial, Record
from .store import ARRAYS, FACE_SIZE, SCHEMA, Store, array_path, index_digest
from .store_writer import RowFile, file_record
from .summary import FACE_BYTES, Cost, Summary, summarise
from .workers import default_workers, run_jobs

MOST_WORKERS = 16
"""More only wait for the disk."""
_FEW = 64
"""So few videos are looked at sooner than processes are started."""


@dataclass(frozen=True)
class _Job:
    """One raw video and its trials: one, or two people of it."""

    trials: tuple[affwild2.TrialFiles, ...]
    subjects: tuple[str | None, ...]
    native: bool
    work: Path
    done: str | None = None
    """The stamp of what an earlier run finished."""

    @property
    def media(self) -> Path:
        return self.trials[0].media

    @property
    def video(self) -> str:
        return self.media.stem


@dataclass(frozen=True)
class _Looked:
    """What was seen before the work starts."""

    unchanged: bool
    crops: int = 0
    error: SageError | None = None


def prepare_store(source: Path, out: Path, *, rate: int | str, workers: int | None, resume: bool, progress: bool) -> Summary:
    """See `store.prepare`."""
    if rate not in (ticks.RATE_HZ, "native"):
        raise UsageError(f"rate {rate!r} is not known; choose {ticks.RATE_HZ} or native")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers are too few; give at least 1")
    workers = default_workers(MOST_WORKERS) if workers is None else workers
    start_s = time.monotonic()
    partial = Partial(out)
    if resume and partial.over():
        partial.remove()
        store = Store.open(out)
        return summarise(out, store.digest, {"meta": store.meta, "trials": store.entries}, [], None)
    found = affwild2.find_trials(source)
    meta, subjects = _corpus_meta(source)
    meta |= {"schema": SCHEMA, "face_size": FACE_SIZE, "rate": rate}
    try:
        records = partial.begin({"schema": SCHEMA, "face_size": FACE_SIZE, "rate": rate}, resume)
        jobs = [
            _Job(
                trials=trials,
                subjects=tuple(subjects.get(trial.name) for trial in trials),
                native=rate == "native",
                work=partial.work(video),
                done=records.get(video, {}).get("stamp"),
            )
            for video, trials in _by_video(found).items()
        ]
        looked = _look(jobs, workers, progress)
        records = {job.video: records[job.video] for job in jobs if looked[job].unchanged}
        resumed = len(records)
        partial.keep_only(records)
        # The longest first: none is left over for the end, when the other processes have nothing to do.
        rest = sorted((job for job in jobs if not looked[job].unchanged), key=lambda job: (-looked[job].crops, job.video))
        _check_disk(partial.folder, sum(looked[job].crops for job in rest))
        with (
            Progress("prepare", sum(looked[job].crops for job in rest), "crops", shown=progress) as bar,
            contextlib.closing(run_jobs(_prepare_video, rest, workers)) as results,
        ):
            for job, record in results:
                partial.commit(job.video, record)
                records[job.video] = record
                bar.step(looked[job].crops, note=job.video)
        content = partial.finish(meta, records)
    except BaseException:
        partial.abandon()
        raise
    cost = _cost(content, list(records.values()), resumed, workers, time.monotonic() - start_s)
    return summarise(out, index_digest(content), content, affwild2.unused_videos(source, found), cost)


def _cost(content: dict[str, Any], records: Sequence[Record], resumed: int, workers: int, wall_s: float) -> Cost:
    costs = [record["cost"] for record in records]
    files = {array_path(Path(), entry, name): entry["files"][name]["size"] for entry in content["trials"] for name in ARRAYS}
    return Cost(
        bytes=sum(files.values()) + sum(file["size"] for file in content["frames"].values()),
        wall_s=wall_s,
        workers=workers,
        resumed=resumed,
        peak_mb=max(cost["peak_mb"] for cost in costs),
        **{key: sum(cost[key] for cost in costs) for key in ("faces_s", "media_s", "crops", "hours")},
    )


def _by_video(found: Sequence[affwild2.TrialFiles]) -> dict[str, tuple[affwild2.TrialFiles, ...]]:
    by_media = sorted(found, key=lambda trial: (trial.media.stem, trial.name))
    return {video: tuple(trials) for video, trials in itertools.groupby(by_media, key=lambda trial: trial.media.stem)}


def _look(jobs: Sequence[_Job], workers: int, progress: bool) -> dict[_Job, _Looked]:
    """Look at all that can be refused at once, before hours of work. Raises DataError or SourceError."""
    looked = {}
    with (
        Progress("check", len(jobs), "videos", shown=progress) as bar,
        contextlib.closing(run_jobs(_look_at, jobs, workers if len(jobs) > _FEW else 1)) as results,
    ):
        for job, result in results:
            looked[job] = result
            bar.step(note=job.video)
    bad = [(job.video, error) for job in jobs if (error := looked[job].error) is not None]
    if len(bad) == 1:
        raise bad[0][1]
    if bad:
        others = ", ".join(name for name, _ in bad[1:6]) + ", ..." * (len(bad) > 6)
        raise DataError(f"{bad[0][1]} ({len(bad) - 1} more of {len(jobs)} videos cannot be used: {others})")
    return looked


def _check_disk(folder: Path, crops: int) -> None:
    """Raises DataError when the faces alone do not fit."""
    need, free = crops * FACE_BYTES, shutil.disk_usage(folder).free
    if need > free:
        sizes = f"{need / 1e9:.1f} GB of faces are to come, {free / 1e9:.1f} GB are free"
        raise DataError(f"the disk of {folder.parent} is too small: {sizes}; free some or choose another path")


def _look_at(job: _Job) -> _Looked:
    if job.done is not None and job.done == _stamp(job):
        return _Looked(unchanged=True)
    try:
        media.check_video(job.media)
        for trial in job.trials:
            if trial.labels is not None:
                affwild2.read_labels(trial.labels)
        return _Looked(False, sum(len(affwild2.crop_numbers(trial.crops)) for trial in job.trials))
    except SageError as error:
        return _Looked(False, error=error)


def _stamp(job: _Job) -> str:
    """What a video's part of the store depends on: size and time of change of its files, and their place in the corpus."""
    seen: list[Any] = [_file_stamp(job.media)]
    for trial, subject in zip(job.trials, job.subjects, strict=True):
        crops: list[tuple[str, int, int]] = []
        if trial.crops is not None:
            with os.scandir(trial.crops) as entries:
                crops = sorted((entry.name, *_size_and_time(entry.stat())) for entry in entries)
        seen.append((trial.name, trial.split, subject, trial.labels and _file_stamp(trial.labels), crops))
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _file_stamp(path: Path) -> tuple[str, int, int]:
    return (path.name, *_size_and_time(path.stat()))


def _size_and_time(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _corpus_meta(source: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(meta, {trial: subject}): a corpus that `synth` made says so in synthetic/corpus.json."""
    note = source / "synthetic" / "corpus.json"
    if not note.is_file():
        return {"name": "aff-wild2", "synthetic": False, "seed": None}, {}
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return {"name": "synthetic", "synthetic": True, "seed": int(content["seed"])}, dict(content["subjects"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{note} cannot be read; make the corpus again with sage-edge synth") from None


def _prepare_video(job: _Job) -> Record:
    """Write `job.work` (see `Partial.commit`) and return the record of one video."""
    stamp = _stamp(job)  # before anything is read: what changes meanwhile is read again by --resume
    job.work.mkdir()
    start_s = time.monotonic()
    damage: list[None] = []
    zero_s, frame_t_ns = media.video_clock(job.media, lambda: damage.append(None))
    with RowFile(job.work / "audio.npy", *ARRAYS["audio"]) as audio:
        for piece in media.audio_pieces(job.media, zero_s, lambda: damage.append(None)):
            audio.write(piece)
    sound = file_record(job.work / "audio.npy")
    faces_from_s = time.monotonic()
    n, crops = len(frame_t_ns), 0
    entries: list[dict[str, Any]] = []
    columns: dict[str, NDArray[Any]] = {}
    for trial, subject in zip(job.trials, job.subjects, strict=True):
        labels, valid, rows = _labels(trial, n)
        numbered = affwild2.crop_numbers(trial.crops)
        inside = {frame: path for frame, path in numbered.items() if frame < n}
        frame_face, unreadable = _write_faces(job.work / f"{trial.name}.faces.npy", inside, n)
        crops += len(inside)
        arrays: dict[str, NDArray[Any]] = {"frame_t_ns": frame_t_ns, "frame_face": frame_face, "labels": labels, "labels_valid": valid}
        columns |= {f"{trial.name}/{name}": array for name, array in arrays.items()}
        faces = len(inside) - len(unreadable)
        entry = {
            "name": trial.name,
            "split": trial.split,
            "source": job.media.name,
            "subject": subject,
            "rate_hz": _native_rate_hz(frame_t_ns) if job.native else ticks.RATE_HZ,
            "last_ns": int(frame_t_ns[-1]),
            "counts": {"frames": n, "faces": faces, "audio": audio.rows, "label_rows": rows, "valid": int(valid.sum())},
            "files": {"faces": file_record(job.work / f"{trial.name}.faces.npy"), "audio": sound},
        }
        # only where there is something to say, so that the index of a sound corpus stays short
        notes = {"damaged": len(damage), "crops_dropped": len(numbered) - len(inside), "unreadable": unreadable}
        entries.append(entry | {key: value for key, value in notes.items() if value})
    np.savez(job.work / "frames.npz", **columns)  # type: ignore[arg-type]
    cost = {
        "media_s": round(faces_from_s - start_s, 3),
        "faces_s": round(time.monotonic() - faces_from_s, 3),
        "crops": crops,
        "hours": int(frame_t_ns[-1]) / ticks.NS_PER_S / 3600,
        "peak_mb": round(peak_rss_mb(), 1),
    }
    return {"stamp": stamp, "entries": entries, "cost": cost}


def _labels(trial: affwild2.TrialFiles, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """(labels [n, 2], validity [n], lines of the file): cut to the frames, or left open at the end."""
    labels, valid = affwild2.read_labels(trial.labels) if trial.labels else (np.zeros((0, 2), np.float32), np.zeros(0, np.bool_))
    missing = max(n - len(labels), 0)
    return np.concatenate([labels[:n], np.zeros((missing, 2), np.float32)]), np.concatenate([valid[:n], np.zeros(missing, np.bool_)]), len(labels)


def _native_rate_hz(frame_t_ns: NDArray[np.int64]) -> int:
    return max(1, round((len(frame_t_ns) - 1) * ticks.NS_PER_S / int(frame_t_ns[-1]))) if len(frame_t_ns) > 1 else ticks.RATE_HZ


def _write_faces(path: Path, crops: dict[int, Path], n: int) -> tuple[NDArray[np.int32], list[str]]:
    """Write the faces of frames `crops`, one at a time; (row of each of n frames or -1, names of the crops that are no pictures)."""
    frame_face = np.full(n, -1, np.int32)
    unreadable = []
    with RowFile(path, *ARRAYS["faces"]) as file:
        for frame, crop in crops.items():
            pixels = _picture(crop)
            if pixels is None:
                unreadable.append(crop.name)
                continue
            frame_face[frame] = file.rows
            file.write(resize(pixels, (0, 0, pixels.shape[1], pixels.shape[0]), FACE_SIZE, "bgr")[None])
    return frame_face, unreadable


def _picture(crop: Path) -> NDArray[np.uint8] | None:
    """uint8 BGR [h, w, 3]; None for a file that is no picture, or a JPEG that breaks off. Raises SourceError when the folder has gone away."""
    import cv2

    try:
        data = crop.read_bytes()
    except OSError as error:
        if not crop.parent.is_dir():
            raise SourceError(f"{crop.parent} cannot be read any more ({error.strerror}); bring it back and continue with --resume") from None
        return None
    # Where a JPEG has no end after its last scan, a decoder would fill with grey what is missing.
    if not data or (data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")):
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else np.asarray(pixels, np.uint8)
