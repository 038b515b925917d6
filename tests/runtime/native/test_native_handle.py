"""Addresses of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from sage_edge.runtime.native.handle import address

FRAME = np.zeros((6, 8, 3), np.uint8)
READ_ONLY = FRAME.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "array",
    [FRAME, FRAME[2:, 1:], FRAME[::-2], READ_ONLY, FRAME[:0], np.array(3.0), np.frombuffer(b"bytes", np.uint8), np.zeros(3, np.float64)],
    ids=["whole", "part", "backwards", "read-only", "empty", "scalar", "of bytes", "float64"],
)
def test_is_what_numpy_says(array: np.ndarray) -> None:
    assert address(array) == array.__array_interface__["data"][0]


def test_of_a_subclass() -> None:
    masked = np.ma.array(np.arange(4))
    assert address(masked) == masked.__array_interface__["data"][0]
