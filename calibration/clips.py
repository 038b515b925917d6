"""Which windows calibrate a model: a fixed, listed choice from the training split, spread over people, with silence and missing faces.

A clip is one window of a trial, named by its newest tick. Three quarters are taken in turn from every person; the rest are the windows
with the longest missing face and with the lowest sound, of as many people as have some, because a live camera and microphone see those too
and a range that never saw them clips or wastes levels there. From three clips on there is one of each, where the store has it. Only masks
and sound levels are read to choose; `windows` then yields one window after the other.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sage_edge.runtime.errors import DataError, UsageError
from sage_edge.runtime.ticks import first_sample, rms_dbfs, window_samples

if TYPE_CHECKING:
    from sage_edge.training.data.store import Store, Trial
    from sage_edge.training.data.windows import Window

COUNT = 24
"""Windows by default: 24 of 10 s are 7200 faces and four minutes of sound."""
_LOOK_AT = 256
"""Windows whose sound is read, at most, to find the most silent; every window is looked at for missing faces."""


@dataclass(frozen=True)
class Clip:
    """One window: ticks newest - length + 1 .. newest of `trial`. `why` is "person", "no-face" or "silence"."""

    trial: str
    newest: int
    why: str


@dataclass(frozen=True)
class ClipSet:
    """The clips of one calibration, in the order they are used; `length` in ticks, `store_digest` says of which data."""

    split: str
    length: int
    store_digest: str
    clips: tuple[Clip, ...]

    @property
    def sha256(self) -> str:
        """Hex sha256 of the canonical JSON of all fields: two equal hashes are two calibrations on the same data."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def pick(store: Store, count: int = COUNT, split: str = "train", length: int = 300) -> ClipSet:
    """Choose `count` windows of `length` ticks of `split`, the same ones for the same store; fewer when there are fewer.

    Raises UsageError for a count below 1, DataError when the split holds no tick.
    """
    from sage_edge.training.data.windows import window_ends

    check_count(count)
    # Windows that do not overlap, so that none of the data is used twice.
    by_person: dict[str, list[tuple[Trial, int]]] = {}
    for trial in sorted(store.trials(split), key=lambda t: t.name):
        ends = window_ends(trial.n_ticks, length, length) if trial.n_ticks > 0 else []
        by_person.setdefault(_person(trial), []).extend((trial, newest) for newest in ends)
    people = [_middle_out(windows) for _, windows in sorted(by_person.items()) if windows]
    if not people:
        raise DataError(f"split {split!r} of {store.path} holds no frame; calibration needs at least one clip")
    rounds = [windows[i] for i in range(max(map(len, people))) for windows in people if i < len(windows)]
    looked = [rounds[i] for i in np.linspace(0, len(rounds) - 1, min(len(rounds), _LOOK_AT)).astype(int)]
    hard = max(count // 8, 1) if count > 2 else 0
    taken: dict[tuple[str, int], str] = {}
    for why, order in (("no-face", _by_face(rounds, length)), ("silence", _by_sound(looked, length))):
        fresh = [key for key in _in_turn(order) if key not in taken]
        taken.update(dict.fromkeys(fresh[:hard], why))
    for trial, newest in rounds:
        if len(taken) >= count:
            break
        taken.setdefault((trial.name, newest), "person")
    clips = [Clip(trial.name, newest, taken[trial.name, newest]) for trial, newest in rounds if (trial.name, newest) in taken]
    return ClipSet(split, length, store.digest, tuple(clips[:count]))


def check_count(count: int) -> None:
    """UsageError for a number of clips on which nothing can be calibrated."""
    if count < 1:
        raise UsageError(f"{count} clips are too few to calibrate on; give at least 1")


def windows(store: Store, chosen: ClipSet) -> Iterator[Window]:
    """The windows of `chosen`, one at a time and in its order; DataError when the store does not hold them."""
    from sage_edge.training.data.windows import window_at

    trials = {trial.name: trial for trial in store.trials(chosen.split)}
    for clip in chosen.clips:
        if clip.trial not in trials:
            raise DataError(f"{store.path} holds no trial {clip.trial!r} in split {chosen.split!r}; the clips were chosen from another store")
        yield window_at(trials[clip.trial], clip.newest, chosen.length)


def _middle_out(items: Sequence[tuple[Trial, int]]) -> list[tuple[Trial, int]]:
    """Reorder so that every prefix is spread over the whole: middle, then quarters, then eighths (van der Corput order)."""

    def place(index: int) -> float:
        value, step = 0.0, 0.5
        while index:
            value, index, step = value + step * (index & 1), index >> 1, step / 2
        return value

    ranks = np.argsort(np.argsort([place(i + 1) for i in range(len(items))]))
    return [items[rank] for rank in ranks]


def _in_turn(ordered: Sequence[tuple[Trial, int]]) -> list[tuple[str, int]]:
    """The first window of every person, then the second of every person, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for place, (trial, newest) in enumerate(ordered):
        turns.append((seen[_person(trial)], place, trial.name, newest))
        seen[_person(trial)] += 1
    return [(name, newest) for _, _, name, newest in sorted(turns)]


def _person(trial: Trial) -> str:
    return trial.subject or trial.source


def _by_face(candidates: Sequence[tuple[Trial, int]], length: int) -> list[tuple[Trial, int]]:
    """Windows with some missing face, the longest first; windows without any face say nothing about ranges and are left out."""

    def share(trial: Trial, newest: int) -> float:
        faces = trial.tick_face[max(0, newest - length + 1) : newest + 1]
        return float(np.mean(faces >= 0))

    shares = [(share(trial, newest), trial.name, newest, trial) for trial, newest in candidates]
    return [(trial, newest) for value, _, newest, trial in sorted(shares, key=lambda each: each[:3]) if 0.0 < value < 1.0]


def _by_sound(candidates: Sequence[tuple[Trial, int]], length: int) -> list[tuple[Trial, int]]:
    """Windows in order of their quietest second of recorded sound, the quietest first."""
    second = 16_000

    def level(trial: Trial, newest: int) -> float:
        first = first_sample(newest - length + 1)
        start, end = max(first, 0), min(first + window_samples(length), len(trial.audio))
        samples = trial.samples(start, max(end - start, 0))
        return min(rms_dbfs(samples[i : i + second]) for i in range(0, max(len(samples) - second, 0) + 1, second))

    heard = [(trial, newest) for trial, newest in candidates if first_sample(newest - length + 1) < len(trial.audio)]
    levels = [(level(trial, newest), trial.name, newest, trial) for trial, newest in heard]
    return [(trial, newest) for _, _, newest, trial in sorted(levels, key=lambda each: each[:3])]
