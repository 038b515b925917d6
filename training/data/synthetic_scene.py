"""Draw a synthetic video frame by frame: background, one or two people whose faces follow their tracks, and what gets in the way."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .synthetic_face import Expression, Head, Look, Pixels, head_matrix, place
from .synthetic_latent import CONTROL_HZ, Corruption, Track, level_of, wander


@dataclass(frozen=True)
class Performance:
    """Control tracks (100 Hz) of one person's face. Units as in Expression; positions in face half heights, angles in radians."""

    curve: Track
    opening: Track
    brow_inner: Track
    brow_raise: Track
    lid: Track
    gaze_x: Track
    gaze_y: Track
    x: Track
    y: Track
    roll: Track
    yaw: Track
    pitch: Track


def perform(valence: Track, cue: Track, speech: Track, seconds: float, rng: np.random.Generator) -> Performance:
    """A face that shows `valence` strongly and `cue` (a blurred view of arousal) in lids, brows, mouth and movement; `speech` opens the mouth."""

    def slow(size: float, tau_s: float) -> Track:
        return np.asarray(size * wander(rng, seconds, tau_s), np.float32)

    gain = rng.uniform(0.85, 1.1)
    lid = 1.0 + 0.36 * cue + slow(0.06, 1.0)
    n, at = len(lid), int(rng.integers(50, 300))
    while at < n:  # blinks
        lid[at : at + 12] *= np.float32(1) - np.hanning(14)[1:-1][: n - at].astype(np.float32)
        at += int(rng.integers(120, 600))
    lively = np.clip(1 + 0.7 * cue, 0.25, 2.2)
    return Performance(
        curve=gain * valence + slow(0.08, 1.5) + slow(0.05, 0.3),
        opening=np.clip(0.04 + 0.55 * speech + 0.18 * np.clip(cue, -0.3, 2) + slow(0.04, 0.5), 0, 1.1).astype(np.float32),
        brow_inner=0.75 * gain * valence + slow(0.20, 1.5),
        brow_raise=0.7 * cue + slow(0.15, 0.8),
        lid=np.clip(lid, 0, 1.7).astype(np.float32),
        gaze_x=slow(0.25, 0.4),
        gaze_y=slow(0.12, 0.4),
        x=slow(0.16, 2.5) + lively * slow(0.05, 0.35),
        y=slow(0.09, 2.5) + lively * slow(0.05, 0.30),
        roll=slow(0.05, 2.0) + lively * slow(0.03, 0.4),
        yaw=slow(0.14, 2.0) + lively * slow(0.06, 0.5),
        pitch=slow(0.10, 2.0) + lively * slow(0.05, 0.4),
    )


@dataclass(frozen=True)
class Actor:
    """One person in a scene. `x`, `y` is where the face rests, `half` its half height, in pixels."""

    look: Look
    performance: Performance
    x: float
    y: float
    half: float
    corruptions: list[Corruption]


@dataclass(frozen=True)
class _Body:
    colour: tuple[float, ...]
    width: float


class Scene:
    """Frames of size (w, h) on demand, in order of time; `ovals` are the (x, y, half height) of the actors' faces in the last one."""

    def __init__(self, size: tuple[int, int], actors: list[Actor], seconds: float, rng: np.random.Generator) -> None:
        self.size, self.actors, self.rng = size, actors, rng
        self.ovals: list[tuple[float, float, float]] = []
        self._heads = [Head(actor.look, rng) for actor in actors]
        self._room = _room(size, rng)
        self._bodies = [_Body(tuple(rng.uniform(20, 200, 3).tolist()), rng.uniform(1.4, 1.8)) for _ in actors]
        self._background = self._with_bodies([0.0] * len(actors))
        self._tint = np.clip(rng.normal(1.0, 0.06, 3), 0.85, 1.15)
        self._light = rng.uniform(0.8, 1.15) * (1 + 0.06 * wander(rng, seconds, 3.0))
        self._noise = _noise_tiles(size, rng.uniform(1.5, 6.0), rng)
        self._props = [_prop(rng, actor) for actor in actors]

    def draw(self, t_s: float) -> Pixels:
        """The picture at `t_s`, uint8 BGR [h, w, 3]."""
        away = [self._away(actor, t_s) for actor in self.actors]
        picture = self._with_bodies(away) if any(away) else self._background.copy()
        at = min(int(t_s * CONTROL_HZ), len(self._light) - 1)
        self.ovals = []
        dark = 0.0
        for i, actor in enumerate(self.actors):
            p, head = actor.performance, self._heads[i]
            canvas = head.show(
                Expression(float(p.curve[at]), float(p.opening[at]), float(p.brow_inner[at]), float(p.brow_raise[at]), float(p.lid[at]),
                           (float(p.gaze_x[at]), float(p.gaze_y[at])))
            )  # fmt: skip
            scale = actor.half / actor.look.ry
            yaw, pitch = float(p.yaw[at]), float(p.pitch[at])
            x = actor.x + actor.half * (float(p.x[at]) + 0.25 * yaw) + away[i]
            y = actor.y + actor.half * (float(p.y[at]) + 0.25 * pitch)
            place(picture, canvas, head, head_matrix(x, y, scale, float(p.roll[at]), yaw, pitch))
            hidden = float(level_of(actor.corruptions, "occlusion", t_s))
            if hidden > 0:
                _cover(picture, self._props[i], x, y, actor.half, hidden)
            dark = max(dark, float(level_of(actor.corruptions, "darkness", t_s)))
            self.ovals.append((x, y, actor.half))
        light = float(self._light[at]) * (1 - 0.96 * dark)
        table = np.clip(np.rint(np.arange(256)[:, None] * (light * self._tint)), 0, 255).astype(np.uint8)[None]
        picture = np.asarray(cv2.LUT(picture, table), np.uint8)
        positive, negative = self._noise
        dy, dx = self.rng.integers(0, 32, 2)
        w, h = self.size
        picture = cv2.subtract(cv2.add(picture, positive[dy : dy + h, dx : dx + w]), negative[dy : dy + h, dx : dx + w])
        return np.asarray(picture, np.uint8)

    def _away(self, actor: Actor, t_s: float) -> float:
        """How many pixels to the right an actor has gone, to the nearer side."""
        level = float(level_of(actor.corruptions, "away", t_s))
        return level * (self.size[0] - actor.x + 2 * actor.half) if actor.x > self.size[0] / 2 else -level * (actor.x + 2 * actor.half)

    def _with_bodies(self, away: list[float]) -> Pixels:
        """The room with everyone's shoulders."""
        picture: Pixels = self._room.copy()
        for actor, body, moved in zip(self.actors, self._bodies, away, strict=True):
            centre = (int(actor.x + moved), int(actor.y + 2.35 * actor.half))
            cv2.ellipse(picture, centre, (int(actor.half * body.width), int(actor.half * 1.25)), 0, 0, 360, body.colour, -1, cv2.LINE_AA)
        return picture


