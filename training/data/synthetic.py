"""A corpus of synthetic people in Aff-Wild2's own layout: `sage-edge synth DIR`.

    DIR/batch1/NAME.mp4                                      H.264 + AAC
    DIR/cropped_aligned/TRIAL/00001.jpg                      112 x 112, cut and left out by the run time's face finder
    DIR/VA_Estimation_Challenge/{Train_Set,Validation_Set}/TRIAL.txt
    DIR/synthetic/corpus.json                                {"seed", "subjects": {trial: person}, ...}
    DIR/synthetic/corruption.json                            {trial: [{"kind", "start_s", "end_s"}, ...]}

Each person is in one video. The face shows valence strongly and arousal weakly, the voice arousal strongly and valence weakly; weakly means
with a gain and an offset of the person's own, and mixed with a slow disturbance. In a video of two (trials NAME_left, NAME_right) people take
turns to speak, both voices are on the one sound track, and their arousal runs mostly together, as in a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sage_edge.runtime.errors import DataError, SinkError, UsageError
from sage_edge.runtime.faces import FaceFinder
from sage_edge.runtime.files import atomic_folder
from sage_edge.runtime.native import resize
from sage_edge.runtime.progress import Progress
from sage_edge.runtime.ticks import NS_PER_S

from .synthetic_face import Pixels, draw_look
from .synthetic_latent import AUDIO_KINDS, CONTROL_HZ, VISUAL_KINDS, Corruption, Track, affect, control_times, draw_corruptions, level_of, wander
from .synthetic_scene import Actor, Scene, perform
from .synthetic_video import TIME_BASE, write_mp4
from .synthetic_voice import Room, draw_room, draw_voice, record, render, speak
from .workers import default_workers, one_opencv_thread, run_jobs

CROP = 112
TRAIN_PEOPLE, VAL_PEOPLE, SECONDS = 52, 12, 27.0
_RATES = (
    Fraction(30),
    Fraction(30),
    Fraction(30),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(25),
    Fraction(30),
    Fraction(24000, 1001),
    Fraction(30),
    Fraction(24),
)
_SIZES = ((320, 240), (320, 240), (400, 300), (320, 240), (426, 240), (320, 240), (480, 360), (320, 240), (640, 480), (320, 240))
_PAIR_SIZE = (480, 270)


@dataclass(frozen=True)
class Video:
    """One raw video of the plan."""

    number: int
    split: str
    people: tuple[int, ...]
    seconds: float
    rate: Fraction
    size: tuple[int, int]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.number}-{round(float(self.rate))}-{self.size[0]}x{self.size[1]}"

    @property
    def trials(self) -> tuple[str, ...]:
        return (self.name,) if len(self.people) == 1 else (f"{self.name}_left", f"{self.name}_right")


def plan(seed: int, train: int, val: int, seconds: float) -> list[Video]:
    """Who is in which video. Every person is in one; about one video in ten has two people in it, where there are people enough."""
    videos: list[Video] = []
    person = 0
    for split, people in (("train", train), ("val", val)):
        last = person + people
        pairs = people // 10
        count = people - pairs
        for i in range(count):
            both = pairs > 0 and i % (count // pairs) == count // pairs - 1 and person + 2 <= last and last - person > count - i
            number = len(videos) + 1
            size = _PAIR_SIZE if both else _SIZES[i % len(_SIZES)] if i % 20 < 10 else (320, 240)
            stretch = 1 + 0.1 * ((i * 7) % 5 - 2) / 2  # lengths differ
            videos.append(Video(number, split, tuple(range(person, person + 1 + both)), seconds * stretch, _RATES[i % len(_RATES)], size, seed))
            person += 1 + both
    return videos


def synthesise(
    out: Path | str,
    *,
    seed: int = 0,
    train: int = TRAIN_PEOPLE,
    val: int = VAL_PEOPLE,
    seconds: float = SECONDS,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the corpus folder `out`, whole or not at all. `train` and `val` count people, `seconds` is the mean length of a video."""
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; choose 0 or more")
    if train < 1 or val < 1:
        raise UsageError(f"{train} people to train and {val} to validate are too few; give at least one of each")
    if not 2 <= seconds <= 3600:
        raise UsageError(f"{seconds:g} seconds a video is out of range; choose 2 to 3600")
    videos = plan(seed, train, val, seconds)
    corruption: dict[str, list[dict[str, object]]] = {}
    with atomic_folder(Path(out)) as work, Progress("synth", len(videos), "videos", shown=progress) as bar:
        for folder in ("batch1", "cropped_aligned", "VA_Estimation_Challenge/Train_Set", "VA_Estimation_Challenge/Validation_Set", "synthetic"):
            (work / folder).mkdir(parents=True)
        jobs = [(video, work) for video in sorted(videos, key=lambda v: -v.seconds * v.size[0] * v.size[1])]
        for (video, _), found in run_jobs(_make, jobs, default_workers() if workers is None else workers):
            corruption |= found
            bar.step(note=video.name)
        subjects = {trial: f"person{person:03d}" for video in videos for trial, person in zip(video.trials, video.people, strict=True)}
        note = {"seed": seed, "train_people": train, "val_people": val, "seconds": seconds, "subjects": subjects}
        (work / "synthetic" / "corpus.json").write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")
        (work / "synthetic" / "corruption.json").write_text(json.dumps(corruption, indent=1, sort_keys=True) + "\n")
    return Path(out)


