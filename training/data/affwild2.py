"""Read Aff-Wild2's own layout: which trials there are, their labels and their face crops. Media are read by `media`.

    ROOT/VA_Estimation_Challenge/{Train_Set,Validation_Set}/TRIAL.txt     header `valence,arousal`, one line per video frame, -5 = invalid
    ROOT/cropped_aligned/TRIAL/00001.jpg                                  112 x 112, number = label line (1-based), gaps = no face
    ROOT/cropped_aligned_new_50_vids/TRIAL/                               the same for the videos that joined later
    ROOT/**/NAME.mp4 | .avi | ...                                         raw videos, anywhere else; TRIAL = NAME, NAME_left or NAME_right

The older release's `VA_Set/Training_Set` is understood too, and all folders may lie a level or two below ROOT. Crops are what the organisers
cut, upright and aligned: a raw video that a player would turn has crops like any other. Hidden files are what some systems put beside the real ones
and are passed over.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import DataError

HEADER = "valence,arousal"
INVALID = -5.0
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
_LABEL_FOLDERS = {"Train_Set": "train", "Training_Set": "train", "Validation_Set": "val"}
_LABEL_PARENTS = ("VA_Estimation_Challenge", "VA_Set")
_CROP_FOLDERS = ("cropped_aligned", "cropped_aligned_new_50_vids")
_TEST_LIST = "names_of_videos_in_each_test_set/Valence_Arousal_Estimation_Challenge_test_set_release.txt"


@dataclass(frozen=True)
class TrialFiles:
    """Where the parts of one trial lie; `labels` is None in the test split, `crops` where the corpus has no folder for it."""

    name: str
    split: str
    media: Path
    crops: Path | None
    labels: Path | None


def media_name(trial: str) -> str:
    """The raw video's name: the trial without `_left` or `_right` (two people of one video)."""
    return re.sub(r"_(left|right)$", "", trial)


def find_trials(root: Path) -> list[TrialFiles]:
    """All trials of a corpus folder, sorted by split and name. Raises DataError when there are none, or some have no video or two."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the corpus folder that holds VA_Estimation_Challenge and cropped_aligned")
    wanted: list[tuple[str, str, Path | None]] = []
    for parent in _below(root, _LABEL_PARENTS):
        for folder, split in _LABEL_FOLDERS.items():
            wanted += [(path.stem, split, path) for path in sorted((parent / folder).glob("*.txt")) if not path.name.startswith(".")]
    for path in [root / _TEST_LIST, *root.glob(f"*/{_TEST_LIST}")]:
        if path.is_file():
            wanted += [(line.strip(), "test", None) for line in path.read_text().splitlines() if line.strip()]
    if not wanted:
        raise DataError(f"{root} holds no labels; expected VA_Estimation_Challenge/Train_Set/NAME.txt or Validation_Set/NAME.txt below it")
    crop_roots = _below(root, _CROP_FOLDERS)
    if not crop_roots:
        raise DataError(f"{root} holds no cropped_aligned folder; unpack Aff-Wild2's cropped_aligned images into it")
    videos = _videos_by_name(root)
    trials, seen, without = [], dict[str, str](), []
    for name, split, labels in wanted:
        if name in seen:
            raise DataError(f"trial {name} is in {seen[name]} and in {split}; each trial belongs to one split")
        seen[name] = split
        media = videos.get(name) or videos.get(media_name(name))
        if media is None:
            without.append(name)
            continue
        if len(media) > 1:
            raise DataError(f"trial {name} has {len(media)} videos: {media[0]} and {media[1]}; remove or rename all but one")
        crops = next((path for path in (parent / name for parent in crop_roots) if path.is_dir()), None)
        trials.append(TrialFiles(name, split, media[0], crops, labels))
    if without:
        shown = ", ".join(without[:5]) + ", ..." * (len(without) > 5)
        raise DataError(
            f"{len(without)} of {len(wanted)} trials have no video below {root}: {shown}; "
            f"add {media_name(without[0])}.mp4 or .avi and so on, or remove their labels"
        )
    return sorted(trials, key=lambda trial: (("train", "val", "test").index(trial.split), trial.name))


def unused_videos(root: Path, trials: Sequence[TrialFiles]) -> list[str]:
    """Names of the videos below `root` that no trial is about: they have no labels and are in no split."""
    used = {trial.media for trial in trials}
    return sorted(name for name, paths in _videos_by_name(root).items() if used.isdisjoint(paths))


def _videos_by_name(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(_videos(root)):
        found.setdefault(path.stem, []).append(path)
    return found


def _videos(root: Path) -> Iterator[Path]:
    """Video files below `root`; the millions of crops are not looked at."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _CROP_FOLDERS]
        yield from (Path(folder, name) for name in files if Path(name).suffix.lower() in VIDEO_SUFFIXES and name[0] != ".")


def _below(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders of these names in `root`, one or two levels below it, or `root` itself."""
    candidates = [root] if root.name in names else []
    for name in names:
        candidates += [root / name, *sorted(root.glob(f"*/{name}")), *sorted(root.glob(f"*/*/{name}"))]
    return [path for path in candidates if path.is_dir()]


def read_labels(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels float32 [L, 2] (valence, arousal; zeros where invalid) and their validity bool [L].

    Strict: a wrong header, a line that is not two numbers, NaN, or a value beyond [-1, 1] other than -5 raises DataError
    with file and line. A row with one -5 is invalid as a whole.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error.reason} at byte {error.start}); expected the header {HEADER!r}") from None
    if not lines or lines[0].strip() != HEADER:
        raise DataError(f"{path}:1: the header is {lines[0].strip()[:40] if lines else ''!r}; expected {HEADER!r}")
    while lines and not lines[-1].strip():
        lines.pop()
    values = np.empty((len(lines) - 1, 2), np.float32)
    valid = np.ones(len(lines) - 1, np.bool_)
    for i, line in enumerate(lines[1:]):
        parts = line.split(",")
        try:
            if len(parts) != 2 or "_" in line:
                raise ValueError
            row = float(parts[0]), float(parts[1])
        except ValueError:
            raise DataError(f"{path}:{i + 2}: {line.strip()[:40]!r} is not two numbers; expected VALENCE,AROUSAL") from None
        for what, value in zip(("valence", "arousal"), row, strict=True):
            if math.isnan(value):
                raise DataError(f"{path}:{i + 2}: {what} is NaN; write -5 for a frame without a label")
            if abs(value) > 1.0 and value != INVALID:
                raise DataError(f"{path}:{i + 2}: {what} {value:g} is beyond [-1, 1]; write -5 for a frame without a label")
        valid[i] = INVALID not in row
        values[i] = row if valid[i] else (0.0, 0.0)
    return values, valid


def crop_numbers(folder: Path | None) -> dict[int, Path]:
    """{frame index from 0: JPEG path} of a trial's crops, ascending; 00001.jpg is frame 0. Files with other names raise DataError."""
    crops = {}
    names = [] if folder is None else [name for name in os.listdir(folder) if name.endswith(".jpg") and not name.startswith(".")]
    for name in sorted(names):
        number = name[: -len(".jpg")]
        if folder is None or not number.isdecimal() or int(number) < 1:
            raise DataError(f"{folder}/{name}: a crop's name is its frame number from 00001; rename or remove it")
        crops[int(number) - 1] = folder / name
    return dict(sorted(crops.items()))