def _room(size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """A blurred room: a gradient and furniture."""
    w, h = size
    ramp = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    img = np.clip(rng.uniform(50, 200, 3) * (1 - ramp) + rng.uniform(30, 160, 3) * ramp, 0, 255) * np.ones((1, w, 1), np.float32)
    out = img.astype(np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        x, y = int(rng.integers(-w // 4, w)), int(rng.integers(-h // 4, h))
        cv2.rectangle(
            out, (x, y), (x + int(rng.integers(w // 12, w // 2)), y + int(rng.integers(h // 12, h // 2))), tuple(rng.uniform(20, 230, 3)), -1
        )
    out = np.asarray(cv2.GaussianBlur(out, (0, 0), float(rng.uniform(2, 9)) * w / 320), np.uint8)
    return out


def _noise_tiles(size: tuple[int, int], deviation: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """What a camera's noise adds and what it takes away, a little larger than the frame so that it can be shifted."""
    tile = np.rint(deviation * rng.standard_normal((size[1] + 32, size[0] + 32, 3), dtype=np.float32))
    return np.clip(tile, 0, 255).astype(np.uint8), np.clip(-tile, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Prop:
    kind: int
    colour: tuple[float, ...]
    other: tuple[float, ...]
    side: int


def _prop(rng: np.random.Generator, actor: Actor) -> _Prop:
    """0: hands, 1: a scarf, 2: a box or sheet of paper."""
    kind = int(rng.integers(3))
    base = actor.look.skin * 0.9 if kind == 0 else rng.uniform(30, 230, 3)
    return _Prop(kind, tuple(float(c) for c in base), tuple(float(c) for c in np.asarray(base) * 0.6), int(rng.choice([-1, 1])))


def _cover(picture: Pixels, prop: _Prop, x: float, y: float, half: float, level: float) -> None:
    """Slide the prop over the face; at level 1 it hides eyes and mouth."""
    slide = (1 - level) * 2.6 * half
    if prop.kind == 0:
        for s in (-1, 1):
            cx, cy = x + s * 0.42 * half, y + 0.05 * half + slide
            cv2.ellipse(picture, (int(cx), int(cy + 0.45 * half)), (int(0.40 * half), int(0.5 * half)), 0, 0, 360, prop.colour, -1, cv2.LINE_AA)
            for k in range(4):
                fx = cx + (k - 1.5) * 0.19 * half
                cv2.line(
                    picture, (int(fx), int(cy + 0.4 * half)), (int(fx), int(cy - 0.55 * half)), prop.colour, max(2, int(0.17 * half)), cv2.LINE_AA
                )
                cv2.line(
                    picture, (int(fx + 0.1 * half), int(cy + 0.3 * half)), (int(fx + 0.1 * half), int(cy - 0.5 * half)), prop.other, 1, cv2.LINE_AA
                )
    elif prop.kind == 1:
        top = y - 0.45 * half + slide
        for k in range(8):
            y0 = top + k * 0.22 * half
            cv2.rectangle(
                picture, (int(x - 1.1 * half), int(y0)), (int(x + 1.1 * half), int(y0 + 0.22 * half)), prop.colour if k % 2 else prop.other, -1
            )
    else:
        x0, y0 = x - 0.95 * half + prop.side * slide, y - 0.75 * half
        cv2.rectangle(picture, (int(x0), int(y0)), (int(x0 + 1.9 * half), int(y0 + 1.8 * half)), prop.colour, -1)
        cv2.rectangle(picture, (int(x0), int(y0)), (int(x0 + 1.9 * half), int(y0 + 1.8 * half)), prop.other, 2)