def read_corruption(root: Path) -> dict[str, list[Corruption]]:
    """{trial: its corrupted stretches} of a corpus that `synthesise` made. Raises DataError for one that it did not."""
    path = root / "synthetic" / "corruption.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {trial: [Corruption(**entry) for entry in entries] for trial, entries in content.items()}
    except (OSError, ValueError, TypeError):
        raise DataError(f"{path} cannot be read; only a corpus made by sage-edge synth has it") from None


def _make(job: tuple[Video, Path]) -> dict[str, list[dict[str, object]]]:
    with one_opencv_thread():
        return make_video(*job)


def make_video(video: Video, out: Path) -> dict[str, list[dict[str, object]]]:
    """Write one video with its crops and labels into a corpus' folders; returns the corrupted stretches of its trials as JSON types."""
    rng = np.random.default_rng([video.seed, video.number])
    stamps = _stamps(video, rng)
    seconds = stamps[-1] * float(TIME_BASE)
    cast = _cast(video, seconds, rng)
    scene = Scene(video.size, [actor for actor, _ in cast.roles], seconds, rng)
    folders = [out / "cropped_aligned" / trial for trial in video.trials]
    for folder in folders:
        folder.mkdir()
    jpeg = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(82, 96)))

    finders = [FaceFinder() for _ in folders]

    def frames() -> Iterator[tuple[int, Pixels]]:
        for i, stamp in enumerate(stamps):
            picture = scene.draw(stamp * float(TIME_BASE))
            t_ns = round(stamp * TIME_BASE * NS_PER_S)
            for part, folder, finder in zip(_parts(picture, len(folders)), folders, finders, strict=True):
                found = finder.find(part, "bgr", t_ns)
                if found is not None:
                    path = folder / f"{i + 1:05d}.jpg"
                    if not cv2.imwrite(str(path), resize(part, found.box, CROP, "bgr")[..., ::-1], jpeg):
                        raise SinkError(f"{path} cannot be written; free some disk space or choose another folder")
            yield stamp, picture

    write_mp4(
        out / "batch1" / f"{video.name}.mp4",
        frames(),
        video.size,
        video.rate,
        cast.sound,
        sound_rate_hz=(16_000, 16_000, 44_100, 48_000)[video.number % 4],
        stereo=video.number % 4 == 3,
        sound_late_s=0.15 if video.number % 7 == 3 else 0.0,
        quality=int(rng.integers(20, 28)),
        b_frames=2 if video.number % 5 == 1 else 0,
    )
    split = {"train": "Train_Set", "val": "Validation_Set"}[video.split]
    for trial, (_, labels) in zip(video.trials, cast.roles, strict=True):
        _write_labels(out / "VA_Estimation_Challenge" / split / f"{trial}.txt", labels, stamps, video, rng)
    return {trial: [c.to_json() for c in found] for trial, found in zip(video.trials, cast.corruptions, strict=True)}


def _parts(picture: Pixels, people: int) -> list[Pixels]:
    """The part of the picture that belongs to each person."""
    width = picture.shape[1] // people
    return [np.ascontiguousarray(picture[:, i * width : (i + 1) * width]) for i in range(people)]


