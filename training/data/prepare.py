"""Corpus folder in Aff-Wild2's layout -> store folder: labels checked, crops decoded and averaged to 48 x 48, time stamps and sound read."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime import ticks
from sage_edge.runtime.errors import DataError, UsageError
from sage_edge.runtime.files import atomic_folder, sha256_file
from sage_edge.runtime.native import resize
from sage_edge.runtime.progress import Progress

from . import affwild2, media
from .store import FACE_SIZE, SCHEMA, index_digest
from .workers import default_workers, run_jobs


@dataclass(frozen=True)
class Summary:
    """What `prepare` found. Lists name trials; `uneven` is (trial, label rows, frames) where the two differ."""

    path: Path
    digest: str
    trials: dict[str, int]
    """Trials per split."""
    frames: int
    frames_with_face: int
    frames_with_label: int
    seconds: float
    """Length of all trials together."""
    uneven: list[tuple[str, int, int]] = field(default_factory=list)
    crops_dropped: int = 0
    """Crops whose number is beyond the last frame."""
    damaged: list[tuple[str, int]] = field(default_factory=list)
    """(trial, packets and frames of its video file that could not be read and were left out)."""
    without_sound: list[str] = field(default_factory=list)
    without_crops: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        per_split = ", ".join(f"{count} {split}" for split, count in self.trials.items() if count)
        share = [100.0 * n / max(self.frames, 1) for n in (self.frames_with_face, self.frames_with_label)]
        text = [f"{per_split} trials, {self.seconds / 60:.1f} min, {self.frames} frames: {share[0]:.1f} % with a face, {share[1]:.1f} % with a label"]
        if self.uneven:
            shown = ", ".join(f"{name} ({rows} labels, {frames} frames)" for name, rows, frames in self.uneven[:3])
            text.append(
                f"{len(self.uneven)} trials have more or fewer labels than frames and were cut or left open at the end: {shown}"
                + ", ..." * (len(self.uneven) > 3)
            )
        if self.crops_dropped:
            text.append(f"{self.crops_dropped} crops lie beyond the last frame of their video and were left out")
        if self.damaged:
            shown = ", ".join(f"{name} ({count})" for name, count in self.damaged[:5]) + ", ..." * (len(self.damaged) > 5)
            text.append(f"{len(self.damaged)} trials have damaged packets or frames in their video file, which were left out: {shown}")
        for what, names in (("sound", self.without_sound), ("crops", self.without_crops)):
            if names:
                text.append(f"{len(names)} trials have no {what}: {', '.join(names[:5])}" + ", ..." * (len(names) > 5))
        return [*text, f"store {self.path}, digest {self.digest[:12]}"]


@dataclass(frozen=True)
class _Job:
    files: affwild2.TrialFiles
    out: Path
    native: bool
    subject: str | None


@dataclass(frozen=True)
class _Done:
    entry: dict[str, Any]
    rows: int
    crops_dropped: int
    labelled: int
    duration_s: float


def prepare_store(source: Path, out: Path, *, rate: int | str, workers: int | None, progress: bool) -> Summary:
    """See `store.prepare`."""
    if rate not in (ticks.RATE_HZ, "native"):
        raise UsageError(f"rate {rate!r} is not known; choose {ticks.RATE_HZ} or native")
    if out.exists():
        raise UsageError(f"{out} exists already; choose another path or remove it")
    found = affwild2.find_trials(source)
    meta, subjects = _corpus_meta(source)
    meta |= {"schema": SCHEMA, "face_size": FACE_SIZE, "rate": rate}
    done: list[_Done] = []
    with atomic_folder(out) as work, Progress("prepare", len(found), "trials", stream=None if progress else io.StringIO()) as bar:
        jobs = [_Job(trial, work / "trials" / trial.name, rate == "native", subjects.get(trial.name)) for trial in found]
        for job, result in run_jobs(_prepare_trial, jobs, default_workers() if workers is None else workers):
            done.append(result)
            bar.step(note=job.files.name)
        done.sort(key=lambda result: result.entry["name"])
        content = {"meta": meta, "trials": [result.entry for result in done]}
        (work / "index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    counts = [result.entry["counts"] for result in done]
    return Summary(
        path=out,
        digest=index_digest(content),
        trials={split: sum(result.entry["split"] == split for result in done) for split in ("train", "val", "test")},
        frames=sum(count["frame_t_ns"] for count in counts),
        frames_with_face=sum(count["faces"] for count in counts),
        frames_with_label=sum(result.labelled for result in done),
        seconds=sum(result.duration_s for result in done),
        uneven=[
            (result.entry["name"], result.rows, result.entry["counts"]["frame_t_ns"])
            for result in done
            if result.entry["split"] != "test" and result.rows != result.entry["counts"]["frame_t_ns"]
        ],
        crops_dropped=sum(result.crops_dropped for result in done),
        damaged=[(result.entry["name"], result.entry["damaged"]) for result in done if "damaged" in result.entry],
        without_sound=[result.entry["name"] for result in done if not result.entry["counts"]["audio"]],
        without_crops=[result.entry["name"] for result in done if not result.entry["counts"]["faces"]],
    )


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


def _prepare_trial(job: _Job) -> _Done:
    files, out = job.files, job.out
    labels, valid = affwild2.read_labels(files.labels) if files.labels else (np.zeros((0, 2), np.float32), np.zeros(0, np.bool_))
    damage: list[None] = []
    zero_s, frame_t_ns = media.video_clock(files.media, lambda: damage.append(None))
    audio = media.read_audio(files.media, zero_s, lambda: damage.append(None))
    n = len(frame_t_ns)
    rows = len(labels)
    labels = np.concatenate([labels[:n], np.zeros((max(n - rows, 0), 2), np.float32)])
    valid = np.concatenate([valid[:n], np.zeros(max(n - rows, 0), np.bool_)])
    numbered = affwild2.crop_numbers(files.crops)
    inside = {frame: path for frame, path in numbered.items() if frame < n}
    frame_face = np.full(n, -1, np.int32)
    frame_face[list(inside)] = np.arange(len(inside), dtype=np.int32)
    out.mkdir(parents=True)
    _write_faces(out / "faces.npy", list(inside.values()))
    arrays: dict[str, NDArray[Any]] = {"frame_t_ns": frame_t_ns, "frame_face": frame_face, "labels": labels, "labels_valid": valid, "audio": audio}
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array)
    duration_s = float(frame_t_ns[-1]) / ticks.NS_PER_S
    entry = {
        "name": files.name,
        "split": files.split,
        "source": files.media.name,
        "subject": job.subject,
        "rate_hz": max(1, round((n - 1) / duration_s)) if job.native and n > 1 else ticks.RATE_HZ,
        "counts": {"faces": len(inside)} | {name: len(array) for name, array in arrays.items()},
        "files": {path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(out.iterdir())},
    }
    if damage:  # only then, so that the index of a sound corpus stays as it is
        entry["damaged"] = len(damage)
    return _Done(entry, rows, len(numbered) - len(inside), int(valid.sum()), duration_s)


def _write_faces(path: Path, crops: list[Path]) -> None:
    """uint8 [n, 48, 48, 3] RGB, one crop at a time."""
    import cv2

    shape = (len(crops), FACE_SIZE, FACE_SIZE, 3)
    if not crops:
        np.save(path, np.zeros(shape, np.uint8))
        return
    faces = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for row, crop in enumerate(crops):
        pixels = cv2.imread(str(crop), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DataError(f"{crop}: not a readable JPEG; copy it again or remove it (a gap means 'no face')")
        faces[row] = resize(np.asarray(pixels, np.uint8), (0, 0, pixels.shape[1], pixels.shape[0]), FACE_SIZE, "bgr")
    faces.flush()
