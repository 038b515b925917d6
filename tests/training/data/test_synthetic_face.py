from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_edge.runtime.faces import FaceFinder
from sage_edge.training.data.synthetic_face import CENTRE, Expression, Head, draw_look, head_matrix, place

REST = Expression(curve=0, opening=0.1, brow_inner=0, brow_raise=0, lid=1)


def changed_rows(seed: int, expression: Expression) -> NDArray[np.int64]:
    """Canvas rows that differ from the face at rest by more than a little."""
    rng = np.random.default_rng(seed)
    head = Head(draw_look(rng), rng)
    difference = np.abs(head.show(expression).astype(int) - head.show(REST)).max(axis=(1, 2))
    return np.flatnonzero(difference > 12)


@pytest.mark.parametrize("seed", range(5))
def test_each_expression_moves_its_own_part(seed: int) -> None:
    look = draw_look(np.random.default_rng(seed))
    eyes, mouth = CENTRE[1] + look.eye_dy, CENTRE[1] + look.mouth_y
    for changed in (dataclasses.replace(REST, curve=-1), dataclasses.replace(REST, opening=0.9)):
        rows = changed_rows(seed, changed)
        assert len(rows)
        assert rows.min() > CENTRE[1]
        assert abs(np.median(rows) - mouth) < 12
    for changed in (
        dataclasses.replace(REST, brow_inner=-1),
        dataclasses.replace(REST, brow_raise=1),
        dataclasses.replace(REST, lid=0),
        dataclasses.replace(REST, lid=1.5),
    ):
        rows = changed_rows(seed, changed)
        assert len(rows)
        assert rows.max() < CENTRE[1] + 5
        assert abs(np.median(rows) - eyes) < 25


def test_people_differ() -> None:
    heads = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        heads.append(Head(draw_look(rng), rng).show(REST).astype(int))
    pairs = [np.abs(a - b)[40:160, 50:140].mean() for i, a in enumerate(heads) for b in heads[:i]]
    assert min(pairs) > 8


def test_a_head_lands_where_it_is_placed_and_may_leave_the_picture() -> None:
    rng = np.random.default_rng(2)
    head = Head(draw_look(rng), rng)
    picture = np.full((240, 320, 3), 120, np.uint8)
    place(picture, head.show(REST), head, head_matrix(200, 110, 0.8, 0.1, 0.1, 0.0))
    found = FaceFinder(margin=0.0).detect(picture, "bgr")
    assert found is not None
    x, y, side, _ = found.box
    assert abs(x + side / 2 - 200) < 0.1 * side
    assert abs(y + side / 2 - 110) < 0.15 * side
    for x in (-500.0, -30.0, 310.0, 900.0):
        before = picture.copy()
        place(picture, head.show(REST), head, head_matrix(x, 110, 0.8, 0, 0, 0))
        assert (picture != before).any() == (-100 < x < 400)