def _stamps(video: Video, rng: np.random.Generator) -> list[int]:
    """Presentation times in 1/90000 s. One video in twelve has a recorder that lost frames now and then."""
    count = max(2, round(video.seconds * float(video.rate)))
    stamps = [round(i / video.rate / TIME_BASE) for i in range(count)]
    if video.number % 12 == 5:
        stamps = [s for i, s in enumerate(stamps) if i == 0 or rng.random() > 0.03]
    return stamps


@dataclass(frozen=True)
class _Cast:
    roles: list[tuple[Actor, NDArray[np.float32]]]
    """Each actor with its latents [n, 2] at 100 Hz."""
    sound: NDArray[np.float32]
    corruptions: list[list[Corruption]]


def _cue(latent: Track, rng: np.random.Generator, seconds: float) -> Track:
    """What the weaker sense shows of a latent: a person's own gain and offset, and a slow disturbance as large as the signal."""
    return (rng.uniform(0.45, 0.85) * latent + rng.normal(0, 0.2) + 0.5 * wander(rng, seconds, rng.uniform(1.5, 4.0))).astype(np.float32)


def _cast(video: Video, seconds: float, rng: np.random.Generator) -> _Cast:
    t = control_times(seconds)
    shared = wander(rng, seconds, rng.uniform(3.5, 7.0)) if len(video.people) == 2 else None
    turns = _turns(len(t), len(video.people), rng)
    found = draw_corruptions(rng, seconds)
    heard = [c for c in found if c.kind in AUDIO_KINDS]
    roles, sound, corruptions = [], np.zeros((len(t) - 1) * 160, np.float32), []
    w, h = video.size
    for i in range(len(video.people)):
        valence, arousal = affect(rng, seconds), affect(rng, seconds, shared, 0.9)
        speech = speak(draw_voice(rng), arousal, _cue(valence, rng, seconds), turns[i], rng)
        sound += render(speech, rng)
        seen = [c for c in found if c.kind in VISUAL_KINDS and (c.kind != "occlusion" or i == 0)]
        performance = perform(valence, _cue(arousal, rng, seconds), speech.opening, seconds, rng)
        half = h * (rng.uniform(0.24, 0.32) if len(video.people) == 1 else rng.uniform(0.2, 0.25))
        x = w * (0.5 + rng.uniform(-0.1, 0.1) if len(video.people) == 1 else (0.27, 0.73)[i] + rng.uniform(-0.03, 0.03))
        roles.append((Actor(draw_look(rng), performance, x, h * rng.uniform(0.44, 0.54), half, seen), np.stack([valence, arousal], 1)))
        corruptions.append(sorted(seen + heard, key=lambda c: c.start_s))
    room: Room = draw_room(rng)
    sound = record(sound, room, level_of(heard, "noise", t).astype(np.float32), level_of(heard, "mute", t).astype(np.float32), rng)
    length = round((seconds + 1 / 30) * 16_000)
    return _Cast(roles, sound[:length], corruptions)


def _turns(n: int, people: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Who may speak when, bool [n] each: one person nearly always, with a longer silence now and then; two in turns of 2 to 5 s."""
    masks = [np.zeros(n, np.bool_) for _ in range(people)]
    at, who = 0, 0
    while at < n:
        if people == 1:
            length, rest = int(rng.uniform(6, 14) * CONTROL_HZ), int(rng.uniform(0.8, 2.0) * CONTROL_HZ)
        else:
            length, rest = int(rng.uniform(2, 5) * CONTROL_HZ), int(rng.uniform(0.1, 0.5) * CONTROL_HZ)
        masks[who][at : at + length] = True
        at, who = at + length + rest, (who + 1) % people
    return masks


def _write_labels(path: Path, latents: NDArray[np.float32], stamps: list[int], video: Video, rng: np.random.Generator) -> None:
    """One row per frame; some files have a stretch of -5, some a row more or less than frames."""
    at = np.minimum((np.array(stamps) * float(TIME_BASE) * CONTROL_HZ).astype(int), len(latents) - 1)
    rows = [f"{v:.4f},{a:.4f}" for v, a in latents[at]]
    if rng.random() < 0.3:
        start, length = int(rng.integers(0, len(rows))), int(rng.integers(3, 25))
        rows[start : start + length] = ["-5,-5" if rng.random() < 0.5 else "-5.0,-5.0"] * len(rows[start : start + length])
    if video.number % 6 == 2:
        rows = rows[:-1]
    elif video.number % 6 == 4:
        rows = [*rows, rows[-1]]
    path.write_text("valence,arousal\n" + "\n".join(rows) + "\n")
