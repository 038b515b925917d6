"""What `prepare` found, as a table beside the published counts, and what it took."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_edge.runtime.ticks import NS_PER_S

FACE_BYTES, FRAME_BYTES = 48 * 48 * 3, 8 + 4 + 8 + 1
"""Of a face, and of a row of the table of frames."""
SPLITS = ("train", "val", "test")
PUBLISHED = {
    "train": {"trials": 356, "plain": 347, "left": 4, "right": 5, "label_rows": 1_682_057, "with_label": 1_679_857},
    "val": {"trials": 76, "plain": 71, "left": 2, "right": 3, "label_rows": 383_814, "with_label": 382_021},
    "test": {"trials": 162, "plain": 147, "left": 8, "right": 7, "frames": 927_210},
}
"""Aff-Wild2's valence-arousal part: trials are what its papers call videos; frames are lines of the label files, those of the test split the
rows that a submission has."""
_TITLES = {
    "trials": "videos", "plain": "plain", "left": "_left", "right": "_right", "frames": "frames", "label_rows": "label lines",
    "with_label": "with label", "with_face": "with face", "hours": "hours",
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What the store took to make, of the videos that it holds; those of an earlier, unfinished run count with what they took then."""

    bytes: int
    """Of all files of the store."""
    wall_s: float
    """Of this run alone."""
    workers: int
    resumed: int
    """Videos that an earlier run had finished."""
    peak_mb: float
    """Most memory that one worker held."""
    faces_s: float
    """Spent on reading and averaging crops, all workers together."""
    media_s: float
    """Spent on time stamps and sound, all workers together."""
    crops: int
    hours: float
    """Of raw video, that of two trials counted once."""

    def of_all(self, share_with_face: float, frames_per_s: float) -> dict[str, float]:
        """{"bytes", "seconds"} that the whole of Aff-Wild2 takes at this pace, with as many workers. `hours` must not be 0."""
        frames = sum(counts.get("label_rows", counts.get("frames", 0)) for counts in PUBLISHED.values())
        hours = frames / frames_per_s / 3600
        work_s = self.faces_s / max(self.crops, 1) * frames * share_with_face + self.media_s / self.hours * hours
        return {"bytes": frames * (share_with_face * FACE_BYTES + FRAME_BYTES) + hours * 3600 * 32_000, "seconds": work_s / self.workers}


