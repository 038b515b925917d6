"""Drawn people: a look (identity, never changing) and an expression (per frame) give a head; `place` puts it on a picture.

Pictures are uint8 BGR. A head is drawn on a canvas of 192 x 192 with the oval's centre at CENTRE; cascades find it because eye sockets are
darker than cheeks and the nose bridge is bright. Everything that does not move is drawn once per person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

CANVAS = 192
CENTRE = (96.0, 100.0)
_FIXED = 4  # fractional bits of cv2's polygon corners
_SKINS = ((176, 196, 235), (150, 180, 228), (128, 160, 212), (110, 140, 190), (84, 112, 165), (66, 88, 134), (54, 72, 112))
_HAIRS = ((22, 22, 26), (28, 40, 62), (40, 66, 110), (70, 110, 165), (120, 165, 205), (150, 150, 155), (30, 45, 120))
_IRISES = ((40, 60, 90), (60, 100, 70), (140, 110, 70), (30, 40, 55))


@dataclass(frozen=True)
class Look:
    """One person's face. Lengths in canvas pixels, colours BGR 0..255, `*_bias` shifts what the face shows at rest."""

    skin: NDArray[np.float32]
    hair: NDArray[np.float32]
    lips: NDArray[np.float32]
    iris: NDArray[np.float32]
    rx: float
    ry: float
    eye_dx: float
    eye_dy: float
    eye_w: float
    eye_h: float
    brow_dy: float
    brow_w: float
    brow_thick: float
    brow_tilt: float
    nose_w: float
    nose_y: float
    mouth_y: float
    mouth_w: float
    lip: float
    curve_bias: float
    hair_style: int
    beard: float
    glasses: bool
    light_x: float
    light_y: float
    age: float


def draw_look(rng: np.random.Generator) -> Look:
    """A new person."""
    skin = np.array(_SKINS[rng.integers(len(_SKINS))], np.float32) * rng.uniform(0.92, 1.06)
    rx, ry = rng.uniform(47, 55), rng.uniform(62, 71)
    lips = np.clip(skin * np.array([0.68, 0.6, 0.86], np.float32) * rng.uniform(0.85, 1.1), 0, 255)
    return Look(
        skin=np.clip(skin, 0, 250),
        hair=np.array(_HAIRS[rng.integers(len(_HAIRS))], np.float32) * rng.uniform(0.8, 1.15),
        lips=lips.astype(np.float32),
        iris=np.array(_IRISES[rng.integers(len(_IRISES))], np.float32),
        rx=rx,
        ry=ry,
        eye_dx=rx * rng.uniform(0.40, 0.46),
        eye_dy=-ry * rng.uniform(0.10, 0.16),
        eye_w=rx * rng.uniform(0.17, 0.22),
        eye_h=ry * rng.uniform(0.050, 0.075),
        brow_dy=-ry * rng.uniform(0.17, 0.22),
        brow_w=rx * rng.uniform(0.21, 0.28),
        brow_thick=rng.uniform(2.2, 5.0),
        brow_tilt=rng.normal(0, 0.8),
        nose_w=rx * rng.uniform(0.15, 0.24),
        nose_y=ry * rng.uniform(0.18, 0.27),
        mouth_y=ry * rng.uniform(0.48, 0.56),
        mouth_w=rx * rng.uniform(0.33, 0.43),
        lip=rng.uniform(2.6, 5.2),
        curve_bias=float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)),
        hair_style=int(rng.integers(5)),
        beard=float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0.25, 0.6)])),
        glasses=bool(rng.random() < 0.2),
        light_x=rng.uniform(-0.22, 0.22),
        light_y=rng.uniform(-0.05, 0.15),
        age=rng.uniform(0, 1),
    )


@dataclass(frozen=True)
class Expression:
    """What moves: 0 is at rest, 1 a strong expression. `lid` is the eyes' opening (0 shut, 1 at rest, 1.6 wide); `gaze` in eye widths."""

    curve: float
    opening: float
    brow_inner: float
    brow_raise: float
    lid: float
    gaze: tuple[float, float] = (0.0, 0.0)


