"""Clips to feed a session with, orders to feed them in, and what an offline run makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_bundle import SAMPLES, WINDOW, Offline

from sage_edge.runtime import ticks
from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.session import Session

SECOND = 1_000_000_000


@dataclass
class Clip:
    """Frames (time in ns, 48 x 48 crop or None) and sound from time zero."""

    frames: list[tuple[int, NDArray[np.uint8] | None]]
    audio: NDArray[np.float32]
    faces: NDArray[np.uint8] = field(repr=False, default_factory=lambda: np.zeros((0, 48, 48, 3), np.uint8))


def make_clip(seconds: float, rate: float = 30.0, *, seed: int = 0, jitter_ns: int = 0, missing: float = 0.2, sound: bool = True) -> Clip:
    """Frames at `rate` with jittered stamps, a share of them without a face, in runs; noise whose level wanders."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate)
    stamps = np.round(np.arange(count) / rate * SECOND).astype(np.int64) + rng.integers(-jitter_ns, jitter_ns + 1, count)
    stamps = np.maximum.accumulate(stamps)
    faces = rng.integers(0, 255, (count, 48, 48, 3), np.uint8)
    absent = np.repeat(rng.random(count // 6 + 1) < missing, 6)[:count]
    frames = [(int(t), None if gone else face) for t, face, gone in zip(stamps, faces, absent, strict=True)]
    level = np.repeat(rng.random(int(seconds) + 1) * 0.2, 16_000)[: int(seconds * 16_000)]
    audio = (level * rng.standard_normal(len(level))).astype(np.float32)
    return Clip(frames, audio if sound else audio[:0], faces)


Event = tuple[str, int, Any]


def events(clip: Clip, chunk: int = 533) -> tuple[list[Event], list[Event]]:
    """Frames, and sound in chunks of `chunk` samples, each in its own order: (kind, time in ns, data)."""
    sound = [("audio", stamp(at), clip.audio[at : at + chunk]) for at in range(0, len(clip.audio), chunk)]
    return [("face", t, face) for t, face in clip.frames], sound


def stamp(sample: int) -> int:
    """The time of a sample, as a device gives it: in whole nanoseconds."""
    return sample * SECOND // 16_000


def by_time(*streams: Sequence[Event]) -> list[Event]:
    return sorted((event for stream in streams for event in stream), key=lambda event: event[1])


def push(session: Session, event: Event) -> None:
    kind, t_ns, data = event
    if kind == "face":
        session.push_face(data, t_ns)
    else:
        session.push_audio(data, t_ns)


def run(session: Session, order: Sequence[Event], poll: Callable[[int], bool] = lambda _: False) -> list[Estimate]:
    """Push everything, polling after the pushes that `poll` names, finish, and return all estimates."""
    out: list[Estimate] = []
    for i, event in enumerate(order):
        push(session, event)
        if poll(i):
            out += session.poll()
    session.finish()
    return out + session.poll()


def offline(clip: Clip, model: Offline, newest: Sequence[int], max_age_ns: int = 150_000_000) -> Iterator[dict[str, Any]]:
    """Outputs of the window that ends at each tick of `newest`: written out plainly, tick by tick, with none of the session's code."""
    rows = [None if face is None else model.features(face) for _, face in clip.frames]
    for last in newest:
        visual = np.zeros((WINDOW, 8), np.float32)
        visual_mask, audio_mask = np.zeros(WINDOW, bool), np.zeros(WINDOW, bool)
        first = last - WINDOW + 1
        start = ticks.first_sample(first)
        samples = np.zeros(SAMPLES, np.float32)
        for i, tick in enumerate(range(first, last + 1)):
            if tick < 0:
                continue
            now = ticks.tick_time_ns(tick)
            earlier = [j for j, (t, _) in enumerate(clip.frames) if t <= now]
            if earlier and now - clip.frames[earlier[-1]][0] <= max_age_ns:
                row = rows[earlier[-1]]
                if row is not None:
                    visual[i], visual_mask[i] = row, True
            low, high = ticks.first_sample(tick), ticks.first_sample(tick + 1)
            if high <= len(clip.audio):
                audio_mask[i] = True
                samples[low - start : high - start] = clip.audio[low:high]
        yield {**model.window(visual, samples, visual_mask, audio_mask), "visual_mask": visual_mask, "audio_mask": audio_mask, "samples": samples}


def in_step(session: Session) -> Session:
    """The session, whose hops have a thread, for a simulated clock: it stands still until they are computed, so that every run is the same."""
    poll, hops = session.poll, session._hops

    def settled() -> list[Estimate]:
        hops.settle()
        return poll()

    session.poll = settled  # type: ignore[method-assign]
    return session