@dataclass(frozen=True)
class Summary:
    """What `prepare` found. Lists name trials; `uneven` is (trial, label lines, frames) where the two differ."""

    path: Path
    digest: str
    synthetic: bool
    trials: dict[str, int]
    """Trials per split."""
    frames: int
    frames_with_face: int
    frames_with_label: int
    seconds: float
    """Length of all trials together."""
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    """{split: trials, plain, left, right, frames, label_rows, with_label, with_face, hours}."""
    uneven: list[tuple[str, int, int]] = field(default_factory=list)
    crops_dropped: int = 0
    """Crops whose number is beyond the last frame."""
    unreadable: list[tuple[str, list[str]]] = field(default_factory=list)
    """(trial, crops that are no pictures: their frames count as frames without a face)."""
    damaged: list[tuple[str, int]] = field(default_factory=list)
    """(trial, packets and frames of its video file that could not be read and were left out)."""
    without_sound: list[str] = field(default_factory=list)
    without_crops: list[str] = field(default_factory=list)
    without_labels: list[str] = field(default_factory=list)
    """Trials of the training and validation splits none of whose frames has a valid label."""
    unused_videos: list[str] = field(default_factory=list)
    """Raw videos that are in no split."""
    cost: Cost | None = None

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        text = self._table()
        if self.uneven:
            shown = _some([f"{name} ({rows} labels, {frames} frames)" for name, rows, frames in self.uneven], 3)
            text.append(f"{len(self.uneven)} trials have more or fewer labels than frames and were cut or left open at the end: {shown}")
        if self.crops_dropped:
            text.append(f"{self.crops_dropped} crops lie beyond the last frame of their video and were left out")
        if self.unreadable:
            files = [f"{name}/{crop}" for name, crops in self.unreadable for crop in crops]
            text.append(f"{len(files)} crops are no readable pictures, their frames count as frames without a face: {_some(files)}")
        if self.damaged:
            shown = _some([f"{name} ({count})" for name, count in self.damaged])
            text.append(f"{len(self.damaged)} trials have damaged packets or frames in their video file, which were left out: {shown}")
        for what, names in (("sound", self.without_sound), ("crops", self.without_crops), ("valid label", self.without_labels)):
            if names:
                text.append(f"{len(names)} trials have no {what}: {_some(names)}")
        if self.unused_videos:
            text.append(f"{len(self.unused_videos)} videos are in no split and were left out: {_some(self.unused_videos)}")
        return [*text, *self._cost(), f"store {self.path}, digest {self.digest[:12]}"]

    def _table(self) -> list[str]:
        rows = [["", *_TITLES.values()]]
        for split in SPLITS:
            if self.trials.get(split):
                rows.append([split, *(_number(self.splits[split][key]) for key in _TITLES)])
            if not self.synthetic:
                rows.append([f"{split}, published", *(_number(PUBLISHED[split].get(key)) for key in _TITLES)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]

    def _cost(self) -> list[str]:
        c = self.cost
        if c is None:
            return []
        text = (
            f"{c.bytes / 1e6:.1f} MB on disk{f', {c.bytes / c.hours / 1e9:.2f} GB an hour of video' if c.hours else ''}; "
            f"{c.wall_s:.0f} s on {c.workers} workers{f' ({c.resumed} videos were there already)' if c.resumed else ''}: "
            f"{1e3 * c.faces_s / max(c.crops, 1):.2f} ms a crop{f' and {c.media_s / c.hours:.0f} s an hour of video' if c.hours else ''} in each; "
            f"at most {c.peak_mb:.0f} MB of memory a worker"
        )
        published = sum(counts["trials"] for counts in PUBLISHED.values())
        whole_already = not self.synthetic and sum(self.trials.values()) >= published
        if whole_already or not (c.crops and c.hours and self.frames and self.seconds):
            return [text]
        whole = c.of_all(self.frames_with_face / self.frames, self.frames / self.seconds)
        return [
            text,
            f"all {published} trials of Aff-Wild2 would take {whole['bytes'] / 1e9:.1f} GB and {whole['seconds'] / 60:.0f} min at this pace"
            + ", extrapolated from a synthetic corpus, whose videos are smaller" * self.synthetic,
        ]


def summarise(path: Path, digest: str, content: dict[str, Any], unused_videos: list[str], cost: Cost | None) -> Summary:
    """The Summary of a store with the index `content`."""
    entries = content["trials"]
    splits = {split: _counts([entry for entry in entries if entry["split"] == split]) for split in SPLITS}
    labelled = [entry for entry in entries if entry["split"] != "test"]
    return Summary(
        path=path,
        digest=digest,
        synthetic=bool(content["meta"].get("synthetic")),
        trials={split: int(counts["trials"]) for split, counts in splits.items()},
        frames=sum(entry["counts"]["frames"] for entry in entries),
        frames_with_face=sum(entry["counts"]["faces"] for entry in entries),
        frames_with_label=sum(entry["counts"]["valid"] for entry in entries),
        seconds=sum(entry["last_ns"] for entry in entries) / NS_PER_S,
        splits=splits,
        uneven=[
            (entry["name"], entry["counts"]["label_rows"], entry["counts"]["frames"])
            for entry in labelled
            if entry["counts"]["label_rows"] != entry["counts"]["frames"]
        ],
        crops_dropped=sum(entry.get("crops_dropped", 0) for entry in entries),
        unreadable=[(entry["name"], entry["unreadable"]) for entry in entries if "unreadable" in entry],
        damaged=[(entry["name"], entry["damaged"]) for entry in entries if "damaged" in entry],
        without_sound=[entry["name"] for entry in entries if not entry["counts"]["audio"]],
        without_crops=[entry["name"] for entry in entries if not entry["counts"]["faces"]],
        without_labels=[entry["name"] for entry in labelled if not entry["counts"]["valid"]],
        unused_videos=unused_videos,
        cost=cost,
    )


def _counts(entries: list[dict[str, Any]]) -> dict[str, float]:
    sides = [match.group(1) if (match := re.search(r"_(left|right)$", entry["name"])) else "plain" for entry in entries]
    return {
        "trials": len(entries),
        **{side: sides.count(side) for side in ("plain", "left", "right")},
        "frames": sum(entry["counts"]["frames"] for entry in entries),
        "label_rows": sum(entry["counts"]["label_rows"] for entry in entries),
        "with_label": sum(entry["counts"]["valid"] for entry in entries),
        "with_face": sum(entry["counts"]["faces"] for entry in entries),
        "hours": sum(entry["last_ns"] for entry in entries) / NS_PER_S / 3600,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + ", ..." * (len(items) > most)