class Head:
    """A person's head, drawn once; `show(expression)` gives the canvas, `alpha` (uint8 [192, 192]) its outline."""

    def __init__(self, look: Look, rng: np.random.Generator) -> None:
        self.look = look
        self._base, self.alpha = _base(look, rng)

    def show(self, e: Expression) -> Pixels:
        """The head with this expression, uint8 BGR [192, 192, 3]."""
        look, cx, cy = self.look, *CENTRE
        img = self._base.copy()
        for side in (-1, 1):
            self._eye(img, cx + side * look.eye_dx, cy + look.eye_dy, e)
            self._brow(img, side, e)
        if e.curve + look.curve_bias > 0.15:
            self._folds(img, e.curve + look.curve_bias)
        self._mouth(img, e)
        return np.asarray(cv2.GaussianBlur(img, (3, 3), 0.7), np.uint8)

    def _eye(self, img: Pixels, x: float, y: float, e: Expression) -> None:
        look = self.look
        up, down = look.eye_h * e.lid * 1.15, look.eye_h * (0.35 + 0.3 * e.lid)
        t = np.linspace(-1, 1, 9)
        arch = 1 - t * t
        if e.lid > 0.15:
            outline = np.concatenate([np.stack([x + t * look.eye_w, y - up * arch], 1), np.stack([x - t * look.eye_w, y + down * arch], 1)])
            x0, y0 = int(x - look.eye_w - 2), int(y - look.eye_h * 2.2 - 2)
            x1, y1 = int(x + look.eye_w + 3), int(y + look.eye_h * 1.4 + 3)
            patch = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
            patch[:] = np.clip(look.skin * 0.35 + 125, 0, 235)
            mask = np.zeros(patch.shape[:2], np.uint8)
            _fill(mask, outline - (x0, y0), 255)
            centre = _fixed(np.array([x - x0 + e.gaze[0] * look.eye_w, y - y0 + e.gaze[1] * look.eye_h]))
            for radius, colour in ((0.46, look.iris), (0.24, (15, 15, 15))):
                cv2.circle(patch, centre, int(look.eye_w * radius * 16), _colour(colour), -1, cv2.LINE_AA, _FIXED)
            part = img[y0:y1, x0:x1]
            weight = mask.astype(np.float32) / 255.0
            part[:] = cv2.blendLinear(patch, part, weight, 1.0 - weight)
        lid = np.stack([x + t * look.eye_w * 1.08, y - up * arch], 1)
        _line(img, lid, look.hair * 0.35, 2)

    def _brow(self, img: Pixels, side: int, e: Expression) -> None:
        look, cx, cy = self.look, *CENTRE
        x, y = cx + side * look.eye_dx, cy + look.eye_dy + look.brow_dy - 4.5 * e.brow_raise
        inner, outer = x - side * look.brow_w * 1.05, x + side * look.brow_w
        # e.brow_inner > 0: calm and open; < 0: inner ends pulled down and together
        drop = -4.2 * e.brow_inner + look.brow_tilt
        top = np.array([[inner + side * 1.2 * min(e.brow_inner, 0), y + drop], [x, y - 2.4 - 0.4 * drop], [outer, y + 1.5 - 0.3 * drop]])
        thick = np.array([[0, look.brow_thick], [0, look.brow_thick * 0.9], [0, 1.0]])
        _fill(img, np.concatenate([top, (top + thick)[::-1]]), look.hair * 0.55 + look.skin * 0.12)

    def _folds(self, img: Pixels, curve: float) -> None:
        look, cx, cy = self.look, *CENTRE
        colour = look.skin * (0.93 - 0.13 * min(curve, 1.0) - 0.05 * look.age)
        for side in (-1, 1):
            points = np.array(
                [[look.nose_w * 1.25, look.nose_y - 2], [look.mouth_w * 0.95, look.mouth_y - 9], [look.mouth_w * 1.22, look.mouth_y - 1]]
            )
            _line(img, np.stack([cx + side * points[:, 0], cy + points[:, 1]], 1), colour, 2)

    def _mouth(self, img: Pixels, e: Expression) -> None:
        look, cx, cy = self.look, *CENTRE
        curve, opening = e.curve + look.curve_bias, max(e.opening, 0.0)
        half = look.mouth_w * (1 + 0.14 * curve - 0.10 * min(opening, 1.0))
        t = np.linspace(-1, 1, 13)
        arch = 1 - t * t
        middle = cy + look.mouth_y + (0.45 - t * t) * curve * 8.0
        gap = opening * 9.0 * arch
        x = cx + t * half
        upper = np.stack([x, middle - gap * 0.35 - look.lip * 0.75 * arch], 1)
        lower = np.stack([x[::-1], (middle + gap * 0.65 + look.lip * arch)[::-1]], 1)
        _fill(img, np.concatenate([upper, lower]), look.lips)
        if opening > 0.06:
            inner = np.concatenate([np.stack([x, middle - gap * 0.35], 1), np.stack([x[::-1], (middle + gap * 0.65)[::-1]], 1)])
            _fill(img, inner, (35, 25, 60))
            if opening > 0.25:
                teeth = np.concatenate([np.stack([x, middle - gap * 0.35], 1)[2:-2], np.stack([x, middle - gap * 0.05], 1)[2:-2][::-1]])
                _fill(img, teeth, (205, 215, 220))
        _line(img, np.stack([x, middle], 1) if opening <= 0.06 else upper + np.array([0, look.lip * 0.6]), look.lips * 0.55, 1)


