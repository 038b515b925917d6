"""Pictures with drawn people at known places, for the face finder: uint8 RGB, a blurred room, noise as of a camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sage_edge.training.data.synthetic_face import Expression, Head, draw_look, head_matrix, place


@dataclass(frozen=True)
class Spot:
    """Where a face is: its centre in pixels and its half height."""

    x: float
    y: float
    half: float


class Person:
    """One drawn person, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.head = Head(draw_look(rng), rng)

    def on(self, picture: NDArray[np.uint8], spot: Spot, curve: float = 0.0, opening: float = 0.1) -> None:
        """Draw the face over `picture` (BGR) at `spot`."""
        canvas = self.head.show(Expression(curve=curve, opening=opening, brow_inner=curve, brow_raise=0.0, lid=1.0))
        place(picture, canvas, self.head, head_matrix(spot.x, spot.y, spot.half / self.head.look.ry, 0.02 * curve, 0.0, 0.0))


class Room:
    """A place to put people in; `shot` takes a picture with the camera's noise of moment `index`."""

    def __init__(self, size: tuple[int, int] = (640, 480), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        small = rng.integers(60, 190, (6, 8, 3)).astype(np.uint8)
        self.background = cv2.GaussianBlur(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), (0, 0), 5)

    def shot(self, index: int, people: list[tuple[Person, Spot]], *, light: float = 1.0, cover: Spot | None = None) -> NDArray[np.uint8]:
        """RGB. `light` scales everything; `cover` is a card held before the camera there, as large as the face."""
        picture = self.background.copy()
        for person, spot in people:
            person.on(picture, spot, curve=float(np.sin(index / 15)), opening=0.2 + 0.2 * float(np.sin(index / 4)))
        if cover is not None:
            corner = (int(cover.x - cover.half), int(cover.y - cover.half))
            cv2.rectangle(picture, corner, (corner[0] + int(2 * cover.half), corner[1] + int(2 * cover.half)), (120, 130, 90), -1)
        noise = np.random.default_rng(index).integers(-5, 6, picture.shape, np.int16)
        lit = picture if light == 1.0 else (picture * light).astype(np.uint8)
        return np.ascontiguousarray(np.clip(lit + noise, 0, 255).astype(np.uint8)[..., ::-1])


def path_of(index: int, size: tuple[int, int] = (640, 480), half: float = 110.0) -> Spot:
    """Somebody who sways: up to 12 pixels a frame and 15 percent nearer or farther at 30 frames a second."""
    t = index / 30
    return Spot(size[0] / 2 + 80 * np.sin(2.1 * t), size[1] / 2 + 30 * np.sin(1.3 * t + 1), half * (1 + 0.15 * np.sin(0.9 * t)))