def _base(look: Look, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """The unmoving head and its outline."""
    cx, cy = CENTRE
    yy, xx = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    u, v = (xx - cx) / look.rx, (yy - cy) / look.ry
    jaw = 1 + 0.10 * np.clip(v, 0, 1)  # narrower below
    e = (u * jaw) ** 2 + v**2
    inside = np.clip((1 - e) * 22, 0, 1)
    shade = 1.02 - 0.34 * np.clip(e, 0, 1) - look.light_x * u - look.light_y * v
    img = look.skin * shade[..., None]
    ears = np.maximum(*[np.clip((1 - ((u - s * 1.03) / 0.14) ** 2 - ((v + 0.02) / 0.2) ** 2) * 6, 0, 1) for s in (-1, 1)])
    img = img * (1 - 0.2 * (ears * (1 - inside)))[..., None]
    neck = np.clip((0.62 - np.abs(u)) * 18, 0, 1) * np.clip((v - 0.45) * 6, 0, 1)
    img = np.where((inside < 0.5)[..., None] & (neck > 0)[..., None], look.skin * 0.72, img)

    def spot(x: float, y: float, ax: float, ay: float, colour: NDArray[np.floating], strength: float, soft: float) -> None:
        nonlocal img
        mask = np.clip((1 - ((xx - x) / ax) ** 2 - ((yy - y) / ay) ** 2) * 2, 0, 1) * strength
        mask = cv2.GaussianBlur(mask, (0, 0), soft)[..., None]
        img = img * (1 - mask) + colour * mask

    for side in (-1, 1):
        x, y = cx + side * look.eye_dx, cy + look.eye_dy
        spot(x, y - look.ry * 0.045, look.rx * 0.36, look.ry * 0.18, look.skin * 0.52, 1.0, 5)
        spot(cx + side * look.rx * 0.46, cy + look.ry * 0.2, look.rx * 0.25, look.ry * 0.15, np.minimum(look.skin * 1.1, 255), 0.9, 7)
        spot(cx + side * look.nose_w * 0.6, cy + look.nose_y, 2.6, 2.0, look.skin * 0.38, 0.9, 1.0)
        spot(x, y + look.ry * 0.13, look.rx * 0.2, 1.6, look.skin * 0.78, 0.7 * look.age, 1.5)
    spot(cx, cy - look.ry * 0.08, look.rx * 0.10, look.ry * 0.27, np.minimum(look.skin * 1.14, 255), 1.0, 4)
    spot(cx, cy + look.nose_y + 2, look.nose_w * 1.1, 3.0, look.skin * 0.6, 0.9, 2.5)
    spot(cx, cy + look.mouth_y + look.ry * 0.15, look.mouth_w * 0.6, 3.0, look.skin * 0.75, 0.7, 2.5)
    if look.beard:
        chin = np.clip((v - 0.28 - 0.22 * (1 - np.abs(u))) * 5, 0, 1) * inside * look.beard
        keep = 1 - np.clip((1 - (u * look.rx / (look.mouth_w * 1.15)) ** 2 - ((yy - cy - look.mouth_y) / 8.0) ** 2) * 3, 0, 1)
        chin = cv2.GaussianBlur((chin * keep).astype(np.float32), (0, 0), 1.5)[..., None]
        img = img * (1 - chin) + (look.hair * 0.8 + look.skin * 0.15) * chin
    hair = _hair_mask(look.hair_style, u, v, inside)
    grain = 1 + 0.25 * cv2.GaussianBlur(rng.standard_normal((CANVAS, CANVAS)).astype(np.float32), (0, 0), sigmaX=0.8, sigmaY=4)
    img = img * (1 - hair[..., None]) + look.hair * grain[..., None] * hair[..., None]
    img = img + cv2.GaussianBlur(rng.standard_normal((CANVAS, CANVAS, 3)).astype(np.float32), (0, 0), 2.0) * 9
    out = np.clip(img, 0, 255).astype(np.uint8)
    if look.glasses:
        for side in (-1, 1):
            centre = _fixed(np.array([cx + side * look.eye_dx, cy + look.eye_dy + 1]))
            cv2.ellipse(out, centre, (int(look.rx * 0.31 * 16), int(look.ry * 0.17 * 16)), 0, 0, 360, (35, 35, 40), 2, cv2.LINE_AA, _FIXED)
        _line(out, np.array([[cx - look.rx * 0.13, cy + look.eye_dy], [cx + look.rx * 0.13, cy + look.eye_dy]]), np.array([35, 35, 40]), 2)
    alpha = np.maximum.reduce([inside, hair, ears, neck])
    alpha[:2], alpha[:, :2], alpha[:, -2:] = 0, 0, 0
    fade = np.clip((CANVAS - 2 - yy) / 12, 0, 1)
    return out, np.rint(255 * cv2.GaussianBlur((alpha * fade).astype(np.float32), (0, 0), 0.8)).astype(np.uint8)


def _hair_mask(style: int, u: NDArray[np.float32], v: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """0: shaven, 1: short, 2: parted, 3: long, 4: fringe."""
    cap = np.clip((1 - (u / 1.13) ** 2 - ((v + 0.18) / 0.98) ** 2) * 14, 0, 1)
    line = {0: -2.0, 1: -0.58, 2: -0.52, 3: -0.55, 4: -0.46}[style]
    if style == 0:
        return np.zeros_like(u)
    tilt = 0.16 * u if style == 2 else 0.10 * u * u
    top = cap * np.clip((line - v - tilt) * 16, 0, 1)
    edge = np.clip((u * u + v * v - 0.90) * 10, 0, 1)
    sides = cap * edge * np.clip((0.05 - v) * 8, 0, 1)
    mask = np.maximum(top, sides)
    if style == 3:
        falls = np.clip((1.30 - np.abs(u) - 0.10 * v) * 10, 0, 1) * edge * np.clip((v + 0.75) * 8, 0, 1)
        mask = np.maximum(mask, falls * np.clip((1.02 - v - 0.3 * (np.abs(u) - 1) ** 2) * 6, 0, 1) * np.clip((np.abs(u) - 0.62) * 8, 0, 1))
    return np.asarray(mask, np.float32)


def head_matrix(x: float, y: float, scale: float, roll: float, yaw: float, pitch: float) -> NDArray[np.float64]:
    """[2, 3] from canvas to picture: the oval's centre lands on (x, y); `roll` in radians, `yaw` and `pitch` squeeze and shear a little."""
    c, s = math.cos(roll), math.sin(roll)
    linear = scale * np.array([[c, -s], [s, c]]) @ np.array([[math.cos(yaw), 0.0], [0.25 * math.sin(yaw) * math.sin(pitch), math.cos(pitch)]])
    return np.hstack([linear, (np.array([x, y]) - linear @ np.array(CENTRE))[:, None]])


def place(picture: Pixels, canvas: Pixels, head: Head, matrix: NDArray[np.float64]) -> None:
    """Blend a head into `picture` in place; parts outside are cut off."""
    corners = matrix[:, :2] @ np.array([[0, CANVAS, 0, CANVAS], [0, 0, CANVAS, CANVAS]]) + matrix[:, 2:]
    x0, y0 = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=1)).astype(int), picture.shape[1::-1])
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    local = matrix.copy()
    local[:, 2] -= (x0, y0)
    size = (int(x1 - x0), int(y1 - y0))
    moved = cv2.warpAffine(canvas, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = np.multiply(cv2.warpAffine(head.alpha, local, size, flags=cv2.INTER_LINEAR), np.float32(1 / 255), dtype=np.float32)
    part = picture[y0:y1, x0:x1]
    part[:] = cv2.blendLinear(moved, np.ascontiguousarray(part), weight, 1.0 - weight)


def _fixed(point: NDArray[np.floating]) -> tuple[int, int]:
    return round(float(point[0]) * 16), round(float(point[1]) * 16)


def _colour(colour: object) -> tuple[float, ...]:
    return tuple(float(c) for c in np.clip(np.asarray(colour, np.float64), 0, 255))


def _fill(img: NDArray[np.uint8], points: NDArray[np.floating], colour: object) -> None:
    value = colour if isinstance(colour, int) else _colour(colour)
    cv2.fillPoly(img, [np.rint(points * 16).astype(np.int32)], value, cv2.LINE_AA, _FIXED)


def _line(img: NDArray[np.uint8], points: NDArray[np.floating], colour: object, thick: int) -> None:
    cv2.polylines(img, [np.rint(points * 16).astype(np.int32)], False, _colour(colour), thick, cv2.LINE_AA, _FIXED)
